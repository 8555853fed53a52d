"""librdkafka's properties from our settings, and its errors in our words."""

from __future__ import annotations

import logging
from typing import Any

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import KafkaError as RdError

from gpu_token_analytics.clock import Clock, SystemClock
from gpu_token_analytics.errors import (
    DeliveryFailed,
    KafkaError,
    KafkaUnreachable,
    OffsetsLost,
    SettingsError,
    TopicMissing,
)
from gpu_token_analytics.settings import Settings

# librdkafka reports some faults only here (offset resets, fenced commits), so its lines join our
# log.
rdkafka_log = logging.getLogger("gpu_token_analytics.kafka.librdkafka")
_log = logging.getLogger(__name__)

REQUEST_TIMEOUT_SECONDS = 15.0
# of our producers; the topic's own max.message.bytes is what limits a record
MAX_MESSAGE_BYTES = 4 * 1024 * 1024

_SAY_AGAIN_SECONDS = 60.0
_MOST_REMEMBERED = 100  # errors of different kinds

# Promises of this package that KAFKA_EXTRA_CONFIG may not take away.
_FIXED = frozenset(
    {
        "enable.auto.commit",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "isolation.level",
        "enable.idempotence",
        "acks",
        "request.required.acks",
        "partitioner",
        "group.id",
        "group.instance.id",
        "enable.partition.eof",
        "transactional.id",
    }
)

_UNREACHABLE = frozenset(
    {
        RdError._TRANSPORT,
        RdError._ALL_BROKERS_DOWN,
        RdError._RESOLVE,
        RdError._TIMED_OUT,
        RdError._TIMED_OUT_QUEUE,
        RdError._AUTHENTICATION,
        RdError._SSL,
        RdError._WAIT_COORD,
        RdError.BROKER_NOT_AVAILABLE,
        RdError.REQUEST_TIMED_OUT,
        RdError.SASL_AUTHENTICATION_FAILED,
    }
)
_MISSING = frozenset(
    {
        RdError.UNKNOWN_TOPIC_OR_PART,
        RdError._UNKNOWN_TOPIC,
        RdError._UNKNOWN_PARTITION,
        RdError.TOPIC_EXCEPTION,
    }
)
_UNDELIVERED = frozenset(
    {
        RdError._MSG_TIMED_OUT,
        RdError.MSG_SIZE_TOO_LARGE,
        RdError._QUEUE_FULL,
        RdError._PURGE_QUEUE,
        RdError._PURGE_INFLIGHT,
    }
)


def base_config(settings: Settings, client: str) -> dict[str, Any]:
    """What every client needs: brokers, security, names. `client` shows in the brokers' logs and
    metrics."""
    forbidden = sorted(_FIXED & settings.kafka_extra_config.keys())
    if forbidden:
        raise SettingsError(
            f"KAFKA_EXTRA_CONFIG sets {', '.join(forbidden)}, which exactly-once storage depends "
            "on; leave it out"
        )
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap,
        "client.id": f"gpu-tokens-{client}",
        "security.protocol": settings.kafka_security_protocol,
        "allow.auto.create.topics": False,
        "reconnect.backoff.max.ms": 5_000,
        "socket.keepalive.enable": True,
        "log.connection.close": False,
    }
    optional = {
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": settings.kafka_sasl_password.get_secret_value(),
        "ssl.ca.location": settings.kafka_ssl_ca_file,
        "ssl.certificate.location": settings.kafka_ssl_certificate_file,
        "ssl.key.location": settings.kafka_ssl_key_file,
    }
    config.update({name: value for name, value in optional.items() if value})
    config.update(settings.kafka_extra_config)
    return config


def build(kind: Any, config: dict[str, Any]) -> Any:
    """A librdkafka client. Raises SettingsError when it refuses a property (a missing file, a wrong
    name)."""
    try:
        return kind(config, logger=rdkafka_log)
    except (KafkaException, ValueError) as error:
        detail = (
            error.args[0].str() if error.args and isinstance(error.args[0], RdError) else str(error)
        )
        raise SettingsError(f"Kafka settings cannot be used: {detail}") from None


def rd_error(error: KafkaException | RdError) -> RdError:
    """The librdkafka error inside an exception."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    assert isinstance(cause, RdError)
    return cause


def mapped(error: KafkaException | RdError, doing: str, bootstrap: str) -> KafkaError:
    """librdkafka's error as one of ours; `doing` completes "Kafka: cannot ..."."""
    kafka = f"Kafka at {bootstrap}"
    cause = rd_error(error)
    code = cause.code()
    text = f"cannot {doing}: {cause.str()} ({cause.name()})"
    if code in _UNREACHABLE:
        return KafkaUnreachable(
            f"{kafka} does not answer: {text}; check KAFKA_BOOTSTRAP and KAFKA_SECURITY_PROTOCOL"
        )
    if code in _MISSING:
        return TopicMissing(f"{kafka} {text}; create the topics with `gpu-tokens topics create`")
    if code == RdError._AUTO_OFFSET_RESET:
        return OffsetsLost(f"{kafka} {text}")
    if code in _UNDELIVERED:
        return DeliveryFailed(f"{kafka} {text}")
    return KafkaError(f"{kafka} {text}")


class LastError:
    """librdkafka's background errors (no broker, refused login): each is logged once a minute, the
    last one is kept for the next message.

    With two brokers away it tells of one and then of the other, some twenty times a second.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.text = ""
        self._clock = clock or SystemClock()
        self._said: dict[str, float] = {}  # without what differs each time -> when

    def __call__(self, error: RdError) -> None:
        self.text = f"{error.str()} ({error.name()})"
        kind, now = error.str().partition(" (after ")[0], self._clock.monotonic()
        if now - self._said.get(kind, -_SAY_AGAIN_SECONDS) < _SAY_AGAIN_SECONDS:
            return
        if len(self._said) >= _MOST_REMEMBERED:
            self._said.clear()
        self._said[kind] = now
        _log.warning("Kafka: %s", self.text)


def partition_count(
    client: Any, topic: str, settings: Settings, last_error: LastError | None = None
) -> int:
    """Partitions of `topic`. Raises KafkaUnreachable or TopicMissing."""
    try:
        described = client.list_topics(topic, timeout=REQUEST_TIMEOUT_SECONDS).topics[topic]
    except KafkaException as error:
        failure = mapped(error, "read metadata", settings.kafka_bootstrap)
        if last_error and last_error.text:
            raise type(failure)(f"{failure} (last said: {last_error.text})") from None
        raise failure from None
    if described.error is not None:
        raise mapped(described.error, f"find topic {topic}", settings.kafka_bootstrap)
    return len(described.partitions)


def offsets_client(settings: Settings, group: str, client: str) -> Consumer:
    """A consumer that only looks at and sets offsets; it never joins the group."""
    config = base_config(settings, client) | {
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
    }
    reader: Consumer = build(Consumer, config)
    return reader
