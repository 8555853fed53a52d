#!/usr/bin/env bash
# Prints the .env of one machine: exactly the variables that its docker-compose.yml names, so no machine holds a secret it
# does not use. Values: .env.example (versions, settings), topology.env (addresses), secrets.env, and settings.env if there.
#   common/vm-env.sh VM_FOLDER       runs on the operator's machine, in a checkout
set -euo pipefail
ca0=$(cd "$(dirname "$0")/.." && pwd)
vm=${1:?usage: vm-env.sh VM_FOLDER}
secrets=${SECRETS_FILE:-$ca0/secrets.env}
[ -f "$secrets" ] || { echo "$secrets is missing: make secrets" >&2; exit 2; }

# The files are the only source: nothing of the caller's environment may slip in.
exec env -i PATH="$PATH" CA0="$ca0" VM="$vm" SECRETS="$secrets" bash -c '
  set -euo pipefail
  set -a
  . "$CA0/../.env.example"
  . "$CA0/topology.env"
  . "$CA0/defaults.env"
  . "$SECRETS"
  if [ -f "$CA0/settings.env" ]; then . "$CA0/settings.env"; fi
  # Clients get the password only where Kafka asks for one.
  KAFKA_SASL_MECHANISM= KAFKA_SASL_USERNAME= KAFKA_SASL_PASSWORD=
  case $KAFKA_SECURITY_PROTOCOL in SASL_*)
    KAFKA_SASL_MECHANISM=SCRAM-SHA-512 KAFKA_SASL_USERNAME=$KAFKA_CLIENT_USERNAME KAFKA_SASL_PASSWORD=$KAFKA_CLIENT_PASSWORD ;;
  esac
  for name in $(grep -oE "[$][{][A-Z0-9_]+" "$CA0/$VM/docker-compose.yml" | tr -d "\${" | sort -u); do
    [ -n "${!name+set}" ] || { echo "$VM/docker-compose.yml names $name, which no file gives a value" >&2; exit 2; }
    printf "%s=%s\n" "$name" "${!name}"
  done
'
