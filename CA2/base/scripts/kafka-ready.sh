#!/usr/bin/env bash
# Ready is a broker that answers and has caught up: while it copies what it missed, the next one must not be restarted.
# The second is asked once after each start, because Kafka's tools are programs of several CPU seconds.
set -euo pipefail
exec 3<>/dev/tcp/127.0.0.1/19092
[ -e /tmp/caught-up ] && exit 0
behind=$(KAFKA_HEAP_OPTS=-Xmx128m /opt/kafka/bin/kafka-topics.sh --bootstrap-server 127.0.0.1:19092 --describe --under-replicated-partitions)
# Only partitions that this broker itself lags behind in: a broker that is away must not make the others unready.
mine=$(awk -F '\t' -v id="${HOSTNAME##*-}" '
  { replicas = isr = ""
    for (i = 1; i <= NF; i++) {
      if ($i ~ /^Replicas: /) replicas = "," substr($i, 11) ","
      if ($i ~ /^Isr: /) isr = "," substr($i, 6) ","
    }
    if (index(replicas, "," id ",") && !index(isr, "," id ",")) n++
  }
  END { print n + 0 }' <<<"$behind")
if [ "$mine" != 0 ]; then echo "not yet caught up in $mine partitions"; exit 1; fi
touch /tmp/caught-up
