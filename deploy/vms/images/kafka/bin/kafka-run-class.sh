#!/bin/bash
# Runs one of Kafka's programs: kafka-run-class.sh CLASS ARGUMENTS...
# The shared archive and the first compiler tier only: these programs live for a second.
exec java ${KAFKA_HEAP_OPTS:--Xmx256M} ${KAFKA_JVM_PERFORMANCE_OPTS:--XX:TieredStopAtLevel=1 -XX:+UseSerialGC} \
  -Dlog4j2.configurationFile="${KAFKA_LOG4J_FILE:-/etc/kafka/docker/tools-log4j2.yaml}" ${KAFKA_OPTS-} -cp "/opt/kafka/libs/*" "$@"
