# One command per intent, the same here and in CI. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
SITE   ?= b
DIR    ?= backup
MINUTES ?= 10
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: observability help demo test setup setup-dev lint format types integration check bench kafka lock schemas docs clean flows manifests vms vms-full vms-evidence vms-clean kubernetes kubernetes-full kubernetes-evidence kubernetes-build kubernetes-up kubernetes-down kubernetes-clean sites-files

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort | expand -t 16

demo: $(VENV)/.demo  ## the whole pipeline on this machine: make demo ARGS="--duration 20"
	@$(BIN)/gpu-tokens demo $(ARGS)

test: $(VENV)/.dev  ## the fast suite (some two minutes of two cores)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

setup: $(VENV)/.demo  ## virtual environment with the pinned runtime
setup-dev: $(VENV)/.dev  ## the same with test and lint tools

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: requirements/demo.txt requirements/build.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing the pinned runtime into $(VENV) (once; about a minute)"
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/demo.txt
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/build.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/sites.txt clients/python/pyproject.toml $(VENV)/.demo
	@echo "installing the pinned test tools into $(VENV)"
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/dev.txt
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/sites.txt
	@$(PIP) install --no-deps --no-build-isolation -e clients/python
	@touch $@

lint: $(VENV)/.dev  ## ruff, formatting included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev  ## mypy --strict
	$(BIN)/mypy

.PHONY: pictures
pictures: $(VENV)/.dev  ## take the pictures of the dashboard that the documentation shows (Chromium)
	PICTURES=1 $(BIN)/python -m pytest -q tests/e2e/test_dashboard_screens.py -k documentation

integration: $(VENV)/.dev  ## real Kafka, real mongod, process kills; two files at a time, since they wait half of their time
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not minutes" tests/integration tests/e2e $(ARGS)

.PHONY: integration-full
integration-full: $(VENV)/.dev  ## the same, and what takes minutes: brokers, majorities and sites that are away, kills until sums are wrong
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/integration tests/e2e $(ARGS)

check: lint types test integration  ## what CI checks before vms, kubernetes and drill (.ci/run)

bench: $(VENV)/.dev  ## ratios against the same mongod in the same run
	$(BIN)/python -m bench $(ARGS)

.PHONY: peers
peers: $(VENV)/.dev  ## this processor next to its peers, one table (Java 17, Maven; ten minutes): make peers ARGS="--readme"
	$(BIN)/python -m bench peers $(ARGS)

.PHONY: faults
faults: $(VENV)/.dev  ## every fault of the matrix: row, expected, seen (half an hour): make faults ARGS="--rows 8,9,33"
	$(BIN)/python -m bench faults $(ARGS)

.PHONY: properties
properties: $(VENV)/.dev  ## property tests with examples nobody drew before: make properties
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=properties $(ARGS) tests/unit

.PHONY: soak
soak: $(VENV)/.dev  ## live events with deaths for so long: memory flat, lag bounded, identity held: make soak MINUTES=10
	$(BIN)/python -m bench soak --minutes $(MINUTES) $(ARGS)

backup: $(VENV)/.demo  ## the whole store as files: make backup DIR=... ARGS="--recipient age1..."
	@$(BIN)/gpu-tokens backup $(DIR) $(ARGS)

restore: $(VENV)/.demo  ## a backup into an empty database, and its audit: make restore DIR=... MONGODB_DATABASE=...
	@$(BIN)/gpu-tokens restore $(DIR) $(ARGS)
	@$(BIN)/gpu-tokens audit

kafka: $(VENV)/.demo  ## a real Kafka broker without Docker (Java 17 and Maven): make kafka ARGS="--version 4.4.0"
	@$(BIN)/gpu-tokens kafka $(ARGS)

lock:  ## pin every dependency with hashes (needs uv)
	scripts/lock

schemas: $(VENV)/.demo  ## write the JSON Schemas from the types
	$(BIN)/gpu-tokens schemas write src/gpu_token_analytics/wire/schemas CA0/schemas

docs: $(VENV)/.dev  ## write the generated pages (settings, metrics, API) and CA2's settings
	$(BIN)/python scripts/reference_docs.py
	$(BIN)/python -m gpu_token_analytics.api.reference
	$(BIN)/python -m deploy.manifests write

