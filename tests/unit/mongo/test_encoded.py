"""Documents that go out as bytes, and which of them go together."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from bson.json_util import dumps
from tests.oracle.raw_documents import encoded_documents

from gpu_token_analytics.mongo.encoded import EncodedDocuments, Joined


def documents(count: int) -> list[dict[str, Any]]:
    return [{"_id": f"e{number}", "h": bytes([number]), "n": number} for number in range(count)]


def sent(
    found: EncodedDocuments, places: range | list[int], most: int, most_bytes: int
) -> list[tuple[list[int], list[Any]]]:
    return [
        (
            list(piece),
            [document["n"] for document in bson.decode_all(b"".join(part.raw for part in parts))],
        )
        for piece, parts in found.commands(places, most, most_bytes)
    ]


def test_what_was_added_in_parts_is_one() -> None:
    found, more = encoded_documents(documents(2)), documents(5)[2:]
    encoded = [bson.encode(document) for document in more]
    found.extend(
        [b"e2", b"e3", b"e4"], [b"\x02", b"\x03", b"\x04"], map(len, encoded), b"".join(encoded)
    )
    assert found.decoded() == documents(5)
    assert found.lengths == encoded_documents(documents(5)).lengths
    assert sent(found, range(5), 10, 1000) == [([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])]
    assert sent(found, [1, 4], 10, 1000) == [([1, 4], [1, 4])]
    assert sent(found, [0], 10, 1000) == [([0], [0])]
    assert sent(found, [], 10, 1000) == []


@pytest.mark.parametrize(("most", "most_bytes"), [(2, 10_000), (1000, 70), (1000, 99)])
def test_pieces_keep_both_limits(most: int, most_bytes: int) -> None:
    found = encoded_documents(documents(5))
    assert set(found.lengths) == {33}
    assert sent(found, range(5), most, most_bytes) == [
        (piece, piece)
        for piece in ([[0, 1], [2, 3], [4]] if most_bytes != 99 else [[0, 1, 2], [3, 4]])
    ]


def test_a_document_over_the_limit_is_alone() -> None:
    found = encoded_documents(
        [*documents(1), {"_id": "l", "h": b"", "n": 9, "x": "x" * 100}, *documents(1)]
    )
    assert [piece for piece, _ in sent(found, range(3), 10, 50)] == [[0], [1], [2]]


def test_nothing_is_a_command() -> None:
    assert list(EncodedDocuments().commands(range(0), 10, 100)) == []


def test_what_is_sent_as_it_is_can_be_logged() -> None:
    """The driver's log of commands asks for its members."""
    joined = Joined(b"".join(bson.encode(document) for document in documents(3)))
    assert dumps({"documents": [joined]}) == '{"documents": [{"bytes": 99}]}'
    assert (joined["bytes"], len(joined), list(joined)) == (99, 1, ["bytes"])
