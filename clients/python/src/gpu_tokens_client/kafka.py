"""Straight to the topic, for those whose services reach Kafka: `pip install
gpu-tokens-client[kafka]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from gpu_tokens_client.transport import Delivered, Outcome, Refused, Unavailable

_ACKNOWLEDGE_SECONDS = 30.0
_REFUSED = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._INVALID_ARG}


class _Keyed(msgspec.Struct):
    host: str


class KafkaTransport:
    """Produces to `topic`, keyed by host, as the server's own producers do: one host's events stay
    in order."""

    def __init__(
        self,
        bootstrap: str,
        topic: str = "tokens",
        config: Mapping[str, str | int | bool] | None = None,
    ) -> None:
        """Produce to the brokers at `bootstrap` (`host:port,...`). config: further settings of
        librdkafka, such as SASL's."""
        self._topic = topic
        self._config: dict[str, str | int | bool] = {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            # the Java clients' one: every producer puts a host into the same partition
            "partitioner": "murmur2_random",
            "message.timeout.ms": int(_ACKNOWLEDGE_SECONDS * 1000),
            "linger.ms": 5,
            **(config or {}),
        }
        self._producer: Producer | None = None
        self._decoder = msgspec.json.Decoder(_Keyed)

    def send(self, records: Sequence[bytes]) -> Outcome:
        """See `Transport.send`. All or nothing is acknowledged: a part that was stored already
        counts once by its ids."""
        producer = self._producer
        if producer is None:
            producer = self._producer = Producer(self._config)
        errors: list[KafkaError] = []
        acknowledged = 0

        def delivered(error: KafkaError | None, _: Message) -> None:
            nonlocal acknowledged
            if error is None:
                acknowledged += 1
            else:
                errors.append(error)

        try:
            for record in records:
                key = self._decoder.decode(record).host
                producer.produce(self._topic, record, key, on_delivery=delivered)
            producer.flush(_ACKNOWLEDGE_SECONDS)
        except KafkaException as error:
            errors.append(error.args[0])
        except BufferError:
            return Unavailable("the producer's queue is full")
        if not errors and acknowledged == len(records):
            return Delivered()
        producer.purge()
        producer.flush(1.0)
        if errors and all(error.code() in _REFUSED for error in errors):
            return Refused(errors[0].str())
        return Unavailable(errors[0].str() if errors else "Kafka did not acknowledge in time")

    def close(self) -> None:
        """Give up the producer."""
        self._producer = None

    def after_fork(self) -> None:
        """See `Transport.after_fork`: a producer's threads do not come along."""
        self._producer = None
