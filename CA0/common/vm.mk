# What every machine's Makefile can do. Runs on the machine itself, in /opt/gpu-tokens/<vm>.
VM      := $(notdir $(CURDIR))
DOCKER  ?= sudo docker
COMPOSE := $(DOCKER) compose -p gpu-tokens
ADMIN_CIDR ?= $(shell cat /etc/gpu-tokens/admin-cidr 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help setup up down logs health doctor

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort | expand -t 12

setup:  ## packages, container engine, SSH, firewall: make setup ADMIN_CIDR=198.51.100.10/32
	@[ -n "$(ADMIN_CIDR)" ] || { echo "give your own address: make setup ADMIN_CIDR=198.51.100.10/32"; exit 2; }
	@sudo ../common/bootstrap.sh $(VM) $(ADMIN_CIDR)

up:  ## start, and wait until healthy
	@$(COMPOSE) up -d --wait --wait-timeout 180 $(SERVICES)

down:  ## stop and remove the containers; the data stays (make down ARGS=-v removes it too)
	@$(COMPOSE) down $(ARGS)

logs:  ## the last lines of every container (make logs ARGS=-f follows)
	@$(COMPOSE) logs --tail 100 $(ARGS)

health:  ## exit 0 when every container runs and is healthy
	@$(COMPOSE) ps -a --format '{{.Service}} {{.State}} {{.Health}} {{.ExitCode}}' | ../common/health.sh

doctor:  ## what is wrong with this machine, if anything
	@../common/doctor.sh $(VM)
