"""`gpu-tokens report`: /v1/costs as a table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from gpu_token_analytics.costs.answers import CostRow, CostsResponse, Money
from gpu_token_analytics.costs.answers.compared import ComparedResponse
from gpu_token_analytics.costs.answers.rates import ConvertedMoney, ConvertedResponse
from gpu_token_analytics.costs.rows import IDLE_COLUMNS
from gpu_token_analytics.terminal.console import Column, FittedTable
from gpu_token_analytics.terminal.support import NUSD, count, dollars, instant, percent, rate

NOBODY = {
    "model": "(no known request)",
    "tenant": "(no known request)",
    "host": "(unknown)",
    "gpu_name": "(unknown)",
}


def render(body: CostsResponse, limit: int, *, wide: bool = False) -> Group:
    """The table, the identity below it, and what to know about the figures."""
    rows = sorted(body.rows, key=lambda row: (row.bucket or "", -(row.money.total_nusd or 0)))
    shown = rows[:limit]
    title = f"{instant(body.from_)} to {instant(body.to)}" + (
        f", by {', '.join(body.group_by)}" if body.group_by else ""
    )
    parts: list[RenderableType] = [_table(title, shown, body, wide=wide)]
    if len(rows) > len(shown) or body.next:
        hidden = f"{len(rows) - len(shown):,} more rows" if not body.next else "More rows"
        parts.append(Text(f"{hidden}: raise --limit or use `gpu-tokens export`."))
    parts.append(Text(identity(body)))
    parts += [Text(note) for note in notes(body)]
    return Group(*parts)


def render_compared(body: ComparedResponse, limit: int, *, wide: bool = False) -> Group:
    """Both periods side by side, most money first."""
    columns = (
        *(Column(name, right=False) for name in body.group_by),
        Column("USD"),
        Column("before"),
        Column("change"),
        Column("%", 1),
        Column("tokens", 2),
        Column("tokens before", 3),
        Column("$/M active", 4),
        Column("before", 5),
    )
    title = (
        f"{instant(body.from_)} to {instant(body.to)}, before: {instant(body.before_from)} to "
        f"{instant(body.before_to)}"
    )
    made = FittedTable(title, columns, wide=wide)
    rows = sorted(body.rows, key=lambda row: -max(_total(row.money) or 0, _total(row.before) or 0))
    for row in [*rows[:limit], None]:
        item = body.totals if row is None else row
        names = [item.group.get(name) or NOBODY.get(name, "-") for name in body.group_by]
        if row is None:
            names = ["total", *[""] * (len(names) - 1)] if names else []
        made.add_row(
            *names,
            *map(dollars, (_total(item.money), _total(item.before), item.changed_nusd)),
            "-" if item.changed_share is None else f"{100 * item.changed_share:+.1f} %",
            count(item.tokens),
            count(item.tokens_before),
            rate(item.active_usd_per_million),
            rate(item.active_usd_per_million_before),
            style="bold" if row is None else None,
        )
    hidden = len(rows) - limit
    return Group(made, *([Text(f"{hidden:,} more rows: raise --limit.")] if hidden > 0 else []))


def render_converted(body: ConvertedResponse, limit: int) -> Group:
    """Money in another currency, with the rates and how it was rounded."""
    names = [Column(name, right=False) for name in body.group_by]
    money = [
        Column(body.currency),
        Column("attributed", 1),
        Column("idle", 2),
        Column("unmetered", 3),
    ]
    made = FittedTable(
        f"{instant(body.from_)} to {instant(body.to)}, in {body.currency}", [*names, *money]
    )
    rows = sorted(body.rows, key=lambda row: -row.money.total_nano)

    def cells(item: ConvertedMoney) -> list[str]:
        idle = item.total_nano - item.attributed_nano - item.unmetered_work_nano
        return [
            dollars(nano)
            for nano in (item.total_nano, item.attributed_nano, idle, item.unmetered_work_nano)
        ]

    for row in rows[:limit]:
        made.add_row(
            *(row.group.get(name) or NOBODY.get(name, "-") for name in body.group_by),
            *cells(row.money),
        )
    made.add_row(
        *(["total", *[""] * (len(names) - 1)] if names else []), *cells(body.totals), style="bold"
    )
    rates = [
        f"1 USD = {rate.units_per_usd} {body.currency} ({instant(rate.from_)} to "
        f"{instant(rate.to)})"
        for rate in body.rates
    ]
    return Group(made, *(Text(line) for line in (*rates, f"rounded: {body.rounding}")))


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


def _table(title: str, rows: list[CostRow], body: CostsResponse, *, wide: bool) -> FittedTable:
    groups = body.group_by
    first = ["from"] if body.bucket != "none" else []
    names_of = [Column(name, right=False) for name in (*first, *groups)]
    made = FittedTable(title, (*names_of, *_MONEY_COLUMNS, *_OTHER_COLUMNS), wide=wide)
    for row in [*rows, None]:
        item = body.totals if row is None else row
        bucket = [(item.bucket or "")[:16].replace("T", " ")] if first else []
        names = [item.group.get(name) or NOBODY.get(name, "-") for name in groups]
        if row is None:
            names = ["total", *[""] * (len(groups) - 1)] if groups else []
        money, ratio = item.money, item.rates
        made.add_row(
            *bucket,
            *names,
            dollars(money.total_nusd),
            dollars(money.attributed_nusd),
            dollars(sum(getattr(money, name) for name in IDLE_COLUMNS)),
            *(dollars(getattr(money, name)) for name in (*IDLE_COLUMNS, "unmetered_work_nusd")),
            count(item.tokens.total),
            count(item.requests),
            rate(ratio.tokens_per_second),
            *(
                rate(getattr(ratio, f"{name}_usd_per_million"))
                for name in ("active", "loaded", "input", "output")
            ),
            rate(ratio.joules_per_token),
            flags(item),
            style="bold" if row is None else None,
        )
    return made


def flags(row: CostRow) -> str:
    """Marks of a row: p provisional, c corrected, l low volume, d default price, u GPUs that are
    not known."""
    quality = row.quality
    marks = (
        ("p", quality.provisional),
        ("c", quality.corrected_cells),
        ("l", quality.low_volume),
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
            f"{body.scope.cells_not_rolled:,} cells changed and are not in the sums yet (seconds)"
        )
    if not body.rows:
        said.append(
            "nothing in this range: is the processor running? `gpu-tokens report --last 30d` looks "
            "further back"
        )
    return said
