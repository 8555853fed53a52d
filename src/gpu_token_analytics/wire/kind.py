"""What a kind of event is: its struct, the rules between its fields, and what is stored of it.

Each kind is a file of this room (usage.py, sample.py) and a line of events.KINDS; whoever reads,
stores, remembers or audits events goes through that table. A rule is said once: what breaks it is
asked of one record's numbers and of columns of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.wire.fields import EventId, Id, Timestamp
from gpu_token_analytics.wire.identity import raw_id
from gpu_token_analytics.wire.names import canonical_gpu, canonical_host
from gpu_token_analytics.wire.strict_json import shorten
from gpu_token_analytics.wire.values import NOISE_MS, Forms, is_noise


class Event(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, gc=False):
    """What every event says: its id, its time, and the host it is about, which is the key of its
    record in Kafka."""

    event_id: EventId
    ts: Timestamp
    host: Id


E_contra = TypeVar("E_contra", bound=Event, contravariant=True)
E = TypeVar("E", bound=Event)


class Rule(Generic[E_contra]):
    """A rule between fields of an event.

    `broken` is asked of one event, or of many at once: `number` gives a field's value, or the array
    of its values, where nan is unknown; `of_labels` is the rule's own label_value(), or the array
    of them. So it may only use what arrays have, too.
    """

    def label_value(self, event: E_contra) -> float:  # noqa: ARG002  # most need nothing
        """What it needs to know of the fields that few different values have; events with the same
        ones are asked once."""
        return 0.0

    def broken(self, number: Callable[[str], Any], of_labels: Any) -> Any:
        """Whether an event breaks it, or which of many do."""
        raise NotImplementedError

    def error(self, event: E_contra) -> InvalidRecord:
        """What is said of an event that broke it: field, value, and what to do."""
        raise NotImplementedError

    def check(self, event: E_contra) -> None:
        """Raises InvalidRecord where an event breaks it."""

        def number(name: str) -> float:
            value = getattr(event, name)
            return nan if value is None else value

        if self.broken(number, self.label_value(event)):
            raise self.error(event)


@dataclass(frozen=True)
class PartOf(Rule[Event]):
    """A number is a part of another one: never more than it.

    measured: both are measured, so that what is more by no more than a float loses on its way is
    all of the whole. known: nothing can be a part of what is not known.
    """

    part: str
    whole: str
    measured: bool = False
    known: bool = False

    def broken(self, number: Callable[[str], Any], of_labels: Any) -> Any:  # noqa: ARG002
        """As in Rule."""
        part, whole = number(self.part), number(self.whole)
        return (part > whole) | ((part == part) & (whole != whole) & self.known)  # noqa: PLR0124  # nan is not itself

    def error(self, event: Event) -> InvalidRecord:
        """As in Rule."""
        part, whole = getattr(event, self.part), getattr(event, self.whole)
        if whole is None:
            message = f"{self.part}={part} without {self.whole}; send {self.whole} too"
        else:
            message = (
                f"{self.part}={part} is more than {self.whole}={whole}; it is a part of it (counts "
                "are inclusive)"
            )
        return InvalidRecord(Reason.INCONSISTENT, message, self.part)

    def noise(self, event: Event) -> dict[str, float]:
        """The part as it is meant where it is more than its whole by noise alone: {field: value};
        else nothing."""
        part, whole = getattr(event, self.part), getattr(event, self.whole)
        noisy = (
            self.measured
            and part is not None
            and whole is not None
            and part > whole
            and is_noise(part, whole, NOISE_MS)
        )
        return {self.part: whole} if noisy else {}


@dataclass(frozen=True)
class OfLabels(Rule[E_contra]):
    """A rule between fields that few different values have. `refusal` reads no other ones, and says
    what is wrong."""

    refusal: Callable[[E_contra], InvalidRecord | None]

    def label_value(self, event: E_contra) -> float:
        """As in Rule: whether it is refused."""
        return float(self.refusal(event) is not None)

    def broken(self, number: Callable[[str], Any], of_labels: Any) -> Any:  # noqa: ARG002
        """As in Rule."""
        return of_labels != 0

    def error(self, event: E_contra) -> InvalidRecord:
        """As in Rule."""
        refusal = self.refusal(event)
        assert refusal is not None, "it is broken"
        return refusal


@dataclass(frozen=True)
class Below(Rule[E_contra]):
    """A number stays below a limit that depends on labels."""

    field: str
    limit: Callable[[E_contra], float]
    refusal: Callable[[E_contra], InvalidRecord]

    def label_value(self, event: E_contra) -> float:
        """As in Rule: the limit."""
        return self.limit(event)

    def broken(self, number: Callable[[str], Any], of_labels: Any) -> Any:
        """As in Rule."""
        return number(self.field) >= of_labels

    def error(self, event: E_contra) -> InvalidRecord:
        """As in Rule."""
        return self.refusal(event)


@dataclass(frozen=True)
class Touches:
    """Which ledger cells events of a kind have a part in, told by fields of their documents."""

    gpus: str  # who they are about: a GPU, or an array of them
    # these are what a sender calls GPUs, and mean one by what is known at the time; else they are
    # ids
    names: bool = False
    since: str = "ts_us"  # they speak of [since, ts_us), in microseconds
    evidence: bool = True  # they tell that the GPU was there: its time is owned by them


def mixed_names(event: Any) -> InvalidRecord | None:
    """What is said of an event with `gpu_uuids` that names GPUs in both ways; None of any other."""
    if not 0 < sum("/" in canonical_gpu(name) for name in event.gpu_uuids) < len(event.gpu_uuids):
        return None
    # One GPU named twice, by UUID and by host/index, would carry half of the request and lose the
    # other half.
    message = f"gpu_uuids={shorten(event.gpu_uuids)}: name all GPUs by UUID, or all as host/index"
    return InvalidRecord(Reason.INCONSISTENT, message, "gpu_uuids")


def stored_as_sent(event: Event) -> dict[str, Any]:
    """The usual document of labels: the host in its one spelling."""
    return {"host": canonical_host(event.host)}


@dataclass(frozen=True, eq=False)  # a kind is itself: it is a key of tables
class Kind(Generic[E]):
    """One kind of event. Fields that are neither labels nor texts are numbers, stored under their
    own names."""

    struct: type[E]
    collection: str  # where raw events of it are stored
    # fields with few different values, which many events share; all that `document` and rules read
    labels: tuple[str, ...]
    document: Callable[[E], dict[str, Any]] = stored_as_sent  # what is stored of the labels
    owner: str = "host"  # field of that document: whose event ids are unique
    # attributes of which a key of the API may send only so many different values
    bounded: tuple[str, ...] = ("host",)
    texts: tuple[str, ...] = ()  # fields that are different in each event
    rules: Sequence[Rule[E]] = ()
    touches: Touches | None = None  # None: no cell depends on it

    COMMON: ClassVar[tuple[str, ...]] = ("event_id", "ts")

    @cached_property
    def tag(self) -> str:
        """Name and version of the contract: what `schema` says in a record."""
        return str(self.struct.__struct_config__.tag)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Every field of a record."""
        return ("schema", *self.struct.__struct_fields__)

    @cached_property
    def forms(self) -> Forms:
        """What is known of the types of its fields."""
        return Forms.of(self.struct)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Fields that are neither labels nor texts, in their order: each is stored under its own
        name, null where unknown."""
        others = {*self.COMMON, *self.labels, *self.texts}
        return tuple(name for name in self.struct.__struct_fields__ if name not in others)

    def bounded_names(self, event: E) -> tuple[Any, ...]:
        """What it names that others keep a list of: a sender may not make up new ones without
        end."""
        return tuple(getattr(event, name) for name in self.bounded)

    def raw_id(self, event: E) -> bytes:
        """What an event is stored under."""
        return raw_id(self.document(event)[self.owner], event.event_id)

    def without_noise(self, event: E) -> E:
        """Parts that are more than their whole by no more than a float loses on its way are all of
        it."""
        noisy: dict[str, float] = {}
        for rule in self.rules:
            if isinstance(rule, PartOf):
                noisy |= rule.noise(event)
        return msgspec.structs.replace(event, **noisy) if noisy else event

    def check(self, event: E) -> None:
        """Raises InvalidRecord for the first rule that an event breaks."""
        for rule in self.rules:
            rule.check(event)


_encoder = msgspec.json.Encoder()


def encode(event: Event) -> bytes:
    """The one byte form of an event: field order of the type, defaults left out, UTC `Z` times."""
    return _encoder.encode(event)


def encode_lines(events: Sequence[Event]) -> bytes:
    """Events in their byte form, each with a line feed behind."""
    return _encoder.encode_lines(events)
