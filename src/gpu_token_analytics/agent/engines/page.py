"""One look at an engine's page of metrics: the series that count tokens, by what they count and for
which model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gpu_token_analytics.agent.engines.names import NAMES, Choice, Tokens
from gpu_token_analytics.agent.engines.target import Role, Target
from gpu_token_analytics.agent.sources.exposition import Row, rows
from gpu_token_analytics.errors import SourceUnavailable

MOST_SERIES = 5_000  # that count tokens, of one engine
MOST_MODELS = 100
_PROCESS_START = "process_start_time_seconds"
_CREATED = "_created"
_LONGEST_MODEL = 256

# Which tokens of a request a worker of disaggregated serving has done. Both count the prompt.
_DONE_BY = {
    Role.PREFILL: {Tokens.PROMPT, Tokens.CACHED},
    Role.DECODE: {Tokens.COMPLETION},
    Role.UNIFIED: set(Tokens),
}


class SeriesKey(NamedTuple):
    """One series: what it counts, for which model, and all that tells it from others."""

    tokens: Tokens
    model: str
    name: str
    labels: tuple[tuple[str, str], ...]


@dataclass
class Page:
    """What stood on a page."""

    totals: dict[SeriesKey, float] = field(default_factory=dict)
    # when each began, Unix time, where it says so
    created: dict[SeriesKey, float] = field(default_factory=dict)
    started: float | None = None  # when the process began, Unix time

    def choices(self, tokens: Tokens) -> set[str]:
        """The names under which it has series of these tokens."""
        return {key.name for key in self.totals if key.tokens is tokens}


def read_page(
    text: str, target: Target, chosen: Mapping[Tokens, Choice] | None = None
) -> tuple[Page, dict[Tokens, Choice]]:
    """What counts tokens on a page, and by which choices (names.py) it was read. chosen: those of
    the look before, which hold as long as the page has a series of them: the same tokens under
    another name are not counted again.

    Raises SourceUnavailable with the engine, what is wrong and the fix.
    """
    names = NAMES[target.engine]
    text = _unquoted(text)
    known = list(_known_rows(text, target))
    held = dict(chosen or {})
    page = Page(started=_process_start(known))
    used: dict[Tokens, Choice] = {}
    for tokens, choices in names.tokens.items():
        asked = [*([held[tokens]] if tokens in held else []), *choices]
        choice = next(
            (choice for choice in asked if any(_series_of(known, choice))), held.get(tokens)
        )
        if choice is not None:
            used[tokens] = choice
            _add(page, tokens, choice, known, target)
    if len(page.totals) > MOST_SERIES:
        raise SourceUnavailable(
            f"{target}: {len(page.totals):,} series count tokens; at most {MOST_SERIES:,} are read"
        )
    models = {key.model for key in page.totals}
    if len(models) > MOST_MODELS:
        raise SourceUnavailable(
            f"{target}: it names {len(models)} models; at most {MOST_MODELS} of one engine are read"
        )
    if not page.totals and (names.eager or not _has_prefix(text, names.prefix)):
        raise SourceUnavailable(f"{target}: no counter of tokens is on its page; {names.hint}")
    return page, used


def _known_rows(text: str, target: Target) -> Iterator[Row]:
    """The rows that matter, names with `_` for `:`. Only their lines are parsed: a page has
    thousands of others."""
    wanted = {
        series.name
        for choices in NAMES[target.engine].tokens.values()
        for choice in choices
        for series in choice
    }
    bare = tuple(sorted({name.removesuffix("_sum") for name in wanted} | {_PROCESS_START}))
    lines = []
    for line in text.splitlines():
        name = line.removeprefix("# TYPE ").removeprefix("# HELP ").lstrip().replace(":", "_", 2)
        if name.startswith(bare):
            lines.append(line)
    fix = f"give the address of the engine itself: --engine {target.engine}=URL"
    for row in rows("\n".join([*lines, ""]), str(target), fix):
        name = row.name.replace(":", "_").removesuffix("_total")
        if name in wanted or name == _PROCESS_START or name.removesuffix(_CREATED) in wanted:
            yield Row(name, row.labels, row.value)


def _series_of(known: list[Row], choice: Choice) -> Iterator[Row]:
    for series in choice:
        yield from (row for row in known if row.name == series.name and series.holds(row.labels))


def _add(page: Page, tokens: Tokens, choice: Choice, known: list[Row], target: Target) -> None:
    for row in _series_of(known, choice):
        if tokens not in _DONE_BY[_role(row.labels, target)]:
            continue
        key = _key(tokens, row, target)
        if not math.isfinite(row.value) or row.value < 0:
            raise SourceUnavailable(
                f"{target}: {row.name} is {row.value}, which no counter of tokens is; look at its "
                "page"
            )
        page.totals[key] = page.totals.get(key, 0.0) + row.value
    for series in choice:
        # Of a histogram `x` the sum `x_sum` has the time `x_created`.
        created = series.name.removesuffix("_sum") + _CREATED
        for row in known:
            if (
                row.name == created
                and series.holds(row.labels)
                and tokens in _DONE_BY[_role(row.labels, target)]
            ):
                page.created[_key(tokens, Row(series.name, row.labels, 0.0), target)] = row.value


def _key(tokens: Tokens, row: Row, target: Target) -> SeriesKey:
    label = NAMES[target.engine].model
    model = target.model or (row.labels.get(label, "") if label else "")
    return SeriesKey(tokens, model[:_LONGEST_MODEL], row.name, tuple(sorted(row.labels.items())))


def _role(labels: Mapping[str, str], target: Target) -> Role:
    """What the operator says, else what the series does (`engine_type` of SGLang and
    TensorRT-LLM)."""
    if target.engine != "dynamo" and (
        labels.get("dynamo_namespace") or labels.get("dynamo_component")
    ):
        raise SourceUnavailable(
            f"{target}: it is a worker of Dynamo, whose frontend counts the same tokens; scrape "
            "that: --engine dynamo=URL"
        )
    if target.role is not Role.UNIFIED:
        return target.role
    kind = labels.get("engine_type", "").lower()
    return Role(kind) if kind in (Role.PREFILL, Role.DECODE) else Role.UNIFIED


def _process_start(known: list[Row]) -> float | None:
    """When the one process of the page began; a page of several (Ray's, of a node) does not say
    which began when."""
    times = [row.value for row in known if row.name == _PROCESS_START and math.isfinite(row.value)]
    return times[0] if len(times) == 1 else None


def _has_prefix(text: str, prefix: str) -> bool:
    lines = (line.removeprefix("# TYPE ").removeprefix("# HELP ") for line in text.splitlines())
    return any(line.replace(":", "_", 1).startswith(prefix) for line in lines)


def _unquoted(text: str) -> str:
    """Some builds of llama.cpp answer with the page as one JSON string."""
    if not text.lstrip().startswith('"'):
        return text
    try:
        page = json.loads(text)
    except ValueError:
        return text
    return page if isinstance(page, str) else text
