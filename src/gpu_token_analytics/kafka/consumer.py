"""Batches of records out of the topic, and commits of exactly what was stored.

- Offsets are committed by name, only for partitions still owned, and only within the assignment
  they were read in. A broker fences a member by generation, not by ownership: a member that lost a
  partition could set its offset back.
- `auto.offset.reset=error`: records deleted below the committed offset, or a group without offsets,
  stop the process.
- A partition that lags and yields nothing for STUCK_AFTER_SECONDS is an error (librdkafka has
  stalled like that).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka import KafkaError as RdError

from gpu_token_analytics.clock import Clock, SystemClock
from gpu_token_analytics.errors import (
    ConsumerStuck,
    GpuTokensError,
    KafkaError,
    OffsetsLost,
    OffsetsNotSeeded,
)
from gpu_token_analytics.kafka.config import (
    REQUEST_TIMEOUT_SECONDS,
    LastError,
    base_config,
    build,
    mapped,
    partition_count,
    rd_error,
)
from gpu_token_analytics.kafka.records import NO_BROKER_TIME, Position, RecordBatch
from gpu_token_analytics.settings import Settings

_log = logging.getLogger(__name__)

MAX_BATCH_BYTES = 8 * 1024 * 1024
_SLICE_RECORDS = 500

CONSUMER_CONFIG: dict[str, object] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "check.crcs": True,
    # Range keeps the partitions of all topics side by side and, unlike cooperative-sticky, spreads
    # evenly one by one.
    "partition.assignment.strategy": "range",
    "session.timeout.ms": 15_000,
    "max.poll.interval.ms": 120_000,
    # default 60,000: a question to a broker that has gone would hold up the loop for so long
    "socket.timeout.ms": 10_000,
    "enable.partition.eof": True,  # tells an idle partition from a stuck one
    # a fetch that waits at the end of one partition holds up the others of its broker
    "fetch.wait.max.ms": 20,
    # default 1000: a full queue would stop fetching for a second at a time
    "fetch.queue.backoff.ms": 5,
    "fetch.message.max.bytes": 1_048_576,
    "queued.max.messages.kbytes": 16_384,  # bounds the memory of records fetched ahead
    # of each partition: twelve with a backlog would hold 110 MB of 20,000
    "queued.min.messages": 8_000,
}

# The record comes again after these; nothing is lost by going on.
_TRANSIENT = frozenset(
    {
        RdError._TRANSPORT,
        RdError._ALL_BROKERS_DOWN,
        RdError._TIMED_OUT,
        RdError._RESOLVE,
        RdError._MAX_POLL_EXCEEDED,
        RdError.COORDINATOR_LOAD_IN_PROGRESS,
        RdError.COORDINATOR_NOT_AVAILABLE,
        RdError.NOT_COORDINATOR,
        RdError.REBALANCE_IN_PROGRESS,
        RdError.LEADER_NOT_AVAILABLE,
    }
)
# A commit that came too late: the partition moved on, its records are read again and found to be
# stored.
_COMMIT_FENCED = frozenset(
    {
        RdError.ILLEGAL_GENERATION,
        RdError.UNKNOWN_MEMBER_ID,
        RdError.REBALANCE_IN_PROGRESS,
        RdError.FENCED_INSTANCE_ID,
        RdError.STALE_MEMBER_EPOCH,
        RdError._NO_OFFSET,
        RdError._STATE,
        RdError._ASSIGNMENT_LOST,
    }
)
_COMMIT_RETRIED = frozenset(
    {
        RdError.COORDINATOR_LOAD_IN_PROGRESS,
        RdError.COORDINATOR_NOT_AVAILABLE,
        RdError.NOT_COORDINATOR,
        RdError.REQUEST_TIMED_OUT,
        RdError._WAIT_COORD,
        RdError._TIMED_OUT,
        RdError._TRANSPORT,
    }
)
_COMMIT_TRIES = 3
_COMMIT_SECONDS = 10.0  # for an answer, before the loop goes on without it
_COMMIT_AGAIN_SECONDS = 1.0
_COMMIT_LOST_SECONDS = 60.0  # an answer that takes longer is not waited for any more
_ANSWER_LOOK_SECONDS = 0.001


@dataclass(slots=True)
class _Partition:
    epoch: int
    position: int
    committed: int
    end: int = -1  # offset of the last "end of partition"
    last_seen: float = 0.0  # monotonic; last record or end
    asked_end: int = 0  # the broker's answer when the partition was silent for long


@dataclass(slots=True)
class _Commit:
    """One commit on its way."""

    sent_at: float  # monotonic
    is_answered: bool = False
    error: RdError | None = None


class EventSource:
    """The processor's consumer. All methods belong to one thread, but for `owned` and `lag`, which
    any may read.

    `on_revoke` runs before partitions are given away: finish what is in flight and commit it.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Raises SettingsError; contacts nobody yet."""
        self.on_revoke: Callable[[], None] = lambda: None
        self._settings = settings
        self._clock = clock or SystemClock()
        self._topic = settings.kafka_topic
        self._owned: dict[int, _Partition] = {}
        self._epoch = 0
        self._paused = False
        self._failure: GpuTokensError | None = None
        self._held: list[Message] = []
        self._left: dict[int, Position] = {}  # to commit; empty when all is acknowledged
        self._left_due = 0.0  # monotonic
        self._committing: _Commit | None = None
        self._is_revoking = False
        self._last_error = LastError()
        self._consumer: Consumer = build(
            Consumer,
            base_config(settings, "processor")
            | CONSUMER_CONFIG
            | {
                name: value
                for name, value in settings.kafka_extra_config.items()
                if name in CONSUMER_CONFIG
            }
            | {
                "group.id": settings.kafka_group,
                "error_cb": self._last_error,
                "on_commit": self._commit_answered,
            },
        )

    @property
    def owned(self) -> frozenset[int]:
        """Partitions assigned to this process now."""
        return frozenset(self._owned)

    def start(self) -> None:
        """Join the group. Raises KafkaUnreachable or TopicMissing."""
        partition_count(self._consumer, self._topic, self._settings, self._last_error)
        self._consumer.subscribe(
            [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )

    def poll(self, max_records: int, wait_seconds: float) -> RecordBatch:
        """The next records, possibly none. Also runs the group's business (assignments come and go
        in here).

        Raises OffsetsLost, OffsetsNotSeeded, ConsumerStuck, TopicMissing or KafkaError: reasons to
        stop the process.
        """
        self._commit_left()
        messages = self._consume(max_records, wait_seconds)
        if any(message.error() is not None for message in messages):
            messages = [message for message in messages if not self._is_notice(message)]
        partitions = [message.partition() for message in messages]
        if not self._owned.keys() >= set(partitions):
            messages = [message for message in messages if message.partition() in self._owned]
            partitions = [message.partition() for message in messages]
        batch = self._columns(messages, partitions)  # type: ignore[arg-type]  # a consumed record has a partition
        self._watch(batch.positions)
        return batch

    def _consume(self, max_records: int, wait_seconds: float) -> list[Message]:
        """Up to `max_records`, or about MAX_BATCH_BYTES: records far too large must not fill the
        memory before they are refused. Takes what is there, waits only for the next one: a wait for
        many would let them pile up meanwhile."""
        messages, self._held = self._held[:max_records], self._held[max_records:]
        size, deadline = sum(map(len, messages)), self._clock.monotonic() + wait_seconds
        while len(messages) < max_records and size < MAX_BATCH_BYTES:
            try:
                more = self._consumer.consume(min(_SLICE_RECORDS, max_records - len(messages)), 0)
                left = deadline - self._clock.monotonic()
                if not more and left > 0:
                    more = self._consumer.consume(1, left)
            except KafkaException as error:
                raise mapped(error, f"read {self._topic}", self._settings.kafka_bootstrap) from None
            if self._failure is not None:
                raise self._failure
            if not more:
                break
            messages += more
            size += sum(map(len, more))
        return messages

    def _columns(self, messages: list[Message], partitions: list[int]) -> RecordBatch:
        offsets: list[int] = [message.offset() for message in messages]  # type: ignore[misc]  # a consumed record has one
        # A dict keeps the last value of each key: the highest offset, as a partition's records come
        # in order.
        positions = {
            partition: Position(offset + 1, self._owned[partition].epoch)
            for partition, offset in dict(zip(partitions, offsets, strict=True)).items()
        }
        return RecordBatch(
            topic=self._topic,
            values=[message.value() for message in messages],
            partitions=partitions,
            offsets=offsets,
            broker_ms=[
                at if kind == TIMESTAMP_LOG_APPEND_TIME else NO_BROKER_TIME
                for kind, at in [message.timestamp() for message in messages]
            ],
            positions=positions,
            messages=messages,
        )

    def commit(self, positions: Mapping[int, Position]) -> bool:
        """Commit, and wait a while for the answer. False: (partly) not done now, which is safe:
        it is tried again, and what is not committed is read again.

        librdkafka waits for an answer without limit, and answers no other call meanwhile: a commit
        that is under way as all brokers die would hold up the loop until they are back. So it is
        sent, and its answer comes with the records, which are held for the next poll.

        Partitions that were given away since are left out. Raises KafkaError on a fault that does
        not pass.
        """
        self._left |= {
            partition: position
            for partition, position in positions.items()
            if (owned := self._owned.get(partition)) and owned.epoch == position.epoch
        }
        failures = 0
        while failures < _COMMIT_TRIES:
            if self._committing is None or self._is_revoking:
                offsets = self._uncommitted()
                if not offsets:
                    self._left.clear()
                    return True
                self._committing = self._sent(offsets)
            commit = self._committing
            is_answered = self._is_answered(commit)
            if commit is not self._committing:
                continue  # partitions were given away meanwhile, and committed for that
            if not is_answered:
                break
            error, self._committing = commit.error, None
            if error is None:
                continue
            if error.code() in _COMMIT_FENCED:
                _log.info("commit refused, the partitions moved on: %s", error.str())
                self._left.clear()
                return False
            if error.fatal() or error.code() not in _COMMIT_RETRIED:
                raise mapped(error, "commit offsets", self._settings.kafka_bootstrap)
            failures += 1
        _log.warning("commit not acknowledged; going on, it is tried again")
        self._left_due = self._clock.monotonic() + _COMMIT_AGAIN_SECONDS
        return False

    def _sent(self, offsets: list[TopicPartition]) -> _Commit:
        """A commit on its way; while partitions are given away, one that is answered: nothing can
        be read in there."""
        commit = _Commit(self._clock.monotonic())
        try:
            if self._is_revoking:
                answers = self._consumer.commit(offsets=offsets, asynchronous=False)
                commit.is_answered, commit.error = True, self._noted(answers or offsets)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            commit.is_answered, commit.error = True, rd_error(error)
        return commit

    def _is_answered(self, commit: _Commit) -> bool:
        """Wait for the answer. Records that come meanwhile are held; when they are as many as one
        batch may have, no more are fetched."""
        deadline = self._clock.monotonic() + _COMMIT_SECONDS
        pauses = False
        while (
            not commit.is_answered
            and commit is self._committing
            and self._clock.monotonic() < deadline
        ):
            if not self._paused and self._holds_a_batch():
                pauses = True
                self._pause()
            try:
                more = self._consumer.consume(_SLICE_RECORDS, _ANSWER_LOOK_SECONDS)
            except KafkaException as error:
                raise mapped(error, f"read {self._topic}", self._settings.kafka_bootstrap) from None
            # after the call: partitions may be given away in it, and what is held of them dropped
            self._held += more
        if pauses:
            self.resume()
        return commit.is_answered

    def _holds_a_batch(self) -> bool:
        most = self._settings.batch_max_records
        return len(self._held) >= most or sum(map(len, self._held)) >= MAX_BATCH_BYTES

    def _commit_answered(self, error: RdError | None, answers: list[TopicPartition]) -> None:
        """librdkafka calls this inside of consume()."""
        failed = self._noted(answers) if error is None else error
        if self._committing is not None and not self._committing.is_answered:
            self._committing.error, self._committing.is_answered = failed, True

    def _noted(self, answers: list[TopicPartition]) -> RdError | None:
        """Remember what is committed; returns what was refused."""
        failed = None
        for answer in answers:
            owned = self._owned.get(answer.partition)
            if answer.error is not None:
                failed = answer.error
            elif owned is not None:
                owned.committed = max(owned.committed, answer.offset)
        return failed

    def _uncommitted(self) -> list[TopicPartition]:
        return [
            TopicPartition(self._topic, partition, position.offset)
            for partition, position in self._left.items()
            if (owned := self._owned.get(partition))
            and owned.epoch == position.epoch
            and position.offset > owned.committed
        ]

    def _commit_left(self) -> None:
        """Try again what was not acknowledged, unless the broker still owes its answer."""
        now = self._clock.monotonic()
        if not self._left or now < self._left_due:
            return
        commit = self._committing
        if commit is not None and now > commit.sent_at + _COMMIT_LOST_SECONDS:
            commit = self._committing = None
        if commit is None or commit.is_answered:
            self.commit({})

    def keep_alive(self) -> None:
        """While the store is down: no records, but stay a member of the group. `poll` ends the
        pause."""
        self._pause()
        message = self._consumer.poll(0.1)
        if message is not None:
            self._held.append(message)  # slipped through before the pause took effect
        if self._failure is not None:
            raise self._failure

    def resume(self) -> None:
        """Fetch again after keep_alive()."""
        if self._paused:
            self._paused = False
            self._consumer.resume(self._consumer.assignment())
            self._seen_all()

    def lag(self) -> dict[int, int]:
        """Records not yet read, by owned partition, as of the last answer of the broker."""
        behind = {}
        for number, partition in list(self._owned.items()):
            try:
                marks = self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, number), cached=True
                )
            except (KafkaException, RuntimeError):  # not fetched yet, or closed meanwhile
                continue
            if marks[1] >= 0:
                behind[number] = max(0, marks[1] - max(partition.position, partition.end))
        return behind

    def close(self) -> None:
        """Leave the group, so that others take over at once. `on_revoke` runs first."""
        self._consumer.close()

    # The group's callbacks. librdkafka runs them inside poll(); an exception must not pass through
    # its C code.

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._epoch += 1
        try:
            committed = consumer.committed(partitions, timeout=REQUEST_TIMEOUT_SECONDS)
        except KafkaException as error:
            self._fail(mapped(error, "read committed offsets", self._settings.kafka_bootstrap))
            return
        unseeded = sorted(offset.partition for offset in committed if offset.offset < 0)
        if unseeded:
            self._fail(
                OffsetsNotSeeded(
                    f"group {self._settings.kafka_group} has no offset for {self._topic} "
                    f"partitions {unseeded}; "
                    "run `gpu-tokens topics create` once (with the processors stopped)"
                )
            )
            return
        now = self._clock.monotonic()
        for offset in committed:
            self._owned[offset.partition] = _Partition(
                self._epoch, offset.offset, offset.offset, last_seen=now
            )
        consumer.assign(committed)
        if self._paused:
            consumer.pause(committed)
        else:
            # one that was lost while paused is still paused inside librdkafka
            consumer.resume(committed)
        _log.info(
            "assigned %d partitions of %s: %s", len(committed), self._topic, sorted(self._owned)
        )

    def _revoked(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._is_revoking = True
        try:
            self.on_revoke()
        except GpuTokensError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  # it would be lost inside librdkafka; poll() raises it
            self._fail(KafkaError(f"giving partitions away failed: {error!r}"))
        finally:
            self._is_revoking = False
        self._drop(partitions, "revoked")

    def _lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._drop(
            partitions,
            "lost (this process was too slow or cut off); their records are read again elsewhere",
        )

    def _drop(self, partitions: list[TopicPartition], how: str) -> None:
        gone = {partition.partition for partition in partitions}
        for number in gone:
            self._owned.pop(number, None)
        # else they would come again, behind what is read from the committed offset
        self._held = [message for message in self._held if message.partition() not in gone]
        _log.info("partitions %s %s", sorted(gone), how)

    def _fail(self, failure: GpuTokensError) -> None:
        if self._failure is None:
            self._failure = failure

    def _is_notice(self, message: Message) -> bool:
        """True for what librdkafka says in place of a record; raises when it means that going on
        would lose records."""
        error = message.error()
        if error is None:
            return False
        partition = message.partition()
        if error.code() == RdError._PARTITION_EOF:
            owned = self._owned.get(partition) if partition is not None else None
            if owned is not None:
                owned.end = message.offset() or 0
                owned.last_seen = self._clock.monotonic()
            return True
        if error.code() == RdError._AUTO_OFFSET_RESET:
            raise OffsetsLost(
                f"{self._topic}/{partition}: the next record to read is no longer in Kafka "
                f"({error.str()}). Records were "
                "deleted before they were stored, or the log was replaced. Nothing is skipped "
                "silently: check "
                "`gpu-tokens topics show`, then move the group's offset on purpose"
            )
        if error.fatal() or error.code() not in _TRANSIENT:
            raise mapped(error, f"read {self._topic}/{partition}", self._settings.kafka_bootstrap)
        _log.warning("Kafka: %s (%s)", error.str(), error.name())
        return True

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._consumer.pause(self._consumer.assignment())

    def _seen_all(self) -> None:
        now = self._clock.monotonic()
        for partition in self._owned.values():
            partition.last_seen = now

    def _watch(self, positions: Mapping[int, Position]) -> None:
        """Note progress; raise ConsumerStuck for a partition that has records it does not give."""
        now = self._clock.monotonic()
        for number, position in positions.items():
            self._owned[number].position = position.offset
            self._owned[number].last_seen = now
        limit = self._settings.stuck_after_seconds
        for number, partition in self._owned.items():
            if now - partition.last_seen <= limit:
                continue
            try:  # ask the broker: the cached end is as stuck as the partition
                _, high = self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, number), timeout=5, cached=False
                )
            except KafkaException:
                # The broker is away, which is not the partition's fault. The next ones are asked in
                # the next round: twelve waits in one would look like a loop that stands still.
                partition.asked_end, partition.last_seen = 0, now
                return
            reached = max(partition.position, partition.end)
            # Records that were there when it was asked the last time: others may have come in this
            # very moment, after a quiet hour, and a partition must not be stalled for that.
            if high and partition.asked_end > reached:
                raise ConsumerStuck(
                    f"{self._topic}/{number} has {high - reached} records to read and gave "
                    f"none for {limit} s; restart this process (STUCK_AFTER_SECONDS={limit})"
                )
            partition.asked_end = high
            partition.last_seen = now
