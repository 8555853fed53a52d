"""Requests as the ledger reads them: rows out of the raw batches of an answer.

A run of minutes has thousands of requests. Decoded all at once, each as a dict, they fall out of the processor's cache and
are fetched back for every column; decoded a few at a time they become rows where they are. Half the time for both together.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from struct import Struct

import bson

from gpu_token_analytics.ledger.requests import UsageRow

# Field of the document -> of the row, in the row's order; `first_us` comes last, where there is one.
USAGE_FIELDS = ("_id", *UsageRow._fields[1:])
_ALWAYS = itemgetter(*USAGE_FIELDS[:-1])
_DECODED_TOGETHER = 16
_LENGTH = Struct("<i")  # a document starts with its own length (bsonspec.org)


def usage_rows(batches: Iterable[bytes]) -> list[UsageRow]:
    """One row of each document. batches: whole documents of `token_usage`, one after another, with USAGE_FIELDS."""
    rows: list[UsageRow] = []
    for batch in batches:
        at = 0
        while at < len(batch):
            start = at
            for _ in range(_DECODED_TOGETHER):
                at += _LENGTH.unpack_from(batch, at)[0]
                if at >= len(batch):
                    break
            rows += [UsageRow._make((*_ALWAYS(doc), doc.get("first_us", -1))) for doc in bson.decode_all(batch[start:at])]
    return rows
