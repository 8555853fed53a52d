#!/bin/bash
# Runs one of Kafka's programs: kafka-run-class.sh CLASS ARGUMENTS...
# The first compiler tier only: these programs live for a second. (The broker overrides it.)
exec java ${KAFKA_HEAP_OPTS:--Xmx256M} ${KAFKA_JVM_PERFORMANCE_OPTS:--XX:TieredStopAtLevel=1 -XX:+UseSerialGC} \
  -Dorg.slf4j.simpleLogger.defaultLogLevel="${KAFKA_LOG_LEVEL:-warn}" ${KAFKA_OPTS-} -cp "/opt/kafka/libs/*" "$@"
