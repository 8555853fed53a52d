"""Lines of cells: in the cell as long as they are few, else in chunks; and what a cell remembers of
its corrections, bounded.

lines                                   few: [{model, tenant, method, ...}]
line_ref, lines_total, chunks           many: where they are, what they sum to, and the token they
                                        are under
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import cast

import bson
import msgspec
from pymongo.collection import Collection as MongoCollection

from gpu_token_analytics.cells.line_chunks import READ_TRIES, LineChunks, read_again
from gpu_token_analytics.documents import CellId, Collection
from gpu_token_analytics.ledger.document import LINE_SUMS, CellDocument, Correction, LedgerLine
from gpu_token_analytics.mongo.errors import Document
from gpu_token_analytics.mongo.pieces import pieces, utf8_length

MAX_INLINE_LINES = 256
MAX_INLINE_BYTES = 256 * 1024
_FEW_LINES = 64  # fit whatever their names are
TOP_MODELS = 20
MAX_CORRECTIONS = 50
MAX_CORRECTIONS_BYTES = 256 * 1024
MAX_CORRECTED_LINES = 20
_LINE_BYTES = 300  # of a line without its names

_lines_encoder = msgspec.json.Encoder(order="sorted")


def are_many(lines: Sequence[LedgerLine]) -> bool:
    """Whether lines do not belong into their cell."""
    if len(lines) <= _FEW_LINES:
        return False
    return len(lines) > MAX_INLINE_LINES or sum(map(_line_bytes, lines)) > MAX_INLINE_BYTES


def put_lines(chunks: LineChunks, cell: CellId, lines: Sequence[LedgerLine]) -> Document:
    """Store lines in chunks. Returns the fields their cell has instead."""
    sections = {"lines": ({"lines": piece} for piece in pieces(lines, _line_bytes))}
    token, refs = chunks.put(Collection.LEDGER_CELLS, cell, sections)
    total = {name: sum(line[name] or 0 for line in lines) for name in LINE_SUMS}
    ref = refs["lines"] | {"lines": len(lines)}
    return {
        "chunks": token,
        "line_ref": ref,
        "lines_total": total,
        "top_models": _top_models(lines),
    }


def _top_models(lines: Sequence[LedgerLine]) -> list[Document]:
    """The models that cost most, for views that name a few."""
    costs: Counter[str] = Counter()
    for line in lines:
        costs[line["model"]] += line["cost_nusd"] or 0
    most = sorted(costs.items(), key=lambda item: (-item[1], item[0]))[:TOP_MODELS]
    return [{"model": model, "cost_nusd": cost} for model, cost in most]


def complete_cells(
    chunks: LineChunks,
    collection: MongoCollection[Document],
    cells: Iterable[Document],
    fields: Document | None = None,
) -> Iterator[CellDocument]:
    """Cells with their lines, one at a time; those that vanished are left out. They need `_id`,
    `lines` and `line_ref`.

    fields: how they were read, to read one again. Raises StoreOutcomeUnknown where a cell is
    written at every try.
    """
    for cell in cells:
        joined: Document | None = cell
        for _ in range(READ_TRIES):
            if joined is None or "line_ref" not in joined:
                break
            read = chunks.read(joined["line_ref"])
            if read is not None:
                joined["lines"] = [line for piece in read for line in piece["lines"]]
                break
            joined = collection.find_one({"_id": cell["_id"]}, fields)
        else:
            raise read_again(f"cell {cell['_id']}")
        if joined is not None:
            yield cast("CellDocument", joined)


def first_lines(chunks: LineChunks, cell: CellDocument, limit: int) -> None:
    """Up to `limit` of the lines of a cell into it, where they are in chunks: for a page that shows
    some of them."""
    if "line_ref" in cell:
        read = chunks.read(cell["line_ref"]) or []
        cell["lines"] = [line for piece in read for line in piece["lines"]][:limit]


def lines_digest(lines: Sequence[LedgerLine]) -> bytes:
    """What tells lines from others."""
    return blake2b(_lines_encoder.encode(lines), digest_size=16).digest()


def _line_bytes(line: LedgerLine) -> int:
    return _LINE_BYTES + utf8_length(line["model"]) + utf8_length(line["tenant"])


# -- corrections -----------------------------------------------------------------------------------


def bounded_correction(correction: Correction) -> Correction:
    """A correction that lists the lines that changed most, and says how many it leaves out. Its
    sums are of all lines."""
    lines = correction["lines"]
    if len(lines) <= MAX_CORRECTED_LINES:
        return correction
    most = sorted(
        lines,
        key=lambda line: (-abs(line["cost_nusd"]), line["model"], line["tenant"], line["method"]),
    )
    kept = sorted(
        most[:MAX_CORRECTED_LINES], key=lambda line: (line["model"], line["tenant"], line["method"])
    )
    return {**correction, "lines": kept, "lines_left_out": len(lines) - len(kept)}


def bounded_corrections(corrections: Sequence[Correction]) -> list[Correction]:
    """The corrections of a cell, oldest first: when they are too many, the oldest are added up into
    one without lines."""
    kept = list(corrections)
    size = len(bson.encode({"corrections": kept}))
    while len(kept) > 1 and (len(kept) > MAX_CORRECTIONS or size > MAX_CORRECTIONS_BYTES):
        size -= len(bson.encode(kept[0])) + len(bson.encode(kept[1]))
        kept[:2] = [_together(kept[0], kept[1])]
        size += len(bson.encode(kept[0]))
    return kept


def _together(first: Correction, second: Correction) -> Correction:
    moved = dict(first["moved_nusd"])
    for name, amount in second["moved_nusd"].items():
        moved[name] = moved.get(name, 0) + amount
    return {
        "revision": second["revision"],
        "at": second["at"],
        "corrections": first.get("corrections", 1) + second.get("corrections", 1),
        "moved_nusd": {name: amount for name, amount in moved.items() if amount},
        "cost_change_nusd": first["cost_change_nusd"] + second["cost_change_nusd"],
        "lines": [],
        "lines_left_out": sum(
            len(one["lines"]) + one.get("lines_left_out", 0) for one in (first, second)
        ),
    }
