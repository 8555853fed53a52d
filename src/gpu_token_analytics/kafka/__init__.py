"""Kafka: the log all events go through. The only place that imports confluent_kafka.

May import `wire` and the shared words.

    RecordBatch     what was read; DeadLetter: what is said of what is no event      records.py
    EventProducer   events -> topic                          producer.py
    EventSource     topic -> batches of records, commits     consumer.py
    DeadLetters     bad records -> `<topic>.dlq` and back    dead_letters.py
    LedgerTopic     computed cells -> the ledger's topic     ledger_topic.py
    create_topics   topics and the group's first offsets     topics.py
    GroupWatch      lag, age and loss, seen from outside     group_watch.py

librdkafka's errors become ours in config.py, once.
"""
