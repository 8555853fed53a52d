"""Draws docs/images/cost-model.svg: the golden example of docs/cost-model.md, as the ledger
computes it.

    .venv/bin/python docs/cost_model_picture.py      write the picture
A test keeps picture and ledger equal. Plain SVG text: no drawing library for one picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_token_analytics.documents import US_PER_MINUTE, US_PER_SECOND
from gpu_token_analytics.ledger.cells import compute_cells
from gpu_token_analytics.ledger.computed import CellContent
from gpu_token_analytics.ledger.inputs import CellInput, GpuInput, Samples
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.placements import Placements
from gpu_token_analytics.ledger.prices import PriceMode, PricePiece
from gpu_token_analytics.ledger.requests import Requests, UsageRows

PICTURE = Path(__file__).parent / "images" / "cost-model.svg"

GPU = "GPU-1f"
START_US = 29_454_480 * US_PER_MINUTE  # any minute
NUSD_PER_HOUR = 3_600_000_000
SLICE_S = 10

LEFT, RIGHT, PER_SECOND = 140, 572, 7.2
INK, MUTED, GRID = "#1f2933", "#52606d", "#d9e0e6"
COLOURS = {"r0": "#2f6fb0", "r1": "#d9822b", "idle": "#c3ccd5"}


def request(name: str, start_s: int, end_s: int, prompt: int, completion: int) -> dict[str, Any]:
    """A document of `token_usage`, the fields the ledger reads."""
    return {
        "_id": name,
        "host": "gpu-host-1",
        "model": "llama-3-70b",
        "tenant": "search",
        "gpus": [GPU],
        "start_us": START_US + start_s * US_PER_SECOND,
        "latency_ms": (end_s - start_s) * 1000,
        "ts_us": START_US + end_s * US_PER_SECOND,
        "prompt_tokens": prompt,
        "cached_tokens": 0,
        "completion_tokens": completion,
        "reasoning_tokens": 0,
    }


REQUESTS = [request("r0", 0, 30, 220, 250), request("r1", 20, 40, 100, 400)]


def cells_of(size_s: int) -> Sequence[CellContent]:
    """The minute in cells of `size_s` seconds. The GPU holds a model all along, its samples come
    every 5 s."""
    params = LedgerParams(cell_us=size_s * US_PER_SECOND)
    starts = range(START_US, START_US + US_PER_MINUTE, params.cell_us)
    inputs = [
        CellInput(
            at, at + params.cell_us, [PricePiece(at, "default", NUSD_PER_HOUR, PriceMode.ON_DEMAND)]
        )
        for at in starts
    ]
    samples = [
        {
            "_id": f"s{at:02d}",
            "ts_us": START_US + at * US_PER_SECOND,
            "utilization": None,
            "mem_used_mb": 70_000.0,
        }
        for at in range(0, 60, 5)
    ]
    requests = Requests.of(UsageRows.of(REQUESTS), GPU, Placements(), params.cell_us)
    (found,) = compute_cells(
        [GpuInput(inputs, requests, Samples.of(samples))], params, with_shares=True
    )
    return found


def parts_of(cell: CellContent) -> list[tuple[str, int]]:
    """(who, nano-USD) of a cell; their sum is the cell's money."""
    idle = cell.classes["warm_idle"]
    parts = [(str(REQUESTS[share.request]["_id"]), share.cost_nusd) for share in cell.shares]
    found = [*parts, ("idle", idle)] if idle else parts
    assert sum(cost for _, cost in found) == cell.cost_nusd
    return found


def draw() -> str:
    """The whole picture."""
    (minute,) = cells_of(60)
    totals = dict(parts_of(minute))
    body = [*_axis(), *_requests(), *_money(cells_of(SLICE_S)), *_totals(totals, minute.cost_nusd)]
    title = "One minute of one GPU at 3.60 USD an hour: what each request costs, and what is idle"
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 350" role="img" '
            f'font-family="Helvetica, Arial, sans-serif" font-size="13" fill="{INK}">',
            f"<title>{title}</title>",
            '<rect width="800" height="350" fill="#ffffff"/>',
            _text(LEFT - 120, 24, title, size=15, weight="bold"),
            *body,
            "</svg>\n",
        ]
    )


