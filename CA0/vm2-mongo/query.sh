#!/usr/bin/env bash
# Runs JavaScript in mongosh as the pipeline's own user: ./query.sh 'db.token_usage.countDocuments()'
# The password stays in the container's environment: not in an argument that `ps` shows.
set -euo pipefail
cd "$(dirname "$0")"
${DOCKER:-sudo docker} compose -p gpu-tokens exec -T mongo mongosh --quiet --nodb \
  --eval 'const name = process.env.MONGODB_DATABASE;
          db = connect(`mongodb://gpu_tokens:${process.env.MONGO_APP_PASSWORD}@127.0.0.1:27017/${name}?authSource=${name}`); 0' \
  --eval "${1:?usage: query.sh JAVASCRIPT}"
