#!/usr/bin/env bash
# Ready is a member that is primary or secondary. Asked once after each start (mongosh takes seconds of CPU), by port after.
set -euo pipefail
exec 3<>/dev/tcp/127.0.0.1/27017
# mongod writes this file new at each start; a mark that is older belongs to the one before.
[ /tmp/member -nt /data/db/mongod.lock ] && exit 0
HOME=/tmp mongosh --quiet --norc "mongodb://127.0.0.1:27017/?directConnection=true" \
  --eval 'const is = db.hello(); if (!(is.isWritablePrimary || is.secondary)) { print(`no member yet: ${is.info ?? "starting"}`); quit(1) }'
touch /tmp/member
