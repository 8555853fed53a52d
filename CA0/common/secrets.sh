#!/usr/bin/env bash
# Writes secrets.env once (mode 0600, never committed). An existing file is kept: new passwords would not fit the data.
#   common/secrets.sh [FILE]
set -euo pipefail
file=${1:-$(cd "$(dirname "$0")/.." && pwd)/secrets.env}
if [ -f "$file" ]; then echo "$file exists and is kept"; exit 0; fi
cluster_id=-
while [ "${cluster_id#-}" != "$cluster_id" ]; do # Kafka's own generator also avoids a leading dash: tools take it for an option
  cluster_id=$(openssl rand -base64 16 | tr '+/' '-_' | tr -d '=')
done
umask 077
cat >"$file" <<END
KAFKA_CLUSTER_ID=$cluster_id
KAFKA_CLIENT_PASSWORD=$(openssl rand -hex 24)
MONGO_ROOT_PASSWORD=$(openssl rand -hex 24)
MONGO_APP_PASSWORD=$(openssl rand -hex 24)
END
echo "written: $file"
