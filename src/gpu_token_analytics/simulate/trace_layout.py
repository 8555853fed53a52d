"""What the columns of a trace mean: four published formats, and any other file by `--map`.

    Azure         CSV   TIMESTAMP,ContextTokens,GeneratedTokens; UTC times with seven fractional
                        digits, no zone, CRLF, no newline at the end (Azure/AzurePublicDataset,
                        CC-BY 4.0; Patel et al., "Splitwise", ISCA 2024)
    BurstGPT      CSV   Timestamp (s from 0), Model, Request tokens, Response tokens, Total tokens,
                        Log Type; newer files also Session ID and Elapsed time (s). Response tokens
                        0: the request failed (HPMLL/BurstGPT, CC-BY 4.0; Wang et al., "BurstGPT: A
                        Real-world Workload Dataset to Optimize LLM Serving Systems",
                        arXiv:2401.17644)
    Mooncake      JSON  timestamp (ms from 0), input_length, output_length, hash_ids of blocks of
                        512 tokens, the last one partial (kvcache-ai/Mooncake FAST25-release/traces,
                        Apache-2.0; Qin et al., "Mooncake", FAST 2025)
    Qwen-Bailian  JSON  chat_id, timestamp (s from 0), input_length, output_length, hash_ids of
                        blocks of 16 tokens (alibaba-edu/qwen-bailian-usagetraces-anon, Apache-2.0;
                        Wang et al., "KVCache Cache in the Wild", ATC 2025)

Columns are searched for by name, in any order, case and punctuation. JSON: one object per line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from pathlib import Path

import msgspec

from gpu_token_analytics.errors import SettingsError, TraceUnreadable
from gpu_token_analytics.simulate.trace_records import split


class Field(StrEnum):
    """What a column can say of a request. The words are those of `--map`."""

    TS = "ts"
    END = "end"
    INPUT = "input_tokens"
    OUTPUT = "output_tokens"
    CACHED = "cached_tokens"
    REASONING = "reasoning_tokens"
    LATENCY_MS = "latency_ms"
    LATENCY_SECONDS = "latency_seconds"
    QUEUE_MS = "queue_ms"
    QUEUE_SECONDS = "queue_seconds"
    TTFT_MS = "ttft_ms"
    TTFT_SECONDS = "ttft_seconds"
    MODEL = "model"
    TENANT = "tenant"
    HOST = "host"
    GPUS = "gpus"
    REQUEST_ID = "request_id"
    FINISH_REASON = "finish_reason"
    ID = "id"
    BLOCKS = "hash_ids"


ALIASES = {
    "prompt_tokens": Field.INPUT,
    "completion_tokens": Field.OUTPUT,
    "gpu_uuids": Field.GPUS,
    "event_id": Field.ID,
}
UNITS_US = {"s": Decimal(1_000_000), "ms": Decimal(1_000), "us": Decimal(1), "ns": Decimal("0.001")}
_DURATION = frozenset({Field.LATENCY_MS, Field.LATENCY_SECONDS, Field.END})
_ALTERNATIVES = (
    (Field.LATENCY_MS, Field.LATENCY_SECONDS),
    (Field.QUEUE_MS, Field.QUEUE_SECONDS),
    (Field.TTFT_MS, Field.TTFT_SECONDS),
)
_DELIMITERS = ",;\t|"
# A comma parts two columns where a field's name and = follow: a column's name may have commas of
# its own.
_BETWEEN_PAIRS = re.compile(r",(?=\s*[a-z_]+\s*=)")


@dataclass(frozen=True)
class Layout:
    """How a file is read. `columns`: field -> column; `time_unit`: of times that are numbers, ''
    where no time is one."""

    name: str
    columns: Mapping[Field, str]
    time_unit: str = ""
    is_json: bool = False
    block_tokens: int = 0  # tokens of a block of the prefix cache
    optional: frozenset[Field] = frozenset()  # what older files of the format do not have
    delimiter: str = ","
    gpus: tuple[str, ...] = ()  # of all requests
    is_mapped: bool = False  # a column is then meant by its exact name, if there is one

    @property
    def has_durations(self) -> bool:
        """Whether the file says how long requests took."""
        return not _DURATION.isdisjoint(self.columns)

    @property
    def has_gpus(self) -> bool:
        """Whether it is known which GPUs requests ran on."""
        return bool(self.gpus) or Field.GPUS in self.columns

    @property
    def identity(self) -> str:
        """What of it decides on the events; '' for the format whose events were identified before
        there were others."""
        if self.name == AZURE.name and not self.gpus:
            return ""
        columns = sorted((str(name), column) for name, column in self.columns.items())
        return repr((columns, self.time_unit, self.block_tokens, self.gpus))


AZURE = Layout(
    "Azure", {Field.TS: "TIMESTAMP", Field.INPUT: "ContextTokens", Field.OUTPUT: "GeneratedTokens"}
)
BURSTGPT = Layout(
    "BurstGPT",
    {
        Field.TS: "Timestamp",
        Field.INPUT: "Request tokens",
        Field.OUTPUT: "Response tokens",
        Field.MODEL: "Model",
        Field.LATENCY_SECONDS: "Elapsed time",
    },
    time_unit="s",
    optional=frozenset({Field.LATENCY_SECONDS}),
)
_BLOCKS = {
    Field.TS: "timestamp",
    Field.INPUT: "input_length",
    Field.OUTPUT: "output_length",
    Field.BLOCKS: "hash_ids",
}
MOONCAKE = Layout("Mooncake", _BLOCKS, time_unit="ms", is_json=True, block_tokens=512)
QWEN_BAILIAN = Layout(
    "Qwen-Bailian", _BLOCKS | {Field.REQUEST_ID: "chat_id"}, "s", is_json=True, block_tokens=16
)
FORMATS = (QWEN_BAILIAN, MOONCAKE, BURSTGPT, AZURE)  # the one with more columns first
KNOWN = (
    "CSV with TIMESTAMP,ContextTokens,GeneratedTokens (Azure) or Timestamp,Model,Request "
    "tokens,Response tokens (BurstGPT), "
    "or JSON lines with timestamp, input_length, output_length, hash_ids (Mooncake, Qwen-Bailian)"
)


@dataclass(frozen=True)
class ColumnMap:
    """What `--map`, `--time-unit` and `--gpu` say."""

    columns: Mapping[Field, str] = field(default_factory=dict)
    time_unit: str = "s"
    gpus: tuple[str, ...] = ()


def read_mapping(pairs: Iterable[str], time_unit: str | None, gpus: Sequence[str]) -> ColumnMap:
    """The columns of `ts=started_at,input_tokens=prompt`. Raises SettingsError naming what cannot
    be used."""
    columns: dict[Field, str] = {}
    for pair in (pair for text in pairs for pair in _BETWEEN_PAIRS.split(text)):
        name, equals, column = (part.strip() for part in pair.partition("="))
        names = [*(str(word) for word in Field if word is not Field.BLOCKS), *ALIASES]
        if not equals or not column or name not in names:
            raise SettingsError(
                f"--map {pair.strip()!r} cannot be used; give FIELD=COLUMN, FIELD one of "
                f"{', '.join(names)}"
            )
        said = ALIASES.get(name) or Field(name)
        if said in columns:
            raise SettingsError(
                f"--map names {said} twice ({columns[said]!r}, {column!r}); give one column"
            )
        columns[said] = column
    if columns:
        _check_mapped(columns)
    elif time_unit is not None:
        raise SettingsError("--time-unit says how --map's columns of times count; give --map, too")
    if time_unit is not None and time_unit not in UNITS_US:
        raise SettingsError(
            f"--time-unit {time_unit!r} cannot be used; give one of {', '.join(UNITS_US)}"
        )
    if gpus and Field.GPUS in columns:
        raise SettingsError("--gpu says what the column of gpus says already; give one of them")
    return ColumnMap(columns, time_unit or "s", tuple(gpus))


def _check_mapped(columns: Mapping[Field, str]) -> None:
    missing = [str(name) for name in (Field.INPUT, Field.OUTPUT) if name not in columns]
    has_latency = Field.LATENCY_MS in columns or Field.LATENCY_SECONDS in columns
    if Field.TS not in columns and not (Field.END in columns and has_latency):
        missing.append("ts (when it arrived), or end and latency_ms")
    if missing:
        raise SettingsError(
            f"--map lacks {', '.join(missing)}; give FIELD=COLUMN for each, such as ts=started_at"
        )
    for one, other in _ALTERNATIVES:
        if one in columns and other in columns:
            raise SettingsError(
                f"--map names {one} and {other}, which say the same; give one of them"
            )
    if Field.TS in columns and Field.END in columns and has_latency:
        raise SettingsError(
            "--map names ts, end and a latency, of which two say the third; leave one out"
        )


def layout_of(path: Path, first_line: str, mapping: ColumnMap) -> tuple[Layout, list[str]]:
    """How the file is read, and its header (of JSON: none). Raises TraceUnreadable saying which
    columns are missing."""
    if first_line.lstrip().startswith("{"):
        return _json_layout(path, first_line, mapping), []
    delimiter = max(_DELIMITERS, key=first_line.count) if mapping.columns else ","
    header = split(first_line, delimiter, strict=False)
    if mapping.columns:
        layout = Layout(
            "CSV",
            mapping.columns,
            mapping.time_unit,
            delimiter=delimiter,
            gpus=mapping.gpus,
            is_mapped=True,
        )
    else:
        known = next(
            (one for one in FORMATS if not one.is_json and not _missing(one, header)), None
        )
        layout = _with_gpus(known or AZURE, mapping.gpus)
    missing = _missing(layout, header)
    if missing and mapping.columns:
        raise TraceUnreadable(
            f"{path} has no column {', '.join(map(repr, missing))}; its columns are "
            f"{', '.join(header)[:400]}"
        )
    if missing:
        shown = ",".join(header)[:80]
        raise TraceUnreadable(
            f"{path} starts with {shown!r}; the first line must name the columns of a known "
            f"format: {KNOWN} "
            f"(missing: {', '.join(name.lower() for name in missing)}); for any other file say "
            "which column is what: --map "
            "ts=started_at,input_tokens=prompt,output_tokens=completion"
        )
    there = {
        name: column for name, column in layout.columns.items() if _fitting(column, header, layout)
    }
    return replace(layout, columns=there), header


def _json_layout(path: Path, first_line: str, mapping: ColumnMap) -> Layout:
    if mapping.columns:
        return Layout(
            "JSON",
            mapping.columns,
            mapping.time_unit,
            is_json=True,
            gpus=mapping.gpus,
            is_mapped=True,
        )
    try:
        document = msgspec.json.decode(first_line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise TraceUnreadable(
            f"{path} starts with a line that is no JSON ({error}); give {KNOWN}"
        ) from None
    for layout in FORMATS:
        if layout.is_json and not set(layout.columns.values()) - set(document):
            return _with_gpus(layout, mapping.gpus)
    raise TraceUnreadable(
        f"{path} starts with an object of {', '.join(document)[:200]}; give {KNOWN}, or --map"
    )


def _with_gpus(layout: Layout, gpus: tuple[str, ...]) -> Layout:
    return replace(layout, gpus=gpus)


def positions(path: Path, layout: Layout, header: Sequence[str]) -> dict[Field, int]:
    """Where each field stands in a row. Raises TraceUnreadable where two columns have its name."""
    places: dict[Field, int] = {}
    for name, column in layout.columns.items():
        fitting = _fitting(column, header, layout)
        if len(fitting) > 1:
            names = ",".join(layout.columns.values())
            raise TraceUnreadable(
                f"{path} names {_plain(column)} twice in its first line; it must name the columns "
                f"{names} once"
            )
        if fitting:
            places[name] = fitting[0]
    return places


def _missing(layout: Layout, header: Sequence[str]) -> list[str]:
    return [
        column
        for name, column in layout.columns.items()
        if name not in layout.optional and not _fitting(column, header, layout)
    ]


def _fitting(column: str, header: Sequence[str], layout: Layout) -> list[int]:
    exact = [at for at, name in enumerate(header) if name == column]
    return (
        exact
        if layout.is_mapped and len(exact) == 1
        else [at for at, name in enumerate(header) if _plain(name) == _plain(column)]
    )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())