flows: $(VENV)/.dev  ## write firewall rules, network policies, addresses and tables from deploy/flows.yaml
	$(BIN)/python -m deploy.flows write
	$(BIN)/python -m deploy.policies write

manifests: $(VENV)/.dev  ## write CA2's images and settings from .env.example and the settings table
	$(BIN)/python -m deploy.manifests write

sites-files: $(VENV)/.dev  ## write Envoy, MirrorMaker, Terraform and tables from deploy/sites.yaml
	$(BIN)/python -m deploy.sites write

observability: $(VENV)/.dev  ## write Prometheus rules and Grafana dashboards from their tables
	$(BIN)/python -m deploy.observability write

.PHONY: backup restore sites promote failback sites-down drill drill-full
sites: $(VENV)/.dev  ## two sites and a vote on this machine (root), left running: make sites-down ends them
	@$(BIN)/python -m deploy.bench sites up

promote: $(VENV)/.dev  ## the standby site takes over, on what runs: make promote SITE=b
	@$(BIN)/python -m deploy.bench sites promote $(SITE)

failback: $(VENV)/.dev  ## back to the active site, on what runs
	@$(BIN)/python -m deploy.bench sites failback

sites-down: $(VENV)/.dev  ## end the two sites and remove them
	@$(BIN)/python -m deploy.bench sites down

drill: $(VENV)/.dev  ## the disaster-recovery drill from nothing, one table (root): make drill ARGS="--install"
	@$(BIN)/python -m deploy.bench sites drill $(ARGS)

drill-full: $(VENV)/.dev  ## the same with the longer rows
	@$(BIN)/python -m deploy.bench sites drill --full $(ARGS)

vms: $(VENV)/.dev  ## CA0 and CA1 on four systemd machines of this one (root): make vms ARGS="--install"
	@$(BIN)/python -m deploy.bench vms $(ARGS)

vms-full: $(VENV)/.dev  ## the same, and each machine loses power during a replay
	@$(BIN)/python -m deploy.bench vms --full $(ARGS)

vms-evidence: $(VENV)/.dev  ## vms-full, and its output into the READMEs of CA0 and CA1
	@$(BIN)/python -m deploy.bench vms --full --evidence $(ARGS)

.PHONY: recording diagrams
recording: $(VENV)/.dev  ## CA0's tour on the four machines, recorded into CA0/demo (root): make recording ARGS="--install"
	@$(BIN)/python -m deploy.bench vms --recording $(ARGS)

diagrams:  ## draw the stages' diagrams (apt-get install plantuml)
	@plantuml -tsvg CA*/diagrams/*.puml

vms-clean:  ## remove what the machines' next run would reuse (about 6 GB)
	rm -rf build/vms

kubernetes: $(VENV)/.dev  ## CA2 and CA3 on a real cluster of this machine (root, Go): make kubernetes ARGS="--install"
	@$(BIN)/python -m deploy.bench kubernetes $(ARGS)

kubernetes-full: $(VENV)/.dev  ## the same with the long rows: every node drained, disks filled, networks cut
	@$(BIN)/python -m deploy.bench kubernetes --full $(ARGS)

kubernetes-evidence: $(VENV)/.dev  ## kubernetes-full, and its output into the documents of CA2 and CA3
	@$(BIN)/python -m deploy.bench kubernetes --full --evidence $(ARGS)

kubernetes-build: $(VENV)/.dev  ## only the Kubernetes binary, into the user's cache folder (11 minutes of two cores, once)
	@$(BIN)/python -m deploy.bench kubernetes build

kubernetes-up: $(VENV)/.dev  ## the cluster alone, left running, with its kubectl in build/kubernetes/run/bin
	@$(BIN)/python -m deploy.bench kubernetes up $(ARGS)

kubernetes-down: $(VENV)/.dev  ## remove what kubernetes-up, or a run that was killed, left
	@$(BIN)/python -m deploy.bench kubernetes down

kubernetes-clean: kubernetes-down  ## remove what the cluster's next run would reuse (about 3 GB)
	rm -rf build/kubernetes

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
