"""A Kafka broker inside this process: librdkafka's own mock cluster, out of the confluent-kafka
wheel.

It speaks the real protocol over TCP on loopback, so any process of this machine can be its client:
idempotent producers, consumer groups, committed offsets, topics with any number of partitions. It
is there so that `gpu-tokens demo` needs neither Docker nor Java. What it is not (librdkafka
src/rdkafka_mock.c, checked by tests/integration/test_embedded_broker.py):

- Durable: everything, committed offsets too, is in memory and ends with this process.
- Large: past MAX_PARTITION_BYTES or MAX_PARTITION_BATCHES it drops a partition's OLDEST batches at
  once, consumed or not. A producer must stay less than that ahead of its consumer;
  SAFE_UNREAD_BYTES is the bound to wait at.
- Administered: no CreateTopics, no configs, no retention. Topics are the ones given here; any other
  name a producer mentions springs up with 4 partitions.
- Secure: no TLS, no SASL, no ACLs; loopback only.
- Quick to rebalance: when a member joins or leaves a running group, the others wait for
  session.timeout.ms less a second (real Kafka waits for the members it knows only). A second
  processor, or one started again, needs a small session.timeout.ms here; the first member of a
  fresh group waits `rebalance_delay_ms` only.
- Faithful in corners: ListOffsets by timestamp is not implemented, one batch per fetch, aborted
  transactions are delivered.

The functions are exported, but librdkafka calls them experimental: their signatures are pinned by
the locked wheel and by the tests. confluent_kafka exposes none of them, hence ctypes; the Python
package itself is not imported here.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from gpu_token_analytics.errors import EmbeddedServiceError

# of record batches as sent, after compression; hard-wired in librdkafka
MAX_PARTITION_BYTES = 5 * 1024 * 1024
MAX_PARTITION_BATCHES = 100_000  # batches, so never less than this many records
# per partition: half, as a producer has batches in flight it cannot call back
SAFE_UNREAD_BYTES = MAX_PARTITION_BYTES // 2

_FIX = "install the confluent-kafka wheel for this platform, or set KAFKA_BOOTSTRAP to a real Kafka"
_RD_KAFKA_PRODUCER = 0
_ERROR_BYTES = 512


class EmbeddedBroker:
    """A mock cluster with `topics` (name -> number of partitions); `bootstrap` is its address.

    Use as a context manager or call close(). Clients in this process must be closed before the
    broker is. `rebalance_delay_ms` is how long a new consumer group waits for more members (real
    Kafka: 3000).
    """

    def __init__(
        self, topics: Mapping[str, int], broker_count: int = 1, rebalance_delay_ms: int = 100
    ) -> None:
        self._library = _load(bundled_library())
        self._handle = self._cluster = None
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        # The handle only carries the cluster's threads and logs; it never connects anywhere, and
        # would warn so at each start were not only errors (3) logged. rd_kafka_new owns the
        # configuration from here on.
        config = self._library.rd_kafka_conf_new()
        self._library.rd_kafka_conf_set(config, b"log_level", b"3", error, _ERROR_BYTES)
        self._handle = self._library.rd_kafka_new(_RD_KAFKA_PRODUCER, config, error, _ERROR_BYTES)
        if not self._handle:
            raise EmbeddedServiceError(
                f"librdkafka did not start: {error.value.decode(errors='replace')}"
            )
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._handle, broker_count)
        if not self._cluster:
            self.close()
            raise EmbeddedServiceError(
                f"the embedded broker could not listen on loopback with {broker_count} broker(s); "
                "set KAFKA_BOOTSTRAP instead"
            )
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(
            self._cluster, rebalance_delay_ms
        )
        for name, partitions in topics.items():
            # The cluster itself takes 0 partitions for an answer, and its clients then wait for
            # ever.
            if (
                partitions < 1
                or self._library.rd_kafka_mock_topic_create(
                    self._cluster, name.encode(), partitions, 1
                )
                != 0
            ):
                self.close()
                raise EmbeddedServiceError(
                    f"topic {name!r} with {partitions} partitions was refused by the embedded "
                    "broker"
                )
        self.bootstrap: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def close(self) -> None:
        """Stop listening and free everything; records and committed offsets are gone. Safe to call
        twice."""
        cluster, self._cluster = self._cluster, None
        handle, self._handle = self._handle, None
        if cluster:
            self._library.rd_kafka_mock_cluster_destroy(cluster)
        if handle:
            self._library.rd_kafka_destroy(handle)

    def inject_errors(self, api_key: int, codes: Sequence[int]) -> None:
        """Answer the next `len(codes)` requests of `api_key` (Kafka's protocol number) with these
        error codes.

        -195 (librdkafka's _TRANSPORT) drops the connection instead.
        """
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, api_key, len(codes), (ctypes.c_int * len(codes))(*codes)
        )

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        """Delete the records below `before_offset`, as retention would; a position below it is then
        out of range."""
        code = self._library.rd_kafka_mock_partition_delete_records(
            self._cluster, topic.encode(), partition, before_offset
        )
        if code != 0:
            raise EmbeddedServiceError(
                f"{topic}/{partition} has no records to delete below {before_offset} (error {code})"
            )

    def stop_broker(self, number: int) -> None:
        """One of several brokers (1 is the first) is away: its partitions can be neither written
        nor read. Nothing is lost."""
        self._library.rd_kafka_mock_broker_set_down(self._cluster, number)

    def start_broker(self, number: int) -> None:
        """It is there again."""
        self._library.rd_kafka_mock_broker_set_up(self._cluster, number)

    def set_coordinator(self, group: str, number: int) -> None:
        """Which broker keeps a group; its members wait for that one alone."""
        code = self._library.rd_kafka_mock_coordinator_set(
            self._cluster, b"group", group.encode(), number
        )
        if code != 0:
            raise EmbeddedServiceError(
                f"group {group!r} cannot have broker {number} as its coordinator (error {code})"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def bundled_library() -> Path:
    """The librdkafka that the confluent-kafka wheel brings. Raises EmbeddedServiceError where there
    is none.

    The wheel's own file list says where it is: `confluent_kafka.libs/` (Linux),
    `confluent_kafka/.dylibs/` (macOS).
    """
    try:
        files = importlib.metadata.files("confluent-kafka") or []
    except importlib.metadata.PackageNotFoundError:
        raise EmbeddedServiceError(f"confluent-kafka is not installed; {_FIX}") from None
    for file in files:
        if file.name.startswith("librdkafka") and (
            ".so" in file.name or file.name.endswith(".dylib")
        ):
            path = Path(str(file.locate()))
            if path.is_file():
                return path.resolve()
    raise EmbeddedServiceError(
        f"the installed confluent-kafka brings no librdkafka of its own (a source build?); {_FIX}"
    )


def _load(path: Path) -> ctypes.CDLL:
    """The library with the signatures of the calls used here (src/rdkafka.h,
    src/rdkafka_mock.h)."""
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (number, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_push_request_errors_array": (
            None,
            [pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)],
        ),
        "rd_kafka_mock_broker_set_down": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_up": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_coordinator_set": (number, [pointer, text, text, ctypes.c_int32]),
        "rd_kafka_mock_partition_delete_records": (
            number,
            [pointer, text, ctypes.c_int32, ctypes.c_int64],
        ),
    }
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise EmbeddedServiceError(
            f"{path} cannot serve as the embedded broker ({error}); {_FIX}"
        ) from None
    return library
