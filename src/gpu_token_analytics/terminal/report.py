"""`gpu-tokens report`: /v1/costs as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from gpu_token_analytics.costs.answers import CostRow, CostsResponse, Money
from gpu_token_analytics.costs.answers.compared import ComparedResponse, ComparedRow
from gpu_token_analytics.costs.answers.rates import ConvertedMoney, ConvertedResponse
from gpu_token_analytics.costs.rows import IDLE_COLUMNS, ratio
from gpu_token_analytics.terminal.console import Column, FittedTable
from gpu_token_analytics.terminal.money import USD, Shown
from gpu_token_analytics.terminal.support import (
    NUSD,
    count,
    counted,
    dollars,
    instant,
    percent,
    rate,
)

NOBODY = {
    "model": "(no known request)",
    "tenant": "(no known request)",
    "host": "(unknown)",
    "gpu_name": "(unknown)",
    "team": "(no team)",
    "owner": "(no owner)",
    "cost_centre": "(no cost centre)",
}


def render(body: CostsResponse, limit: int, *, wide: bool = False) -> Group:
    """The table, the identity below it, and what to know about the figures."""
    rows = sorted(body.rows, key=lambda row: (row.bucket or "", -(row.money.total_nusd or 0)))
    shown = rows[:limit]
    more = None if body.row_count is None else body.row_count - len(shown)
    title = f"{instant(body.from_)} to {instant(body.to)}" + (
        f", by {', '.join(body.group_by)}" if body.group_by else ""
    )
    parts: list[RenderableType] = [_table(title, shown, body, more, wide=wide)]
    if more != 0:
        parts.append(Text(_HIDDEN.format("More rows" if more is None else f"{more:,} more rows")))
    parts.append(Text(identity(body)))
    parts += [Text(note) for note in notes(body)]
    return Group(*parts)


def render_compared(
    body: ComparedResponse, limit: int, shown: Shown = USD, *, wide: bool = False
) -> Group:
    """Both periods side by side, most money first, both at one rate."""
    columns = (
        *(Column(name, right=False) for name in body.group_by),
        Column(shown.code),
        Column("before"),
        Column("change"),
        Column("%", 1),
        Column("tokens", 2),
        Column("tokens before", 3),
        Column(f"{shown.per('M')} active", 4),
        Column("before", 5),
    )
    title = (
        f"{instant(body.from_)} to {instant(body.to)}, before: {instant(body.before_from)} to "
        f"{instant(body.before_to)}"
    )
    made = FittedTable(title, columns, wide=wide)
    rows = sorted(body.rows, key=lambda row: -max(_total(row.money) or 0, _total(row.before) or 0))
    for row in rows[:limit]:
        made.add_row(*_named(row.group, body.group_by), *_compared_cells(row, shown))
    hidden = rows[limit:]
    if hidden:
        now, before = (
            sum(filter(None, (_total(getattr(row, side)) for row in hidden)))
            for side in ("money", "before")
        )
        tokens = (sum(getattr(row, name) for row in hidden) for name in ("tokens", "tokens_before"))
        made.add_row(
            *_remark(more_rows(len(hidden)), body.group_by),
            *map(shown.amount, (now, before, now - before)),
            _change(ratio(now - before, before)),
            *map(count, tokens),
            *("", ""),
        )
    made.add_row(
        *_remark("total", body.group_by), *_compared_cells(body.totals, shown), style="bold"
    )
    said = [_HIDDEN.format(f"{len(hidden):,} more rows")] if hidden else []
    return Group(made, *map(Text, (*said, *shown.notes())))


def _compared_cells(item: ComparedRow, shown: Shown) -> list[str]:
    return [
        *map(shown.amount, (_total(item.money), _total(item.before), item.changed_nusd)),
        _change(item.changed_share),
        count(item.tokens),
        count(item.tokens_before),
        shown.ratio(item.active_usd_per_million),
        shown.ratio(item.active_usd_per_million_before),
    ]


def _change(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.1f} %"


def render_converted(body: ConvertedResponse, limit: int, *, wide: bool = False) -> Group:
    """Money in another currency, with the rates and how it was rounded."""
    columns = (
        *(Column(name, right=False) for name in body.group_by),
        Column(body.currency),
        Column("attributed", 1),
        Column("idle", 2),
        Column("unmetered", 3),
    )
    title = f"{instant(body.from_)} to {instant(body.to)}, in {body.currency}"
    made = FittedTable(title, columns, wide=wide)
    rows = sorted(body.rows, key=lambda row: -(row.money.total_nano or 0))
    for row in rows[:limit]:
        made.add_row(*_named(row.group, body.group_by), *map(dollars, _converted(row.money)))
    hidden = rows[limit:]
    if hidden:
        sums = map(_known_sum, zip(*(_converted(row.money) for row in hidden), strict=True))
        made.add_row(*_remark(more_rows(len(hidden)), body.group_by), *map(dollars, sums))
    made.add_row(
        *_remark("total", body.group_by), *map(dollars, _converted(body.totals)), style="bold"
    )
    rates = [
        f"1 USD = {rate.units_per_usd} {body.currency} ({instant(rate.from_)} to "
        f"{instant(rate.to)})"
        for rate in body.rates
    ]
    if len(rates) > 1:
        rates.append(
            "each hour is at the rate that held then; the page and other commands are at the last "
            "of these"
        )
    said = [_HIDDEN.format(f"{len(hidden):,} more rows")] if hidden else []
    return Group(made, *map(Text, (*said, *rates, f"rounded: {body.rounding}")))


def _converted(money: ConvertedMoney) -> tuple[int | None, int | None, int, int]:
    """All money, attributed, idle, unmetered."""
    idle = money.warm_idle_nano + money.cold_idle_nano + money.unobserved_nano
    return money.total_nano, money.attributed_nano, idle, money.unmetered_work_nano


def _known_sum(values: Iterable[int | None]) -> int | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


_HIDDEN = "{}, as one row: raise --limit or use `gpu-tokens export`."


def more_rows(more: int | None) -> str:
    """What the row of those that are not shown is called. None: nobody counted them."""
    return "more" if more is None else f"{more:,} more"


def _named(group: Mapping[str, str | None], group_by: Sequence[str]) -> list[str]:
    return [group.get(name) or NOBODY.get(name, "-") for name in group_by]


def _remark(text: str, columns: Sequence[object]) -> list[str]:
    """A text in the place of names."""
    return [text, *[""] * (len(columns) - 1)] if columns else []


def _total(money: Money | None) -> int | None:
    return 0 if money is None else money.total_nusd


_MONEY_COLUMNS = (
    Column("USD"),
    Column("attributed", 2),
    Column("idle", 3),
    Column("warm idle", 12),
    Column("cold idle", 13),
    Column("unobserved", 14),
    Column("unmetered", 7),
)
_OTHER_COLUMNS = (
    Column("tokens", 4),
    Column("requests", 6),
    Column("tok/s", 9),
    Column("$/M active", 1),
    Column("$/M loaded", 2),
    Column("$/M in", 10),
    Column("$/M out", 10),
    Column("J/token", 8),
    Column("", 5, right=False),
)


def _table(
    title: str, rows: list[CostRow], body: CostsResponse, more: int | None, *, wide: bool
) -> FittedTable:
    """more: how many rows are not shown; None: that is not known, some."""
    groups = body.group_by
    first = ["from"] if body.bucket != "none" else []
    names_of = [Column(name, right=False) for name in (*first, *groups)]
    made = FittedTable(title, (*names_of, *_MONEY_COLUMNS, *_OTHER_COLUMNS), wide=wide)
    for row in rows:
        bucket = [(row.bucket or "")[:16].replace("T", " ")] if first else []
        made.add_row(*bucket, *_named(row.group, groups), *_figures(row))
    if more != 0:
        made.add_row(*_remark(more_rows(more), names_of), *_rest(body.totals, rows))
    made.add_row(*_remark("total", names_of), *_figures(body.totals), style="bold")
    return made


def _figures(item: CostRow) -> list[str]:
    """The cells of a row behind its names."""
    ratio = item.rates
    return [
        *_sums(_additive(item)),
        rate(ratio.tokens_per_second),
        *(
            rate(getattr(ratio, f"{name}_usd_per_million"))
            for name in ("active", "loaded", "input", "output")
        ),
        rate(ratio.joules_per_token),
        flags(item),
    ]


def _rest(totals: CostRow, rows: list[CostRow]) -> list[str]:
    """What the total has besides these rows: what adds up, without ratios and marks."""
    left = _additive(totals)
    for row in rows:
        left = [
            None if rest is None else rest - (value or 0)
            for rest, value in zip(left, _additive(row), strict=True)
        ]
    texts = _sums(left)
    return [*texts, *[""] * (len(_MONEY_COLUMNS) + len(_OTHER_COLUMNS) - len(texts))]


def _additive(item: CostRow) -> list[int | None]:
    """What adds up to the total: money as _MONEY_COLUMNS, tokens, requests. None: not known."""
    money = item.money
    idle = [getattr(money, name) for name in IDLE_COLUMNS]
    return [
        money.total_nusd,
        money.attributed_nusd,
        sum(idle),
        *idle,
        money.unmetered_work_nusd,
        item.tokens.total,
        item.requests,
    ]


def _sums(values: Sequence[int | None]) -> list[str]:
    money, counts = values[: len(_MONEY_COLUMNS)], values[len(_MONEY_COLUMNS) :]
    return [*map(dollars, money), *(count(value or 0) for value in counts)]


def flags(row: CostRow) -> str:
    """Marks of a row: p provisional, c corrected, l low volume, d default price, u GPUs that are
    not known."""
    quality = row.quality
    marks = (
        ("p", quality.provisional),
        ("c", quality.corrected_cells),
        ("l", quality.low_volume and row.tokens.total),  # without tokens no rate stands there
        ("d", quality.default_price_nusd),
        ("u", quality.unknown_gpu_requests or quality.unknown_gpu_tokens),
    )
    return "".join(mark for mark, on in marks if on)


def identity(body: CostsResponse) -> str:
    """The promise, in figures."""
    money = body.totals.money
    if money.total_nusd is None or money.attributed_nusd is None:
        return "all of it ran on GPUs that nobody sampled or declared: what it cost is not known"
    idle = sum(getattr(money, name) for name in IDLE_COLUMNS)
    text = (
        f"attributed {money.attributed_nusd / NUSD:,.9f} + unmetered work "
        f"{money.unmetered_work_nusd / NUSD:,.9f} "
        f"+ idle {idle / NUSD:,.9f} = {money.total_nusd / NUSD:,.9f} USD"
    )
    left, whole = body.scope.left_out_nusd, body.scope.cost_nusd
    if left and whole is not None:
        return f"{text}; the filter leaves out {left / NUSD:,.9f} of {whole / NUSD:,.9f} USD"
    return f"{text} = price x owned time"


def notes(body: CostsResponse) -> list[str]:
    """What the reader should know."""
    quality = body.totals.quality
    said = (
        [f"coverage {percent(quality.coverage)} of the GPU time"]
        if quality.coverage is not None
        else []
    )
    if quality.memory_unknown_share:
        said.append(
            f"{percent(quality.memory_unknown_share)} of the GPU time is idle, classed without a "
            "memory reading (the driver "
            "gives none): warm for an hour after a request or while something runs, else cold"
        )
    if quality.provisional:
        said.append("p: provisional, newer events may still move money between rows")
    total = body.totals.money.total_nusd
    if quality.corrected_cells:
        said.append(
            f"c: changed after they were final, {counted(quality.corrected_cells, 'cell')}: "
            "GET /v1/ledger/corrections"
        )
    if any("l" in flags(row) for row in (*body.rows, body.totals)):
        said.append("l: fewer tokens than LOW_VOLUME_TOKENS, so rates say little")
    if quality.default_price_nusd:
        share = percent(quality.default_price_nusd / total) if total else "all"
        said.append(
            f"d: {quality.default_price_nusd / NUSD:,.6f} USD ({share}) at the default price, "
            "since no price row or sample "
            "names these GPUs: `gpu-tokens prices add --scope name --key NAME USD_PER_HOUR`"
        )
    if quality.unknown_gpu_requests or quality.unknown_gpu_tokens:
        said.append(
            f"u: {quality.unknown_gpu_requests:,} requests with {quality.unknown_gpu_tokens:,} "
            "tokens ran on GPUs that "
            "nobody sampled or declared, so their money is unknown: `gpu-tokens gpus list`"
        )
    if body.scope.cells_not_rolled:
        said.append(
            f"not in the sums yet (seconds): {counted(body.scope.cells_not_rolled, 'cell')} that "
            "changed"
        )
    if not body.rows:
        said.append(_why_empty(body))
    return said


def _why_empty(body: CostsResponse) -> str:
    if body.scope.left_out_nusd:
        return "nothing in this range is of these models, tenants or classes: leave a filter out"
    if body.from_ >= body.as_of:
        return f"this range has not begun: it is {instant(body.as_of)}"
    return (
        "nothing in this range: is the processor running? `gpu-tokens report --last 30d` looks "
        "further back"
    )
