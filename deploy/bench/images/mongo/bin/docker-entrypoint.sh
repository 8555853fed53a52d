#!/bin/bash
# The vendor's contract: with an empty data folder and MONGO_INITDB_ROOT_*, a mongod on loopback makes the root user and runs
# /docker-entrypoint-initdb.d; then the real one replaces us, with access control on.
set -euo pipefail
if [ "${1-}" != mongod ]; then exec "$@"; fi
if [ -n "${MONGO_INITDB_ROOT_USERNAME-}" ]; then
  case " $* " in *" --auth "*) ;; *) set -- "$@" --auth ;; esac
  if [ ! -e /data/db/WiredTiger ]; then
    # Without access control: the root user does not exist yet, and only loopback can reach this one.
    mongod --dbpath /data/db --bind_ip 127.0.0.1 --port 27017 --fork --logpath /tmp/init.log --pidfilepath /tmp/init.pid >/dev/null
    mongosh --quiet admin --eval 'db.createUser({user: process.env.MONGO_INITDB_ROOT_USERNAME, pwd: process.env.MONGO_INITDB_ROOT_PASSWORD, roles: ["root"]})' >/dev/null
    for script in /docker-entrypoint-initdb.d/*.js; do
      if [ -f "$script" ]; then echo "running $script"; mongosh --quiet "${MONGO_INITDB_DATABASE:-test}" "$script"; fi
    done
    mongod --dbpath /data/db --shutdown --pidfilepath /tmp/init.pid >/dev/null
  fi
fi
exec "$@" --dbpath /data/db
