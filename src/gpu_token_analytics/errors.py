"""Every error of this package, in one tree.

    GpuTokensError                  the root: catch it to catch all of them
    |- SettingsError                a setting is missing or cannot be used
    |- InvalidRecord                one record is bad: `reason` names why; it goes to the dead
                                    letters
    |- Refused                      a question or an entry cannot be taken as it is: `code` and
                                    `field` name why
    |- KafkaError
    |  |- KafkaUnreachable          no broker answered
    |  |- TopicMissing              a topic does not exist or has the wrong shape
    |  |- OffsetsLost               records were deleted below the committed offset: data may be
       lost, stop
    |  |- OffsetsNotSeeded          the group has no offset for a partition: run `gpu-tokens topics
       create`
    |  |- ConsumerStuck             assigned, lagging, and silent for too long
    |  `- DeliveryFailed            a producer could not get a record acknowledged
    |     `- RecordTooLarge         the topic never takes a record of this size
    |- StoreError
    |  |- StoreUnreachable          no MongoDB answered; the outcome of a write is unknown, retry it
    |  |- StoreRefused              wrong credentials, not authorised, too old, read-only: retrying
       does not help
    |  `- StoreOutcomeUnknown       a write was sent and its durability is not known; retry the same
       write
    |     `- LinesReplaced          a sum was written anew while its lines were read: read it again
    |- SourceUnavailable            a GPU telemetry source cannot be read now (no driver, no tool,
                                    no file)
    |- TraceUnreadable              a trace file to replay is missing or is not a trace
    |- BackupUnusable               a backup is incomplete, damaged, or encrypted for somebody else
    |- EmbeddedServiceError         the embedded broker or mongod cannot run on this machine
    |- VerifyFailed                 a step of the end-to-end check was not reached
    `- DemoFailed                   a process of the demo ended or does not answer

Drivers' own errors are mapped to these once, where the driver is called (kafka/config.py,
mongo/client.py).
"""

from __future__ import annotations

from enum import StrEnum


class GpuTokensError(Exception):
    """Root of every error raised on purpose by this package."""


class SettingsError(GpuTokensError):
    """A setting is missing or cannot be used; the message names it, its value and the fix."""


class Reason(StrEnum):
    """Why a record is in the dead letters. A closed set: it is also a metric label."""

    EMPTY = "empty"  # null value (a tombstone) or no bytes
    TOO_LARGE = "too_large"  # more than MAX_RECORD_BYTES
    NOT_UTF8 = "not_utf8"  # UTF-16, gzip, a BOM, any byte that is not UTF-8 text
    NUL_CHARACTER = "nul_character"  # a NUL, raw or escaped
    NOT_JSON = "not_json"  # syntax, NaN, lone surrogate
    TOO_DEEP = "too_deep"  # nesting past MAX_DEPTH
    TOO_MANY_KEYS = "too_many_keys"
    DUPLICATE_KEY = "duplicate_key"  # JSON leaves its meaning open, so it has none here
    UNKNOWN_SCHEMA = "unknown_schema"
    WRONG_TYPE = "wrong_type"  # a field is missing or has another type than the contract says
    OUT_OF_RANGE = "out_of_range"  # a number, length or time outside the contract
    INCONSISTENT = "inconsistent"  # fields contradict each other (cached > prompt, no GPU named)
    FUTURE_TS = "future_ts"  # ahead of the broker's clock by more than MAX_AHEAD_SECONDS
    ID_CONFLICT = "id_conflict"  # the same event_id is stored with another payload
    # MongoDB will never accept this document (an operator's validator)
    REFUSED_BY_STORE = "refused_by_store"


class InvalidRecord(GpuTokensError):
    """One record cannot be accepted. `reason` is its class, `field` the JSON field where known.

    The message names field, value and rule, and is safe to log: values are cut to 80 characters.
    """

    def __init__(self, reason: Reason, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field


class Refused(GpuTokensError):
    """A question, or an entry for a book, cannot be taken as it is; the message names field, value
    and fix.

    `code` is a stable word for programs (api/errors.py gives each its HTTP status), `field` the
    parameter or field at fault where it is one, `nearest` the (from, to, bucket) that would be
    accepted where a range was too long.
    """

    def __init__(
        self,
        code: str,
        message: str,
        field: str | None = None,
        nearest: tuple[str, str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.nearest = nearest


class KafkaError(GpuTokensError):
    """Root of the Kafka side."""


class KafkaUnreachable(KafkaError):
    """No broker answered."""


class TopicMissing(KafkaError):
    """A topic does not exist or has the wrong number of partitions."""


class OffsetsLost(KafkaError):
    """Records were deleted below the committed offset: never skipped silently, the process
    stops."""


class OffsetsNotSeeded(KafkaError):
    """The consumer group has no committed offset for a partition; `gpu-tokens topics create` seeds
    them."""


class ConsumerStuck(KafkaError):
    """A partition is assigned and lags but has yielded nothing for too long."""


class DeliveryFailed(KafkaError):
    """A record was not acknowledged by Kafka within its time."""


class RecordTooLarge(DeliveryFailed):
    """A record, or the records that went to Kafka together, are over the topic's limit: the same
    again fails again."""


class StoreError(GpuTokensError):
    """Root of the MongoDB side."""


class StoreUnreachable(StoreError):
    """No MongoDB answered; a write in flight has an unknown outcome and must be retried."""


class StoreRefused(StoreError):
    """MongoDB answered no (credentials, rights, version, read-only): an operator has to act."""


class StoreOutcomeUnknown(StoreError):
    """A write was sent but is not known to be durable; the same write must be repeated."""


class LinesReplaced(StoreOutcomeUnknown):
    """A sum was written anew while its lines were read; what was read is of two states. Read it
    again."""


class OutOfMemory(GpuTokensError):
    """This process gets no more memory; what it cannot do meanwhile is nobody else's fault."""


class SourceUnavailable(GpuTokensError):
    """A GPU telemetry source cannot be read now; the agent reports it and tries again."""


class TraceUnreadable(GpuTokensError):
    """A trace file is missing or is not a trace; the message names it and the columns it needs."""


class BackupUnusable(GpuTokensError):
    """A backup cannot be restored: incomplete, damaged, or encrypted for somebody else; the message
    says which."""


class EmbeddedServiceError(GpuTokensError):
    """An embedded service cannot run here; the message says what to install or to set."""


class VerifyFailed(GpuTokensError):
    """The end-to-end check did not reach a step; the message names it and where to look."""


class DemoFailed(GpuTokensError):
    """A process of the demo ended or does not answer; the message shows the end of its log."""
