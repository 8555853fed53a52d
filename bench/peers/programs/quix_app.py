"""Quix Streams with its own MongoDBSink: upsert by event id.

Arguments: bootstrap, topic, group, MongoDB port, database, session (ms), records and seconds a
commit, `skip` or `raise` for what cannot be read.
"""

import sys

from quixstreams import Application
from quixstreams.sinks.community.mongodb import MongoDBSink


def survive(_error: Exception, _message: object, _logger: object) -> bool:
    """Quix Streams goes on with the next record."""
    return True


bootstrap, topic, group, port, database, session_ms, records, seconds, unreadable = sys.argv[1:]
application = Application(
    broker_address=bootstrap,
    consumer_group=group,
    auto_offset_reset="earliest",
    auto_create_topics=False,
    commit_every=int(records),
    commit_interval=float(seconds),
    consumer_extra_config={"session.timeout.ms": int(session_ms)},
    loglevel="WARNING",
    **({"on_consumer_error": survive} if unreadable == "skip" else {}),
)
events = application.dataframe(application.topic(topic, value_deserializer="json"))
events.sink(
    MongoDBSink(
        host="127.0.0.1",
        port=int(port),
        db=database,
        collection="events",
        document_matcher=lambda item: {"_id": item.value["event_id"]},
        update_method="ReplaceOne",
        upsert=True,
        directConnection=True,
        w="majority",
        journal=True,
    )
)
application.run()
