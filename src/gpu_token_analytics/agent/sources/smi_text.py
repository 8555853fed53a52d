"""The texts of nvidia-smi, as values. Pure: text in, readings out.

    parse_gpus()        --query-gpu=... --format=csv[,nounits]    one row per GPU, a header that
                        names the columns
    parse_slices()      -L                                        UUID and profile of each MIG slice
    parse_slice_memory() -q                                       memory of each MIG slice

Columns are found by name: their set and order differ by driver. What the tool writes in place of a
value it does not have is unknown (None), in every spelling: empty, N/A, [N/A], [Not Supported],
[Insufficient Permissions], [Unknown Error], "Requested functionality has been deprecated", with or
without brackets.

Both streams of the tool come as one text, so anything may stand before, between and after the rows:
lines of the dynamic loader, of the kernel, of a login banner. The header is found by its names;
after it a line is a row when it has as many values as the header has columns, or says who it is
(index and UUID where they belong). A row whose number of values is another one is a malformed row,
never read shifted: a locale's decimal comma would make 110 W and 23 C of 110.23 W.
"""

from __future__ import annotations

import csv
import re
from typing import NamedTuple

from gpu_token_analytics.agent.readings import (
    MIB,
    GpuProblem,
    GpuReading,
    Problem,
    Reading,
    mig_profile,
)
from gpu_token_analytics.units import MAX_GPU_INDEX
from gpu_token_analytics.wire.names import canonical_gpu

FIELDS = (
    "index",
    "uuid",
    "pci.bus_id",
    "mig.mode.current",
    "utilization.gpu",
    "memory.total",
    "memory.used",
    "power.draw",
    "temperature.gpu",
    "name",
)

_LONGEST_TEXT = 128  # what an event takes as an id
# the first one known counts
_POWER_FIELDS = ("power.draw", "power.draw.average", "power.draw.instant")
_KNOWN = frozenset({*FIELDS, *_POWER_FIELDS})
_HEADER_CELL = re.compile(r"(?P<field>[^\s\[]+)\s*(?:\[(?P<unit>[^\]]*)\])?")
_VALUE = re.compile(r"(?P<number>[+-]?\d+(?:\.\d+)?)\s*(?P<unit>[^\s\d].*)?", re.ASCII)
_ABSENT = frozenset(
    {
        "",
        "n/a",
        "not supported",
        "insufficient permissions",
        "unknown error",
        "requested functionality has been deprecated",
        "function not found",
        "not available",
        "err!",
        "no data",
    }
)
_WHOLE_GPU = {
    "gpu is lost": Problem.LOST,
    "gpu requires reset": Problem.RESET_REQUIRED,
    "gpu requires restart": Problem.RESET_REQUIRED,
}
# How many of the tool's units make one of ours (division keeps 57 % at 0.57, as NVML's does).
_DIVISORS: dict[str, dict[str, float]] = {
    "%": {"%": 100},
    # drivers before 300 wrote MB for MiB
    "MiB": {"MiB": 1, "KiB": 1024, "GiB": 1 / 1024, "bytes": MIB, "MB": 1},
    "W": {"W": 1, "mW": 1000},
    "C": {"C": 1},
}
_IDENTITY = {"index": re.compile(r"\d{1,4}", re.ASCII), "uuid": re.compile(r"(?:GPU|MIG)-\S+")}
_LIST_GPU = re.compile(r"GPU (?P<index>\d+): .*\(UUID: (?P<uuid>[^)]+)\)")
_LIST_SLICE = re.compile(
    r"\s+MIG (?P<profile>.+?)\s+Device\s+(?P<place>\d+):\s+\(UUID: (?P<uuid>[^)]+)\)"
)
# "... GPU1: 0000:34:00.0: Unknown Error", "... GPU 0000:0B:00.0: GPU is lost. Reboot ...", "... GPU
# 0: Unknown Error"
_LOST_DEVICE = re.compile(
    r"Unable to determine the device handle for GPU\s*(?:(?P<index>\d+):\s+)?"
    r"(?:(?P<bus>[0-9A-F]{3,8}:[0-9A-F]{2}:[0-9A-F]{2}\.\d+):\s*)?(?P<why>.*)",
    re.IGNORECASE,  # "for gpu" in drivers before 460
)


