#!/usr/bin/env bash
# Starts one broker: its number and its name come from its pod's name (kafka-0, kafka-1, ...), the rest from the environment.
set -euo pipefail
rm -f /tmp/caught-up # kafka-ready.sh looks again after every start
export KAFKA_NODE_ID=${HOSTNAME##*-}
name=$HOSTNAME.kafka-nodes.$POD_NAMESPACE.svc
export KAFKA_ADVERTISED_LISTENERS="CLIENT://$name:9092,REPLICATION://$name:9094,LOCAL://127.0.0.1:19092"

# Formatted here and not by the image, because only this can give the clients' user its first password (SCRAM lies in the
# metadata log). A later password: make -C CA2 kafka-user.
if [ ! -f "$KAFKA_LOG_DIRS/meta.properties" ]; then
  cat >/tmp/format.properties <<END
node.id=$KAFKA_NODE_ID
process.roles=$KAFKA_PROCESS_ROLES
controller.quorum.voters=$KAFKA_CONTROLLER_QUORUM_VOTERS
controller.listener.names=CONTROLLER
listeners=CLIENT://:9092,CONTROLLER://:9093
advertised.listeners=CLIENT://$name:9092
inter.broker.listener.name=CLIENT
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$KAFKA_LOG_DIRS
END
  # What it prints holds the password's salted keys: kept out of the log.
  KAFKA_HEAP_OPTS=-Xmx128m /opt/kafka/bin/kafka-storage.sh format --config /tmp/format.properties --cluster-id "$CLUSTER_ID" \
    --add-scram "SCRAM-SHA-512=[name=$CLIENT_USERNAME,password=$CLIENT_PASSWORD]" >/tmp/format.log 2>&1 || {
    grep -v ScramCredential /tmp/format.log
    exit 1
  }
  rm /tmp/format.properties /tmp/format.log
fi
exec /etc/kafka/docker/run
