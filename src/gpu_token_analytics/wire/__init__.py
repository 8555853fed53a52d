"""The contracts: the events as they travel, how a record is read strictly, and the identity an
event has wherever it is stored.

May import msgspec and the shared words (errors, foreign_text); knows neither Kafka nor MongoDB.
"""
