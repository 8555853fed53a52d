"""Kafka: the log all events go through. The only place that imports confluent_kafka.

May import `wire` and the shared words.

    EventProducer   events -> topic                          producer.py
    EventSource     topic -> batches of records, commits     consumer.py
    DeadLetters     bad records -> `<topic>.dlq` and back    dead_letters.py
    create_topics   topics and the group's first offsets     topics.py
    GroupWatch      lag, age and loss, seen from outside     group_watch.py

librdkafka's errors become ours in config.py, once.
"""

from gpu_token_analytics.kafka.consumer import EventSource, RecordBatch
from gpu_token_analytics.kafka.dead_letters import DeadLetter, DeadLetters, read_dead_letters
from gpu_token_analytics.kafka.group_watch import GroupState, GroupWatch
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import PartitionState, TopicReport, create_topics, describe_group

__all__ = [
    "DeadLetter",
    "DeadLetters",
    "EventProducer",
    "EventSource",
    "GroupState",
    "GroupWatch",
    "PartitionState",
    "RecordBatch",
    "TopicReport",
    "create_topics",
    "describe_group",
    "read_dead_letters",
]