class MigSlice(NamedTuple):
    """A MIG slice as `-L` lists it. `place` is its device number on the card."""

    parent_uuid: str
    place: int
    uuid: str
    profile: str | None


class GpuRow(NamedTuple):
    """One row of the query: what it says, and whether the card is split into MIG slices."""

    reading: Reading
    mig_enabled: bool = False
    bus_id: str | None = None  # as short_bus_id() writes it


def parse_gpus(text: str) -> list[GpuRow]:
    """The rows of `--query-gpu`. Raises ValueError when there is no header that names a known
    column."""
    # Line by line: a stray quote in one row must not swallow the rows after it.
    table = [
        _cells(line)
        for line in text.replace("\0", "").replace("\ufeff", "").splitlines()
        if line.strip()
    ]
    # A banner, too, may have such a word between its commas: the header is the line that names the
    # most.
    heading = max(
        range(len(table)),
        key=lambda line: len(_KNOWN.intersection(_fields(table[line]))),
        default=0,
    )
    fields = _fields(table[heading]) if table else []
    if not _IDENTITY.keys() & set(fields):
        raise ValueError(f"no header with index or uuid in {text.strip()[:80]!r}")
    header = table[heading]
    columns = zip(fields, map(_HEADER_CELL.fullmatch, header), strict=True)
    units = {field: column["unit"] for field, column in columns if column and column["unit"]}
    rows = [cells for cells in table[heading + 1 :] if cells != header and _is_row(cells, fields)]
    return [_parse_row(cells, fields, units, number) for number, cells in enumerate(rows)]


def _fields(header: list[str]) -> list[str]:
    """The names of a header's columns, "" where a cell is none."""
    columns = map(_HEADER_CELL.fullmatch, header)
    return [column["field"].lower() if column else "" for column in columns]


def _cells(line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]
    except csv.Error:  # longer than the reader takes: no row of this tool
        return [line]


def _is_row(cells: list[str], fields: list[str]) -> bool:
    """Whether a line after the header is meant as a row; messages stand between rows on the same
    stream."""
    identities = [
        (cell, _IDENTITY[field])
        for field, cell in zip(fields, cells, strict=False)
        if field in _IDENTITY
    ]
    if len(cells) != len(fields):
        return any(pattern.fullmatch(cell) for cell, pattern in identities)
    return len(fields) > 1 or all(
        pattern.fullmatch(cell) or _bare(cell) in _ABSENT for cell, pattern in identities
    )


def parse_lost(text: str) -> list[GpuProblem]:
    """GPUs that the tool could not open ("Unable to determine the device handle for GPU...")."""
    # a time or a tag may stand before it
    matches = (_LOST_DEVICE.search(line.strip()) for line in text.splitlines())
    return [
        GpuProblem(
            match["bus"] or f"index {match['index'] or 'unknown'}",
            _reason_of(match["why"]),
            match[0][:200],
        )
        for match in matches
        if match
    ]


def parse_cards(text: str) -> list[str]:
    """The UUIDs of the GPUs in `nvidia-smi -L`, those that it can open."""
    cards = (_LIST_GPU.match(line) for line in text.splitlines())
    return [card["uuid"] for card in cards if card]


def parse_slices(text: str) -> list[MigSlice]:
    """The MIG slices of `nvidia-smi -L`, each with the UUID of its card."""
    slices: list[MigSlice] = []
    parent = ""
    for line in text.splitlines():
        if card := _LIST_GPU.match(line):
            parent = card["uuid"]
        elif (listed := _LIST_SLICE.match(line)) and parent:
            slices.append(
                MigSlice(
                    parent,
                    int(listed["place"]),
                    canonical_gpu(listed["uuid"]),
                    mig_profile(listed["profile"]),
                )
            )
    return slices


def parse_slice_memory(text: str) -> dict[tuple[str, int], tuple[float | None, float | None]]:
    """(card UUID, slice number) -> (used, total) in MiB, from the report of `nvidia-smi -q`.

    The report names the card's UUID after its slices, so they are kept until it comes.
    """
    memories: dict[tuple[str, int], tuple[float | None, float | None]] = {}
    waiting: dict[int, dict[str, float | None]] = {}
    place: int | None = None
    section = ""
    for line in text.splitlines():
        key, colon, value = (part.strip() for part in line.partition(" : "))
        indent = len(line) - len(line.lstrip())
        if not colon:
            section = key
            if indent <= 4:
                place = None
            if key.startswith("GPU ") and indent == 0:
                waiting = {}
        elif key == "Index" and section == "MIG Device":
            place = int(value) if value.isdigit() else None
        elif place is not None and section.endswith("FB Memory Usage") and key in ("Used", "Total"):
            waiting.setdefault(place, {})[key] = _number(value, "MiB", None)
        elif key == "GPU UUID":
            memories |= {
                (value, number): (memory.get("Used"), memory.get("Total"))
                for number, memory in waiting.items()
            }
            waiting = {}
    return memories


