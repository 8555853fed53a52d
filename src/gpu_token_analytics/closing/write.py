"""What is written of a computed cell: its content if it is a new one, and what that changed in a
cell that was final."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from hashlib import blake2b

import msgspec

from gpu_token_analytics.cells.lines import bounded_correction, bounded_corrections
from gpu_token_analytics.cells.store import CellWrite
from gpu_token_analytics.documents import US_PER_MINUTE, CellState, MoneyClass
from gpu_token_analytics.ledger.computed import ComputedCell
from gpu_token_analytics.ledger.document import (
    LINE_SUMS,
    CellDocument,
    CellFields,
    Correction,
    LedgerLine,
)
from gpu_token_analytics.mongo.errors import Document

AFTER_MINUTE = timedelta(seconds=1)

_content_encoder = msgspec.json.Encoder(order="sorted")


def cell_write(
    cell: ComputedCell,
    mark: CellDocument,
    final: CellDocument | None,
    version: str,
    finality: timedelta,
    now: datetime,
) -> CellWrite:
    """The write of one cell. mark: as it was taken. final: the whole cell, if it was final.
    version: of the parameters. finality: how long after its minute, and after it was opened, a cell
    may change without a correction."""
    computed = cell.fields()
    fields = {**computed, "params": version}
    # The end of its last request is not stored, but later cells may depend on it (ledger/diff.py).
    content = blake2b(_content_encoder.encode((fields, cell.last_end_us)), digest_size=8).digest()
    end = mark["minute"] + timedelta(microseconds=US_PER_MINUTE)
    changes: Document = {"computed_at": now}
    if content != mark.get("content"):
        revision = mark["revision"] + 1
        changes |= fields | {"content": content, "revision": revision, "rolled": False}
        changes["final_at"] = max(end, mark["opened_at"]) + finality
        if mark["state"] == CellState.PENDING:
            changes["state"] = CellState.PROVISIONAL.value
        if final is not None:
            correction = bounded_correction(_correction(final, computed, revision, now))
            changes["corrections"] = bounded_corrections(
                [*final.get("corrections", ()), correction]
            )
    return CellWrite(
        cell=mark["_id"],
        gen=mark["gen"],
        revision=mark["revision"],
        changes=changes,
        due_again_at=end + AFTER_MINUTE if end > now else None,
        replaces=mark.get("chunks"),
    )


def _correction(
    before: CellDocument, after: CellFields, revision: int, now: datetime
) -> Correction:
    """What a change of a final cell moved: by class and, by line, in money and tokens. Sums of
    `moved` = change of C."""
    moved = {
        name.value: after["classes"][name] - before["classes"].get(name, 0) for name in MoneyClass
    }
    return {
        "revision": revision,
        "at": now,
        "moved_nusd": {name: amount for name, amount in moved.items() if amount},
        "cost_change_nusd": after["cost_nusd"] - before["cost_nusd"],
        "lines": _line_changes(before["lines"], after["lines"]),
    }


def _line_changes(before: Iterable[LedgerLine], after: Iterable[LedgerLine]) -> list[Document]:
    sums: dict[tuple[str, str, str], Document] = {}
    for sign, lines in ((-1, before), (1, after)):
        for line in lines:
            change = sums.setdefault(
                (line["model"], line["tenant"], line["method"]), dict.fromkeys(LINE_SUMS, 0)
            )
            for name in LINE_SUMS:
                # the money of a GPU that is not known is null
                change[name] += sign * (line[name] or 0)
    return [
        {"model": model, "tenant": tenant, "method": method, **change}
        for (model, tenant, method), change in sorted(sums.items())
        if any(change.values())
    ]
