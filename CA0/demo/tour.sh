#!/usr/bin/env bash
# One request's way through the four machines, for people to watch: topic, processor, MongoDB, API, report, smoke test.
#   demo/tour.sh                reads hosts.env; runs on the operator's machine, over SSH; PAUSE_SECONDS=5 after each screen
# What stands after a prompt is what is run. `make recording` records it: demo/tour.cast, demo/tour.svg.
set -euo pipefail
ca0=$(cd "$(dirname "$0")/.." && pwd)
hosts=${HOSTS_FILE:-$ca0/hosts.env}
[ -f "$hosts" ] || { echo "$hosts is missing: cp hosts.env.example hosts.env and fill it in" >&2; exit 2; }
. "$hosts"
. "$ca0/topology.env"
user=${SSH_USER:-ubuntu}
options=${SSH_OPTIONS:--i ${SSH_KEY:-$HOME/.ssh/id_ed25519} -o StrictHostKeyChecking=accept-new}
pause=${PAUSE_SECONDS:-5}
home=/opt/gpu-tokens

on() { # machine, command
  local address=${1%%-*}_ADDRESS
  address=${address^^}
  # shellcheck disable=SC2086  # several options
  ssh $options ${3:-} "$user@${!address}" "cd $home/$1 && $2"
}
screen() { # title
  clear
  printf '\e[1m%s\e[0m\n' "$1"
}
prompt() { # who, command
  printf '\n\e[32m%s$\e[0m %s\n' "$1" "$2"
}
show() { # machine, command; with a terminal, as if logged in
  prompt "$user@$1:$home/$1" "$2"
  on "$1" "$2" -tt
}
hold() { sleep "$pause"; }

echo 'looking for a request whose minute is over: its cost is in the ledger'
newest='db.token_usage.find({ts: {$lt: new Date(Date.now() - 120000)}}).sort({ts: -1}).limit(1).toArray().map(r => r.request_id)[0] || ""'
while request=$(on vm2-mongo "./query.sh '$newest'" | tail -1 | tr -d '\r') && [ -z "$request" ]; do sleep 3; done
# shown to nobody, and revoked at the end
key=$(on vm3-processor 'make -s key NAME=tour' 2>/dev/null | grep -o 'gta_[A-Za-z0-9_-]*' | head -1)

trap 'on vm3-processor "sudo docker compose -p gpu-tokens exec -T api gpu-tokens keys revoke $(cut -d_ -f2 <<<"$key")" >/dev/null' EXIT

screen '1. vm1-kafka: the topic, and the next three events as they come'
show vm1-kafka 'make topics ARGS="--topic tokens"'
show vm1-kafka 'make records ARGS="--max-messages 3"'
hold

screen '2. vm3-processor: its log, its health, the GPUs it knows'
show vm3-processor 'make logs ARGS="--no-log-prefix --tail 4 processor"'
show vm3-processor "curl -s http://$PROCESSOR_HOST:$PROCESSOR_PORT/health; echo"
show vm3-processor "curl -s http://$PROCESSOR_HOST:$PROCESSOR_PORT/gpu/info | head -c 850; echo"
hold

screen '3. vm2-mongo: one request, stored once'
show vm2-mongo 'make count'
show vm2-mongo "./query.sh 'db.token_usage.findOne({request_id: \"$request\"})'"
hold

screen '4. The API: the same request, traced to the GPU, the minute and the price it was paid at'
prompt you "curl -s http://$VM3_ADDRESS:$API_PORT/v1/requests/$request -H \"Authorization: Bearer \$KEY\" | python3 -m json.tool | tail -37"
curl -fsS "http://$VM3_ADDRESS:$API_PORT/v1/requests/$request" -H "Authorization: Bearer $key" | python3 -m json.tool | tail -37
hold

screen '5. What tokens cost, and which money is idle'
show vm3-processor 'make report'
show vm3-processor 'make audit'
hold

screen '6. All of it, checked from outside'
prompt you 'make -C CA0 smoke'
make -s -C "$ca0" smoke
hold
