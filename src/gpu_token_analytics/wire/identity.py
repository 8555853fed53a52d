"""What a raw event is stored under: 16 bytes made of its owner and the event id that the owner gave
it.

    usage    owner = tenant      a tenant's ids are its own: another tenant's `chatcmpl-0001` is
             another event
    sample   owner = host

    UUIDv7   its 6 bytes of time | 10 bytes of BLAKE2b(BLAKE2b-256(owner) event id)      other ids
             16 bytes of the hash

The time in front keeps live inserts at the right edge of the `_id` index (RFC 9562, section 5.7).
The hash is a cryptographic one: nobody can make an event that takes the place of another tenant's.
The id itself stands in the document, as it was sent: as 16 bytes where it is a UUID in the usual
spelling, else as text.

Ids are part of what is stored: changed, the same event would be stored a second time
(docs/decisions).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from uuid import UUID

import uuid_utils

ID_BYTES = 16
_TIME_BYTES = 6
_VERSION_AT, _VERSION_7 = 14, b"7"
_USUAL = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_is_usual = re.compile(_USUAL).fullmatch
_DIGITS = b"0123456789abcdef"
_MARKS = ((8, b"-"), (13, b"-"), (18, b"-"), (23, b"-"), (36, b"\n"))  # in a line of one
_USUAL_LINE = 37

# BSON elements: type, name, and for binary data its length and subtype (0 generic, 4 UUID).
_ID = b"\x05_id\x00\x10\x00\x00\x00\x00"
_UUID = b"\x05event_id\x00\x10\x00\x00\x00\x04"
_TEXT = b"\x02event_id\x00"


def identify(owners: Iterable[str], event_ids: Iterable[str]) -> tuple[list[bytes], list[bytes]]:
    """(`_id` of each event, the elements `_id` and `event_id` of its document)."""
    event_ids = list(event_ids)
    keys = list(map(_key, owners))
    lines = "\n".join((*event_ids, "")).encode()
    if _are_usual(lines, len(event_ids)):
        # which passes over the ends of lines
        read = bytes.fromhex(lines.replace(b"-", b"").decode())
        uuids = [read[start : start + ID_BYTES] for start in range(0, len(read), ID_BYTES)]
        if lines[_VERSION_AT::_USUAL_LINE] == _VERSION_7 * len(event_ids):
            return _identify_ordered(keys, lines.split(b"\n"), uuids)
        return _identify_each(keys, event_ids, uuids)
    return _identify_each(
        keys,
        event_ids,
        [bytes.fromhex(one.replace("-", "")) if _is_usual(one) else None for one in event_ids],
    )


def _are_usual(lines: bytes, count: int) -> bool:
    """Whether so many lines are each a UUID in the usual spelling: their marks stand where they
    must, all else is a digit."""
    marks = all(lines[at::_USUAL_LINE] == mark * count for at, mark in _MARKS)
    return (
        marks
        and len(lines) == _USUAL_LINE * count
        and len(lines.translate(None, _DIGITS)) == len(_MARKS) * count
    )


def _identify_ordered(
    keys: Sequence[bytes], texts: Iterable[bytes], uuids: Sequence[bytes]
) -> tuple[list[bytes], list[bytes]]:
    """Of events whose ids are all UUIDs of version 7, as most senders make them: in two thirds of
    the time."""
    size = ID_BYTES - _TIME_BYTES
    ids = [
        uuid[:_TIME_BYTES] + blake2b(key + text, digest_size=size).digest()
        # behind the last text is an empty one
        for key, text, uuid in zip(keys, texts, uuids, strict=False)
    ]
    return ids, [_ID + name + _UUID + uuid for name, uuid in zip(ids, uuids, strict=True)]


def _identify_each(
    keys: Sequence[bytes], event_ids: Sequence[str], uuids: Sequence[bytes | None]
) -> tuple[list[bytes], list[bytes]]:
    ids: list[bytes] = []
    heads: list[bytes] = []
    for key, event_id, uuid in zip(keys, event_ids, uuids, strict=True):
        text = event_id.encode()
        if uuid is None:
            name = blake2b(key + text, digest_size=ID_BYTES).digest()
            head = _ID + name + _TEXT + (len(text) + 1).to_bytes(4, "little") + text + b"\x00"
        elif text[_VERSION_AT : _VERSION_AT + 1] == _VERSION_7:
            name = (
                uuid[:_TIME_BYTES]
                + blake2b(key + text, digest_size=ID_BYTES - _TIME_BYTES).digest()
            )
            head = _ID + name + _UUID + uuid
        else:
            name = blake2b(key + text, digest_size=ID_BYTES).digest()
            head = _ID + name + _UUID + uuid
        ids.append(name)
        heads.append(head)
    return ids, heads


def raw_id(owner: str, event_id: str) -> bytes:
    """`_id` of one event."""
    return identify((owner,), (event_id,))[0][0]


def event_id_of(document: dict[str, Any]) -> str:
    """The event id in a raw document, as it was sent."""
    stored = document["event_id"]
    return stored if isinstance(stored, str) else str(UUID(bytes=bytes(stored)))


@lru_cache(maxsize=4096)
def _key(owner: str) -> bytes:
    return blake2b(owner.encode(), digest_size=32).digest()


def new_event_id() -> str:
    """A fresh UUIDv7 (RFC 9562): ordered by time, so MongoDB's _id index stays warm at its right
    edge."""
    return str(uuid_utils.uuid7())
