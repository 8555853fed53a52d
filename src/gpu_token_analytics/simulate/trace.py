"""Reading a trace of LLM requests, one request per row; what the columns mean: trace_layout.py.

A row that cannot be read is a bad row, named by its line, field and value, and costs no other row.
A row has as many values as the header has columns: a comma that is no separator (`18:17:03,97`)
must not shift it. Blank lines are skipped.

Cached tokens of block hashes: block tokens x leading hash_ids that an earlier row had, at most
input - 1, as an engine computes one token at least. The cache that this implies never forgets, so
it is an upper bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from gpu_token_analytics.errors import InvalidRecord, TraceUnreadable
from gpu_token_analytics.simulate import trace_values as values
from gpu_token_analytics.simulate.trace_layout import (
    AZURE,
    BURSTGPT,
    KNOWN,
    UNITS_US,
    ColumnMap,
    Field,
    Layout,
    layout_of,
    positions,
)
from gpu_token_analytics.simulate.trace_records import Lines, Record, csv_records, json_records
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import encode
from gpu_token_analytics.wire.times import from_us
from gpu_token_analytics.wire.usage import TokenUsage

_BAD_ROWS_NAMED = 10
UNKNOWN, DEFAULT_TENANT, FAILED = "unknown", "default", "error"


class TraceRow(NamedTuple):
    """One request. `number` counts the readable rows from 1; `line` is its line in the file. What
    the file does not say is None, or 0 of parts of tokens."""

    number: int
    line: int
    arrival_us: int
    context_tokens: int
    generated_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    latency_ms: float | None = None
    queue_ms: float | None = None
    ttft_ms: float | None = None
    model: str | None = None
    tenant: str | None = None
    host: str | None = None
    gpus: tuple[str, ...] = ()
    request_id: str | None = None
    finish_reason: str | None = None
    key: str | None = None  # the file's own id of the request

    @property
    def end_us(self) -> int:
        """When it ended; its arrival where that is all that is known."""
        return self.arrival_us + round((self.latency_ms or 0) * 1000)

    def usage(self, event_id: str, request_id: str) -> TokenUsage:
        """The request as an event, of a file that says everything of it."""
        labels = {gpu.rpartition("/")[0] for gpu in self.gpus if "/" in gpu}
        return TokenUsage(
            event_id=event_id,
            ts=from_us(self.end_us),
            host=self.host or (labels.pop() if len(labels) == 1 else UNKNOWN),
            model=self.model or UNKNOWN,
            request_id=self.request_id or request_id,
            prompt_tokens=self.context_tokens,
            completion_tokens=self.generated_tokens,
            gpu_uuids=list(self.gpus),
            tenant=self.tenant or DEFAULT_TENANT,
            cached_tokens=self.cached_tokens,
            reasoning_tokens=self.reasoning_tokens,
            latency_ms=self.latency_ms,
            queue_ms=self.queue_ms,
            ttft_ms=self.ttft_ms,
            finish_reason=self.finish_reason,
        )


class BadRow(NamedTuple):
    """A row that cannot be read, and why."""

    line: int
    problem: str


class TraceFacts(NamedTuple):
    """What is known of a trace before it is replayed."""

    sha256: str
    rows: int
    bad_rows: int
    first_bad_rows: tuple[BadRow, ...]  # at most ten: enough to see what is wrong with the file
    layout: Layout = AZURE
    latest_us: int = 0  # when the last request arrived or, where that is known, ended
    failed: int = 0
    cached_tokens: int = 0


class Trace:
    """A trace file, read again and again from its start.

    start_us: when times that count from the start of the file began. latest_us: what ends after it
    has not happened yet. Raises TraceUnreadable when there is no such file, or it names no columns
    that are known.
    """

    def __init__(
        self,
        path: Path,
        columns: ColumnMap | None = None,
        start_us: int | None = None,
        latest_us: int | None = None,
    ) -> None:
        self._path, self._start_us, self._latest_us = path, start_us, latest_us
        self._columns = columns or ColumnMap()

    def rows(self, on_bad_row: Callable[[BadRow], None]) -> Iterator[TraceRow]:
        """The requests in the order of the file."""
        for _, row in self._read(on_bad_row):
            if row is not None:
                yield row

    def survey(self, on_bad_row: Callable[[BadRow], None] | None = None) -> TraceFacts:
        """Read the file once: its identity, and what a replay will send."""
        first: list[BadRow] = []
        counts = {"rows": 0, "bad": 0, "failed": 0, "cached": 0, "latest": 0}
        layout = AZURE

        def count_bad(row: BadRow) -> None:
            counts["bad"] += 1
            if len(first) < _BAD_ROWS_NAMED:
                first.append(row)
            if on_bad_row is not None:
                on_bad_row(row)

        for read, row in self._read(count_bad):
            layout = read
            if row is not None:
                counts["rows"] += 1
                counts["failed"] += row.finish_reason == FAILED
                counts["cached"] += row.cached_tokens
                counts["latest"] = max(counts["latest"], row.end_us)
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return TraceFacts(
            digest,
            counts["rows"],
            counts["bad"],
            tuple(first),
            layout,
            counts["latest"],
            counts["failed"],
            counts["cached"],
        )

    def _read(
        self, on_bad_row: Callable[[BadRow], None]
    ) -> Iterator[tuple[Layout, TraceRow | None]]:
        """The layout, then each row with it."""
        try:
            with self._path.open(encoding="utf-8-sig", errors="replace") as file:
                lines = Lines(file)
                first = next(((line, text) for line, text in lines if text.strip()), None)
                if first is None:
                    raise TraceUnreadable(f"{self._path} is empty; a trace is {KNOWN}")
                layout, header = layout_of(self._path, first[1], self._columns)
                if self._start_us is None and layout.time_unit and not layout.is_mapped:
                    raise TraceUnreadable(
                        f"the times of {self._path.name} ({layout.name}) count from 0; say when "
                        "that was, such as --start "
                        "2026-10-01T00:00:00Z, or --shift-to-now"
                    )
                yield layout, None
                if layout.is_json:
                    lines.give_back([first])
                    places = {name: at for at, name in enumerate(layout.columns)}
                    records = json_records(lines, list(layout.columns.values()))
                else:
                    places = positions(self._path, layout, header)
                    records = csv_records(lines, layout.delimiter, len(header))
                reader = _RowReader(layout, places, self._start_us, self._latest_us)
                for record in records:
                    try:
                        row = reader.read(record)
                    except ValueError as problem:
                        on_bad_row(BadRow(record.line, str(problem)))
                    else:
                        yield layout, row
        except OSError as error:
            raise TraceUnreadable(
                f"{self._path} cannot be read ({error.strerror}); give a file: {KNOWN}"
            ) from None


def read_trace(path: Path, on_bad_row: Callable[[BadRow], None]) -> Iterator[TraceRow]:
    """The requests of a file whose columns and times say everything, in its order. Raises
    TraceUnreadable."""
    return Trace(path).rows(on_bad_row)


def survey(path: Path) -> TraceFacts:
    """What is known of such a file. Raises TraceUnreadable."""
    return Trace(path).survey()


class _RowReader:
    """Rows of one layout, one after the other: how many were read and which blocks were seen is
    kept."""

    def __init__(
        self, layout: Layout, places: dict[Field, int], start_us: int | None, latest_us: int | None
    ) -> None:
        self._layout = layout
        self._places = places
        self._start_us = start_us
        self._latest_us = latest_us
        self._unit_us = UNITS_US.get(layout.time_unit)
        self._number = 0
        self._seen: set[int] = set()
        self._is_plain = (
            layout.columns.keys() <= {Field.TS, Field.INPUT, Field.OUTPUT, Field.BLOCKS}
            and not layout.gpus
        )

    def read(self, record: Record) -> TraceRow:
        """Raises ValueError saying what is wrong."""
        cells = record.cells
        if cells is None:
            raise ValueError(record.problem)
        cell = {name: cells[at] for name, at in self._places.items()}
        arrival_us, latency_ms = self._times(cell)
        context = values.tokens(self._column(Field.INPUT), cell[Field.INPUT])
        generated = values.tokens(self._column(Field.OUTPUT), cell[Field.OUTPUT])
        row = TraceRow(
            self._number + 1, record.line, arrival_us, context, generated, latency_ms=latency_ms
        )
        if Field.BLOCKS in cell:
            row = row._replace(cached_tokens=self._cached(cell[Field.BLOCKS], context))
        if not self._is_plain:
            row = self._told(row, cell)
        if self._latest_us is not None and row.end_us > self._latest_us:
            ended = f"{from_us(row.end_us):%Y-%m-%dT%H:%M:%SZ}"
            raise ValueError(
                f"the request would end at {ended}, after now; correct its time, or give an "
                "earlier --start"
            )
        self._number += 1
        return row

    def _column(self, name: Field) -> str:
        return self._layout.columns[name]

    def _times(self, cell: dict[Field, str]) -> tuple[int, float | None]:
        """Arrival, and how long it took where that is known."""
        latency_ms = self._milliseconds(cell, Field.LATENCY_MS, Field.LATENCY_SECONDS)
        end_us = self._time_us(Field.END, cell) if cell.get(Field.END) else None
        if Field.TS not in cell:
            if end_us is None:
                raise ValueError(
                    f"{self._column(Field.END)} is empty: give the time when the request ended"
                )
            return end_us - round((latency_ms or 0) * 1000), latency_ms
        arrival_us = self._time_us(Field.TS, cell)
        if end_us is None:
            return arrival_us, latency_ms
        if end_us < arrival_us:
            said = f"{self._column(Field.END)}={cell[Field.END][: values.SHOWN]!r}"
            raise ValueError(
                f"{said} is before {self._column(Field.TS)}={cell[Field.TS][: values.SHOWN]!r}; "
                "correct one of them"
            )
        return arrival_us, values.milliseconds(
            self._column(Field.END), f"{(end_us - arrival_us) / 1000}", 1
        )

    def _time_us(self, name: Field, cell: dict[Field, str]) -> int:
        return values.time_us(self._column(name), cell[name], self._unit_us, self._start_us)

    def _milliseconds(
        self, cell: dict[Field, str], in_ms: Field, in_seconds: Field
    ) -> float | None:
        if in_ms in cell:
            return values.milliseconds(self._column(in_ms), cell[in_ms], 1)
        if in_seconds in cell:
            return values.milliseconds(self._column(in_seconds), cell[in_seconds], 1000)
        return None

    def _cached(self, text: str, context: int) -> int:
        column = self._column(Field.BLOCKS)
        try:
            blocks = [int(block) for block in text.split()]
        except ValueError:
            raise ValueError(
                f"{column}={text[: values.SHOWN]!r} is not a list of whole numbers"
            ) from None
        size = self._layout.block_tokens
        if len(blocks) != -(-context // size):
            raise ValueError(
                f"{column} has {len(blocks)} blocks, and {context} tokens are "
                f"{-(-context // size)} of {size}: is a value cut?"
            )
        known = next(
            (at for at, block in enumerate(blocks) if block not in self._seen), len(blocks)
        )
        self._seen.update(blocks)
        return max(0, min(size * known, context - 1))

    def _told(self, row: TraceRow, cell: dict[Field, str]) -> TraceRow:
        """The row with what else the file says. Raises ValueError for what no event can be."""

        def named(name: Field) -> str | None:
            return values.optional_label(self._column(name), cell[name]) if name in cell else None

        def counted(name: Field) -> int:
            return values.optional_tokens(self._column(name), cell[name]) if name in cell else 0

        reason = named(Field.FINISH_REASON)
        if self._layout.name == BURSTGPT.name and not row.generated_tokens:
            reason = FAILED
        row = row._replace(
            cached_tokens=row.cached_tokens or counted(Field.CACHED),
            reasoning_tokens=counted(Field.REASONING),
            queue_ms=self._milliseconds(cell, Field.QUEUE_MS, Field.QUEUE_SECONDS),
            ttft_ms=self._milliseconds(cell, Field.TTFT_MS, Field.TTFT_SECONDS),
            model=values.label(self._column(Field.MODEL), cell[Field.MODEL])
            if Field.MODEL in cell
            else None,
            tenant=(named(Field.TENANT) or DEFAULT_TENANT) if Field.TENANT in cell else None,
            host=named(Field.HOST),
            gpus=values.gpus(self._column(Field.GPUS), cell[Field.GPUS])
            if Field.GPUS in cell
            else self._layout.gpus,
            request_id=named(Field.REQUEST_ID),
            finish_reason=reason,
            key=values.label(self._column(Field.ID), cell[Field.ID]) if Field.ID in cell else None,
        )
        usage = row.usage("row", "row")
        try:
            # What the consumer would refuse is a bad row now, and no dead letter later.
            decode(
                encode(usage if usage.gpu_uuids else msgspec.structs.replace(usage, gpu_index=0))
            )
        except InvalidRecord as error:
            raise ValueError(f"{error}; correct the row") from None
        return row
