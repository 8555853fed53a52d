#!/usr/bin/env bash
# Writes the Secrets' files beside this script, once (mode 0600, never committed). Files that exist are kept: new passwords
# would not fit the data. Passwords and cluster id come from CA0's own generator.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
../../../CA0/common/secrets.sh "$PWD/secrets.env" >/dev/null
grep -q '^SERVER_PASSWORD=' secrets.env || printf 'SERVER_PASSWORD=%s\nMONGO_KEYFILE=%s\n' "$(openssl rand -hex 24)" "$(openssl rand -base64 48 | tr -d '\n')" >>secrets.env
. ./secrets.env
write() { # file, text: only when it differs, so that nothing looks new
  [ "$(cat "$1" 2>/dev/null)" = "$2" ] || { printf '%s\n' "$2" >"$1.new" && mv "$1.new" "$1" && echo "written: $1"; }
}
write kafka-servers.env "CLUSTER_ID=$KAFKA_CLUSTER_ID
CLIENT_PASSWORD=$KAFKA_CLIENT_PASSWORD
SERVER_PASSWORD=$SERVER_PASSWORD"
for file in kafka-client.env ../agent-secrets/kafka-client.env; do
  write $file "KAFKA_SASL_USERNAME=gpu_tokens
KAFKA_SASL_PASSWORD=$KAFKA_CLIENT_PASSWORD"
done
write mongo-servers.env "ROOT_PASSWORD=$MONGO_ROOT_PASSWORD"
write mongo-client.env "MONGO_APP_PASSWORD=$MONGO_APP_PASSWORD"
write mongo-keyfile "$MONGO_KEYFILE"
