"""Services on this machine for the one-command demo, tests and benches: a broker, a mongod, a real
Kafka.

May import the shared words alone.

None of this is needed where KAFKA_BOOTSTRAP and MONGODB_URI name real ones.
"""
