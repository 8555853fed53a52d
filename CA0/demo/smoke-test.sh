#!/usr/bin/env bash
# The deployed pipeline, seen from outside: topic, group, documents, health, ledger. Runs on the operator's machine, over SSH.
#   demo/smoke-test.sh          reads hosts.env; MIN_DOCS=100 WAIT_SECONDS=180 by default
# Prints one line per check and ends with `N passed, N failed`; exit 1 when a check failed.
set -euo pipefail
ca0=$(cd "$(dirname "$0")/.." && pwd)
hosts=${HOSTS_FILE:-$ca0/hosts.env}
[ -f "$hosts" ] || { echo "$hosts is missing: cp hosts.env.example hosts.env and fill it in" >&2; exit 2; }
. "$hosts"
. "$ca0/topology.env"
topic=$(sed -n 's/^KAFKA_TOPIC=//p' "$ca0/../.env.example")
min_docs=${MIN_DOCS:-100}
end=$((SECONDS + ${WAIT_SECONDS:-180}))
user=${SSH_USER:-ubuntu}
options=${SSH_OPTIONS:--i ${SSH_KEY:-$HOME/.ssh/id_ed25519} -o StrictHostKeyChecking=accept-new}
passed=0 failed=0

on() { # address, command
  # shellcheck disable=SC2086  # several options
  ssh $options "$user@$1" "$2"
}
check() { # name, shown on success, command...: again until it succeeds or the time is up
  local name=$1 seen
  shift
  while ! seen=$("$@" 2>&1); do
    if [ $SECONDS -ge $end ]; then
      echo "FAILED  $name: $seen"
      failed=$((failed + 1))
      return
    fi
    sleep 3
  done
  echo "passed  $name: $seen"
  passed=$((passed + 1))
}
make_on() { on "$1" "make -s -C /opt/gpu-tokens/$2 $3"; }

partitions() {
  local described
  described=$(make_on "$VM1_ADDRESS" vm1-kafka topics | grep -E "Topic: $topic[[:space:]].*PartitionCount")
  grep -q 'PartitionCount: 12[^0-9]' <<<"$described " && echo "$topic has 12 partitions"
}
assignment() { # every partition has a consumer
  local assigned
  # a console consumer of `make records` leaves a group without members, which the tool tells
  assigned=$(make_on "$VM1_ADDRESS" vm1-kafka groups 2> >(grep -v "no active members" | grep . >&2) | awk -v t="$topic" '$2 == t && $7 != "-" {n++} END {print n + 0}')
  echo "$assigned of 12 partitions assigned"
  [ "$assigned" = 12 ]
}
mongo_eval() { # JavaScript, as the pipeline's own user; the password never leaves the machine
  on "$VM2_ADDRESS" "/opt/gpu-tokens/vm2-mongo/query.sh '$1'"
}
documents() { # collection, filter
  local n
  n=$(mongo_eval "db.$1.countDocuments($2)" | tail -1)
  echo "$n, at least $min_docs wanted"
  [ "$n" -ge "$min_docs" ]
}
gpu_samples() { min_docs=4 documents gpu_metrics '{}'; }
usages() { documents token_usage '{}'; }
priced() { documents token_usage '{cost_per_token: {$gt: 0}}'; }
cells() { min_docs=1 documents ledger_cells '{}'; }
answers() { # path
  curl -fsS --max-time 5 "http://${VM3_ADDRESS}:${PROCESSOR_PORT}$1" | head -c 300
}
status_of() { # path: the status of a request without a key
  curl -s -o /dev/null --max-time 5 -w '%{http_code}' "http://${VM3_ADDRESS}:${API_PORT}$1"
}
dashboard() {
  local status
  status=$(status_of /)
  echo "$status"
  [ "$status" = 200 ]
}
asks_for_a_key() {
  local status
  status=$(status_of /v1/costs)
  echo "$status"
  [ "$status" = 401 ]
}
audited() { make_on "$VM3_ADDRESS" vm3-processor audit | tail -3; }

check "Kafka topic" partitions
check "consumer group" assignment
check "processor /health" answers /health
check "processor /ready" answers /ready
check "processor /gpu/info" answers /gpu/info
check "dashboard" dashboard
check "/v1 asks for a key" asks_for_a_key
check "documents in gpu_metrics" gpu_samples
check "documents in token_usage" usages
check "token_usage with cost_per_token" priced
check "ledger cells" cells
check "ledger identity (audit)" audited
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