def _requests() -> list[str]:
    found = []
    for row, doc in enumerate(REQUESTS):
        begin, end = ((doc[key] - START_US) / US_PER_SECOND for key in ("start_us", "ts_us"))
        work = doc["prompt_tokens"] + 4 * doc["completion_tokens"]
        top = 48 + row * 34
        found.append(_rect(_x(begin), top, (end - begin) * PER_SECOND, 24, COLOURS[doc["_id"]]))
        found.append(
            _text(
                _x(begin) + 8,
                top + 17,
                f"{doc['_id']}: work {work:,} in {end - begin:.0f} s",
                size=12,
                fill="#ffffff",
            )
        )
    found.append(_text(LEFT - 12, 65, "requests", anchor="end", fill=MUTED))
    return found


def _money(slices: Sequence[CellContent]) -> list[str]:
    """What each 10 s cost, stacked by who pays: heights are nano-USD the ledger computed."""
    top, height = 130, 120
    found = [
        _text(LEFT - 12, top + 16, "10,000,000 nUSD", anchor="end", fill=MUTED),
        _text(LEFT - 12, top + 32, "every 10 s,", anchor="end", fill=MUTED),
        _text(LEFT - 12, top + 48, "shared by work", anchor="end", fill=MUTED),
    ]
    for cell in slices:
        begin, low = (cell.start_us - START_US) / US_PER_SECOND, float(top + height)
        for who, cost in parts_of(cell):
            tall = height * cost / cell.cost_nusd
            low -= tall
            found.append(_rect(_x(begin), low, SLICE_S * PER_SECOND, tall, COLOURS[who]))
            if cost < cell.cost_nusd:
                middle = _x(begin) + SLICE_S * PER_SECOND / 2
                found.append(
                    _text(
                        middle,
                        low + tall / 2 + 4,
                        f"{cost:,}",
                        size=11,
                        anchor="middle",
                        fill="#ffffff",
                    )
                )
    return found


def _totals(totals: dict[str, int], whole: int) -> list[str]:
    found = [_text(RIGHT + 20, 146, "the minute, in nano-USD", fill=MUTED)]
    names = {"r0": "r0", "r1": "r1", "idle": "warm idle"}
    for row, (who, name) in enumerate(names.items()):
        top = 166 + row * 22
        found.append(_rect(RIGHT + 20, top - 11, 12, 12, COLOURS[who]))
        found.append(_text(RIGHT + 40, top, name))
        found.append(_text(RIGHT + 208, top, f"{totals[who]:,}", anchor="end"))
    found.append(f'<line x1="{RIGHT + 20}" y1="222" x2="{RIGHT + 208}" y2="222" stroke="{INK}"/>')
    found.append(_text(RIGHT + 20, 240, "price x time", weight="bold"))
    found.append(_text(RIGHT + 208, 240, f"{whole:,}", anchor="end", weight="bold"))
    return found


def _axis() -> list[str]:
    found = []
    for second in range(0, 61, 10):
        found.append(
            f'<line x1="{_x(second):g}" y1="44" x2="{_x(second):g}" y2="258" stroke="{GRID}" '
            'stroke-dasharray="2 3"/>'
        )
        found.append(_text(_x(second), 276, f"{second} s", anchor="middle", fill=MUTED))
    notes = [
        (
            "0-20 s: r0 is alone and pays all of it. 20-30 s: both are active and share by work "
            "rate, 40.7 to 85.0 a second."
        ),
        (
            "30-40 s: r1 is alone. 40-60 s: nobody works; the model still fills the memory, so "
            "this money is warm idle."
        ),
    ]
    found += [_text(LEFT - 120, 308 + 20 * row, note, fill=MUTED) for row, note in enumerate(notes)]
    return found


def _x(second: float) -> float:
    return LEFT + second * PER_SECOND


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{fill}" '
        'stroke="#ffffff"/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 13,
    anchor: str = "start",
    fill: str = INK,
    weight: str = "normal",
) -> str:
    style = f'font-size="{size}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}"'
    return f'<text x="{x:.2f}" y="{y:.2f}" {style}>{text}</text>'


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw())