def _parse_row(cells: list[str], fields: list[str], units: dict[str, str], number: int) -> GpuRow:
    if len(cells) != len(fields):
        named = next((cell for cell in cells if _IDENTITY["uuid"].fullmatch(cell)), f"row {number}")
        message = (
            f"row {number} has {len(cells)} values for {len(fields)} columns (decimal commas?): "
            f"{', '.join(cells)[:80]}"
        )
        return GpuRow(GpuProblem(named[:_LONGEST_TEXT], Problem.MALFORMED, message))
    row = dict(zip(fields, cells, strict=True))
    uuid, index = _text(row.get("uuid")), _text(row.get("index"))
    values = [
        row.get(field, "")
        for field in ("utilization.gpu", "memory.total", "memory.used", "power.draw")
    ]
    for value in values:
        problem = _WHOLE_GPU.get(_bare(value))
        if problem is not None:
            return GpuRow(
                GpuProblem(uuid or f"index {index or number}", problem, f"nvidia-smi says {value}")
            )

    if index and not _IDENTITY["index"].fullmatch(index):
        message = f"row {number}: index {index[:40]!r} is not a number"
        return GpuRow(GpuProblem(uuid or f"row {number}", Problem.MALFORMED, message))
    # a decimal comma, and as many columns as before: the row is cut off, too
    if _VALUE.fullmatch(row.get("name", "")):
        message = (
            f"row {number}: name {row['name'][:40]!r} is a number (decimal commas?): "
            f"{', '.join(cells)[:80]}"
        )
        return GpuRow(GpuProblem(uuid or f"row {number}", Problem.MALFORMED, message))

    def value_of(field: str, dimension: str) -> float | None:
        return _number(row[field], dimension, units.get(field)) if field in row else None

    reading = GpuReading(
        gpu_index=min(int(index) if index else number, MAX_GPU_INDEX),
        gpu_uuid=uuid,
        name=_text(row.get("name")),
        utilization=value_of("utilization.gpu", "%"),
        mem_used_mb=value_of("memory.used", "MiB"),
        mem_total_mb=value_of("memory.total", "MiB"),
        power_w=next(
            (watts for field in _POWER_FIELDS if (watts := value_of(field, "W")) is not None), None
        ),
        temperature_c=value_of("temperature.gpu", "C"),
    )
    return GpuRow(
        reading, row.get("mig.mode.current") == "Enabled", short_bus_id(row.get("pci.bus_id", ""))
    )


def short_bus_id(text: str) -> str | None:
    """A PCI bus id with its domain as a plain number: the tool writes 0000:34:00.0 and
    00000000:34:00.0 for one device."""
    domain, colon, rest = text.strip().lower().partition(":")
    return (
        f"{int(domain, 16):x}:{rest}" if colon and re.fullmatch("[0-9a-f]{1,8}", domain) else None
    )


def _number(text: str, dimension: str, header_unit: str | None) -> float | None:
    """The value in our unit; None for every way of saying that there is none, and for units that
    are not known."""
    match = None if _bare(text) in _ABSENT else _VALUE.fullmatch(text)
    if match is None:
        return None
    divisor = _DIVISORS[dimension].get((match["unit"] or header_unit or dimension).strip())
    return None if divisor is None else float(match["number"]) / divisor


def _text(cell: str | None) -> str | None:
    return (
        None
        if cell is None or _bare(cell) in _ABSENT or _bare(cell) in _WHOLE_GPU
        else cell[:_LONGEST_TEXT]
    )


def _bare(cell: str) -> str:
    return cell.strip().removeprefix("[").removesuffix("]").strip().lower()


def _reason_of(message: str) -> Problem:
    return next(
        (problem for words, problem in _WHOLE_GPU.items() if words in message.lower()), Problem.LOST
    )
