"""The ledger a second time, from its specification (docs/cost-model.md), to judge the first by.

Plain Python and rational numbers: no numpy, no running sums, nothing imported from the package. It is obvious on purpose, and
slow: 0.15 s for a cell of 300 requests. What requests share is kept in integers of 1e-45 nano-USD, since sums of hundreds of
fractions would have denominators of thousands of digits. Input is what the store holds: documents of `token_usage`,
`gpu_metrics` and `prices`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any

HOUR_US = 3_600_000_000
MINUTE_US = 60_000_000
MJ_PER_KWH = 3_600_000_000
MAX_POWER_W = 100_000
COUNTER_RATIO = 30
CLASSES = ("attributed", "unmetered_work", "warm_idle", "cold_idle", "unobserved")
METHODS = ("sweep", "sweep_no_ttft", "window", "unknown_gpu")
TINY = 10**45  # parts of a unit in which shares are summed
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Doc = Mapping[str, Any]


@dataclass(frozen=True)
class OracleParams:
    """The ledger's parameters. weights: model -> (input, cached, output); `*` is the default of all models."""

    gap_us: int = 30_000_000
    model_loaded_mb: float = 1024.0
    model_kept_us: int = HOUR_US
    cell_us: int = MINUTE_US
    weights: Mapping[str, tuple[float, float, float]] = field(default_factory=lambda: {"*": (1.0, 0.1, 4.0)})


@dataclass(frozen=True)
class OracleCard:
    """MIG: parts of `denominator` that the slice has, or that the card's slices have together with each other."""

    denominator: int = 7
    slice_parts: int | None = None
    child_parts: tuple[int, ...] = ()


@dataclass
class OracleRequest:
    """One request in one cell. `quota` is its cost before rounding; `cost` after."""

    event_id: str
    model: str
    tenant: str
    method: str
    quota: Fraction = Fraction(0)
    prefill_quota: Fraction = Fraction(0)
    cost: int = 0
    energy_mj: Fraction = Fraction(0)
    busy_us: int = 0
    tokens: tuple[int, int, int, int] = (0, 0, 0, 0)  # prompt, cached, completion, reasoning
    ends_here: bool = False


@dataclass
class OracleCell:
    """What one cell must say."""

    start_us: int
    owned_us: int
    cost_nusd: int
    classes: dict[str, int]
    class_us: dict[str, int]
    memory_unknown_us: int  # of warm and cold idle, classed without a reading of the memory
    exact_classes: dict[str, Fraction]  # price x time (and energy) of each class, before any rounding
    energy_mj: Fraction | None
    energy_observed_us: int
    samples: int
    requests: dict[str, OracleRequest]

    def lines(self) -> list[dict[str, Any]]:
        """By model, tenant, method; `cost_nusd` and `prefill` as rationals before rounding."""
        found: dict[tuple[str, str, int], dict[str, Any]] = {}
        for request in self.requests.values():
            key = (request.model, request.tenant, METHODS.index(request.method))
            line = found.setdefault(
                key,
                {
                    "model": request.model,
                    "tenant": request.tenant,
                    "method": request.method,
                    "members": 0,
                    "requests": 0,
                    "prompt_tokens": 0,
                    "cached_tokens": 0,
                    "completion_tokens": 0,
                    "reasoning_tokens": 0,
                    "cost_nusd": Fraction(0),
                    "prefill_cost_nusd": Fraction(0),
                    "energy_mj": Fraction(0),
                    "busy_us": 0,
                },
            )
            line["members"] += 1
            line["requests"] += request.ends_here
            names = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
            for name, count in zip(names, request.tokens, strict=True):
                line[name] += count
            line["cost_nusd"] += request.quota
            line["prefill_cost_nusd"] += request.prefill_quota
            line["energy_mj"] += request.energy_mj
            line["busy_us"] += request.busy_us
        return [found[key] for key in sorted(found)]


def oracle_cells(
    gpu: str,
    cells: Sequence[tuple[int, int]],
    usages: Iterable[Doc],
    samples: Iterable[Doc],
    prices: Iterable[Doc],
    params: OracleParams | None = None,
    *,
    meanings: Mapping[str, str] | None = None,
    priced_as: str | None = None,
    host: str | None = None,
    gpu_name: str | None = None,
    card: OracleCard | None = None,
    known: bool = True,
) -> list[OracleCell]:
    """The cells [start_us, until_us) of one GPU.

    meanings: label -> the GPU it means; any other name stands for itself. priced_as: the card of a MIG slice. known: whether it
    was sampled or declared; else requests are there with their tokens, and there is no money, and no time that anybody owns.
    """
    params = params or OracleParams()
    meant = meanings or {}
    by_id = {doc["_id"]: doc for doc in usages}
    on_gpu = [by_id[key] for key in sorted(by_id) if gpu in _gpus(by_id[key], meant)]
    found = sorted({doc["_id"]: doc for doc in samples}.values(), key=lambda doc: (doc["ts_us"], doc["_id"]))
    work = [_Work(doc, _gpus(doc, meant), gpu, params) for doc in on_gpu]
    book = _Book(list(prices), priced_as or gpu, host, gpu_name, found)
    whole = [_cell(start, until, work, found, book, params, card) for start, until in cells]
    return whole if known else [_without_money(cell) for cell in whole]


def meaning(name: str, known: Iterable[str]) -> str:
    """The GPU that a name means, of names that were sampled or declared; itself where none or more than one fits."""
    names = set(known)
    if name in names:
        return name
    fitting = [other for other in names if _is_spelling(name, other) or _is_spelling(other, name)]
    return fitting[0] if len(fitting) == 1 else name


def _is_spelling(short: str, long: str) -> bool:
    """Whether `short` is the host without its domain, or the beginning of the UUID, of `long`."""
    if "/" in short or "/" in long:
        if "/" not in short or "/" not in long:
            return False
        (host, index), (other, other_index) = short.rsplit("/", 1), long.rsplit("/", 1)
        is_address = other.split(".")[-1].isdigit()
        return index == other_index and "." not in host and other.startswith(host + ".") and not is_address
    bare, other = short.removeprefix("GPU-").removeprefix("MIG-"), long.removeprefix("GPU-").removeprefix("MIG-")
    kinds = {name[:3] for name in (short, long) if name[:4] in ("GPU-", "MIG-")}
    is_hexadecimal = all(digit in "0123456789abcdef-" for digit in bare + other) and "-" not in bare[:8]
    return len(kinds) < 2 and len(bare) >= 8 and is_hexadecimal and other.startswith(bare)


def hosts_of_shared(samples: Iterable[Doc], gap_us: int) -> dict[str, set[str]]:
    """UUID -> its hosts, of UUIDs that were sampled on two hosts at once: one of another host within the gap limit after one
    of a host and before the next of that host. A host with its domain and without is one."""
    by_uuid: dict[str, list[Doc]] = {}
    for doc in samples:
        by_uuid.setdefault(doc["gpu"], []).append(doc)

    def other(host: str, second: str) -> bool:
        return not (host == second or host.startswith(second + ".") or second.startswith(host + "."))

    return {
        uuid: {doc["host"] for doc in own}
        for uuid, own in by_uuid.items()
        if any(
            first["host"] == last["host"]
            and other(first["host"], middle["host"])
            and 0 < middle["ts_us"] - first["ts_us"] < gap_us
            and 0 < last["ts_us"] - middle["ts_us"] < gap_us
            for middle in own
            for first in own
            for last in own
        )
    }


def on_cards(docs: Iterable[Doc], hosts: Mapping[str, set[str]]) -> list[Doc]:
    """Requests with the card that they mean by a UUID that several cards have: the one on their own host, if there is one."""

    def card(name: str, host: str) -> str:
        return f"{host}/{name}" if host in hosts.get(name, ()) else name

    return [{**doc, "cards": {name: card(name, doc["host"]) for name in doc["gpus"]}} for doc in docs]


def round_half_up(value: Fraction) -> int:
    """The nearest integer, a half upwards."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def split(total: int, weights: Sequence[Fraction | int]) -> list[int]:
    """Largest remainder (Hamilton): `total` in proportion to weights, equal remainders to the earlier one."""
    whole = Fraction(sum(weights))
    if whole == 0:
        return [total] + [0] * (len(weights) - 1) if weights else []
    quotas = [Fraction(weight) * total / whole for weight in weights]
    parts = [quota.numerator // quota.denominator for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda i: (parts[i] - quotas[i], i))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts


# -- prices --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Price:
    row: str
    nusd_per_hour: int
    mode: str
    energy_nusd_per_kwh: int


class _Book:
    """Which price holds when: gpu > host > name > the sample's own > default; the row that began last, then written last."""

    def __init__(self, rows: list[Doc], gpu: str, host: str | None, name: str | None, samples: list[Doc]) -> None:
        self._scopes = [("gpu", gpu), ("host", host), ("name", name)]
        self._rows = rows
        self._samples = samples

    def at(self, at_us: int) -> _Price:
        for scope, key in self._scopes:
            row = self._latest([row for row in self._rows if row["scope"] == scope and row["key"] == key], at_us)
            if row is not None:
                return row
        own = [doc.get("price_per_hour_usd") for doc in self._samples if doc["ts_us"] <= at_us]
        if own and own[-1] is not None:
            return _Price("sample", _nusd(own[-1]), "on_demand", 0)
        row = self._latest([row for row in self._rows if row["scope"] == "default"], at_us)
        return row or _Price("none", 0, "on_demand", 0)

    def pieces(self, start_us: int, until_us: int) -> list[tuple[int, int, _Price]]:
        """(from, to, price), neighbours that say the same joined."""
        cuts = {start_us, *(_us(row["valid_from"]) for row in self._rows), *(doc["ts_us"] for doc in self._samples)}
        cuts |= {_us(row["valid_to"]) for row in self._rows if row.get("valid_to") is not None}
        found: list[tuple[int, int, _Price]] = []
        for at in sorted(cut for cut in cuts if start_us <= cut < until_us):
            price = self.at(at)
            if not found or found[-1][2] != price:
                found.append((at, until_us, price))
        return [
            (begin, found[i + 1][0] if i + 1 < len(found) else until_us, price) for i, (begin, _, price) in enumerate(found)
        ]

    @staticmethod
    def _latest(rows: list[Doc], at_us: int) -> _Price | None:
        valid = [
            row
            for row in rows
            if _us(row["valid_from"]) <= at_us and (row.get("valid_to") is None or at_us < _us(row["valid_to"]))
        ]
        if not valid:
            return None
        row = max(valid, key=lambda row: (row["valid_from"], row.get("created_at") or EPOCH, row["_id"]))
        per_kwh = float(row["usd_per_kwh"] or 0) * float(row.get("pue") or 1) if row.get("usd_per_kwh") is not None else 0.0
        priced = row["mode"] == "owned"
        return _Price(str(row["_id"]), _nusd(row["usd_per_hour"]), row["mode"], round(per_kwh * 1e9) if priced else 0)


def _nusd(usd: object) -> int:
    return round(Fraction(str(usd)) * 10**9)


def _us(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


# -- usage ---------------------------------------------------------------------------------------------------------------


def _gpus(doc: Doc, meanings: Mapping[str, str]) -> list[str]:
    """The distinct GPUs of a usage, in the order of their names: two names of one GPU are one GPU."""
    cards = doc.get("cards", {})
    return list(dict.fromkeys(meanings.get(name, cards.get(name, name)) for name in sorted(set(doc["gpus"]))))


class _Work:
    """One usage event as work on this GPU: (from, to, work per microsecond, is prefill) segments."""

    def __init__(self, doc: Doc, gpus: list[str], gpu: str, params: OracleParams) -> None:
        self.doc = doc
        self.rank = gpus.index(gpu)
        self.count = len(gpus)
        self.start, self.end = doc["start_us"], doc["ts_us"]
        latency, ttft = doc.get("latency_ms"), doc.get("ttft_ms")
        self.first: int | None = doc.get("first_us")
        if self.first is None and latency is not None and ttft is not None:
            self.first = doc["ts_us"] - round((latency - ttft) * 1000)
        if self.first is not None and not self.start < self.first < self.end:
            self.first = None
        self.method = "sweep_no_ttft" if self.first is None else "sweep"
        if doc.get("latency_ms") is None:
            self.method, self.first = "window", None
            self.start = doc["ts_us"] // params.cell_us * params.cell_us
            self.end = self.start + params.cell_us
        a_in, a_cached, a_out = (Fraction(a) for a in params.weights.get(doc["model"], params.weights["*"]))
        uncached = doc["prompt_tokens"] - doc["cached_tokens"]
        w_in = (a_in * uncached + a_cached * doc["cached_tokens"]) / self.count
        w_out = a_out * doc["completion_tokens"] / self.count
        if w_in + w_out == 0:
            w_out = Fraction(1, self.count)
        self.segments: list[tuple[int, int, Fraction, bool]]
        if self.first is not None and w_in > 0 and w_out > 0:
            self.segments = [
                (self.start, self.first, w_in / (self.first - self.start), True),
                (self.first, self.end, w_out / (self.end - self.first), False),
            ]
        else:
            # Known to have been active for no time at all: a point, which counts its tokens and shares in nothing.
            active = self.end - self.start
            self.segments = [(self.start, self.end, (w_in + w_out) / active, False)] if active else []

    def touches(self, low: int, high: int) -> bool:
        """Whether it is active in [low, high), or is a point in it."""
        return self.start < high and max(self.end, self.start + 1) > low and low < high

    def tokens(self, low: int, high: int) -> tuple[int, int, int, int]:
        """Tokens inside [low, high) that this GPU carries: every count-th one, from its own rank."""
        prefill = (self.start, self.end if self.first is None else self.first)
        decode = (self.start if self.first is None else self.first, self.end)

        def carried(name: str, span: tuple[int, int]) -> int:
            total, (begin, end) = self.doc[name], span
            if begin == end:
                end += 1  # all of a point's tokens are in its microsecond

            def upto(at: int) -> int:
                return round_half_up(Fraction(total * min(max(at - begin, 0), end - begin), end - begin))

            first, stop = upto(low), upto(high)
            return len(range(first + (self.rank - first) % self.count, stop, self.count))

        return (
            carried("prompt_tokens", prefill),
            carried("cached_tokens", prefill),
            carried("completion_tokens", decode),
            carried("reasoning_tokens", decode),
        )


# -- one cell ------------------------------------------------------------------------------------------------------------


def _cell(
    start: int,
    until: int,
    work: list[_Work],
    samples: list[Doc],
    book: _Book,
    params: OracleParams,
    card: OracleCard | None,
) -> OracleCell:
    until = max(until, start)
    pieces = book.pieces(start, until)
    here = [item for item in work if item.touches(start, until)]
    segments = [(begin, end, _tiny(rate), prefill, item) for item in here for begin, end, rate, prefill in item.segments]
    shares = {item.doc["_id"]: [0, 0, 0] for item in here}  # cost, of it prefill, energy
    cuts = {start, until, *(begin for begin, _, _ in pieces)}
    cuts |= {at for begin, end, *_ in segments for at in (begin, end)}
    cuts |= {at for doc in samples for at in (doc["ts_us"], doc["ts_us"] + params.gap_us)}
    if any(doc["mem_used_mb"] is None for doc in samples):
        told = {at for item in work for at in (item.start, item.doc["ts_us"] + params.model_kept_us)}
        cuts |= {at for at in told if _is_heard(samples, at, params) and _memory(samples, at) is None}
    edges = sorted(at for at in cuts if start <= at <= until)

    requests = {
        item.doc["_id"]: OracleRequest(item.doc["_id"], item.doc["model"], item.doc["tenant"], item.method) for item in here
    }
    exact = dict.fromkeys(CLASSES, Fraction(0))
    time = dict.fromkeys(CLASSES, 0)
    memory_unknown_us = 0
    energy_total, energy_us = Fraction(0), 0
    energy_cost = [Fraction(0)] * len(pieces)
    numerator, denominator = _part(card)
    for low, high in pairwise(edges):
        index = max(i for i, piece in enumerate(pieces) if piece[0] <= low)
        price = pieces[index][2]
        joules = _energy(samples, low, high, params)
        amount = Fraction(price.nusd_per_hour * (high - low) * numerator, HOUR_US * denominator)
        if joules is not None:
            energy_total, energy_us = energy_total + joules, energy_us + high - low
            energy_cost[index] += joules * price.energy_nusd_per_kwh / MJ_PER_KWH
            amount += joules * price.energy_nusd_per_kwh / MJ_PER_KWH
        active = [(rate, prefill, item) for begin, end, rate, prefill, item in segments if begin <= low and high <= end]
        kind = "attributed" if active else _idle(work, samples, low, params, card)
        proven = not active and not _is_partitioned(card) and _is_heard(samples, low, params)
        unknown_us = _unknown(work, samples, low, high, params) if proven else 0
        exact["unmetered_work"] += amount * unknown_us / (high - low)
        exact[kind] += amount * (high - low - unknown_us) / (high - low)
        time["unmetered_work"] += unknown_us
        time[kind] += high - low - unknown_us
        if proven and _memory(samples, low) is None:
            memory_unknown_us += high - low - unknown_us
        together = sum(rate for rate, _, _ in active)
        for rate, prefill, item in active:
            share = shares[item.doc["_id"]]
            part = _tiny(amount) * rate // together
            share[0] += part
            share[1] += part if prefill else 0
            share[2] += _tiny(joules or Fraction(0)) * rate // together
            requests[item.doc["_id"]].busy_us += high - low
    for key, (quota, prefill_quota, energy) in shares.items():
        requests[key].quota = Fraction(quota, TINY)
        requests[key].prefill_quota = Fraction(prefill_quota, TINY)
        requests[key].energy_mj = Fraction(energy, TINY)

    whole = sum(_money(price.nusd_per_hour, begin, end) for begin, end, price in pieces)
    cost = _own_money(whole, card) + sum(round_half_up(amount) for amount in energy_cost)
    classes = dict(zip(CLASSES, split(cost, [exact[name] for name in CLASSES]), strict=True))
    _settle(requests, classes["attributed"], exact["attributed"])
    for item in here:
        requests[item.doc["_id"]].tokens = item.tokens(start, until)
        requests[item.doc["_id"]].ends_here = item.rank == 0 and item.touches(start, until) and item.end <= until
    return OracleCell(
        start_us=start,
        owned_us=until - start,
        cost_nusd=cost,
        classes=classes,
        class_us=time,
        memory_unknown_us=memory_unknown_us,
        exact_classes=exact,
        energy_mj=energy_total if energy_us else None,
        energy_observed_us=energy_us,
        samples=sum(start <= doc["ts_us"] < until for doc in samples),
        requests=requests,
    )


def _without_money(cell: OracleCell) -> OracleCell:
    nothing = dict.fromkeys(CLASSES, 0)
    for request in cell.requests.values():
        request.method, request.cost, request.energy_mj = "unknown_gpu", 0, Fraction(0)
        request.quota = request.prefill_quota = Fraction(0)
    return OracleCell(
        start_us=cell.start_us,
        owned_us=0,
        cost_nusd=0,
        classes=nothing,
        class_us=nothing,
        exact_classes=dict.fromkeys(CLASSES, Fraction(0)),
        energy_mj=None,
        energy_observed_us=0,
        memory_unknown_us=0,
        samples=cell.samples,
        requests=cell.requests,
    )


def _tiny(value: Fraction) -> int:
    return value.numerator * TINY // value.denominator


def _settle(requests: dict[str, OracleRequest], attributed: int, exact: Fraction) -> None:
    """Scale the quotas to the attributed nano-dollars, and make integers of them, ties by event id."""
    ratio = attributed / exact if exact else Fraction(0)
    for request in requests.values():
        request.quota *= ratio
        request.prefill_quota *= ratio
    ordered = sorted(requests)
    for key, cost in zip(ordered, split(attributed, [requests[key].quota for key in ordered]), strict=True):
        requests[key].cost = cost


def _money(nusd_per_hour: int, begin: int, end: int) -> int:
    """R(end) - R(begin), R(t) = round(price x t)."""
    return round_half_up(Fraction(nusd_per_hour * end, HOUR_US)) - round_half_up(Fraction(nusd_per_hour * begin, HOUR_US))


def _part(card: OracleCard | None) -> tuple[int, int]:
    if card is None:
        return 1, 1
    if card.slice_parts is not None:
        return card.slice_parts, card.denominator
    return max(1, card.denominator - sum(card.child_parts)), card.denominator


def _own_money(whole: int, card: OracleCard | None) -> int:
    if card is None:
        return whole
    if card.slice_parts is not None:
        return whole * card.slice_parts // card.denominator
    return whole - sum(whole * parts // card.denominator for parts in card.child_parts)


def _idle(work: list[_Work], samples: list[Doc], at: int, params: OracleParams, card: OracleCard | None) -> str:
    """What the last sample says of the memory, if it is not older than the gap limit. Where that is not known: whether a
    request was there within the last hour, or something ran in this sample interval."""
    if _is_partitioned(card):
        return "cold_idle"
    if not _is_heard(samples, at, params):
        return "unobserved"
    memory = _memory(samples, at)
    if memory is None:
        lately = any(item.start <= at < item.doc["ts_us"] + params.model_kept_us for item in work)
        return "warm_idle" if lately or (_interval(samples, at, params)[2] or 0) > 0 else "cold_idle"
    return "warm_idle" if memory >= params.model_loaded_mb else "cold_idle"


def _is_heard(samples: list[Doc], at: int, params: OracleParams) -> bool:
    """Whether a sample speaks."""
    return any(at - params.gap_us < doc["ts_us"] <= at for doc in samples)


def _memory(samples: list[Doc], at: int) -> float | None:
    """What the last sample says."""
    held: float | None = [doc for doc in samples if doc["ts_us"] <= at][-1]["mem_used_mb"]
    return held


def _is_partitioned(card: OracleCard | None) -> bool:
    return card is not None and bool(card.child_parts)


def _unknown(work: list[_Work], samples: list[Doc], low: int, high: int, params: OracleParams) -> int:
    """Microseconds of [low, high), when no known request was active, that utilisation proves to be work of unknown ones.

    Of the sample interval around it, L long, with k of known requests: max(0, u x L - k), spread evenly over the L - k.
    """
    begin, end, used = _interval(samples, low, params)
    if used is None:
        return 0
    known = _active_us(work, begin, end)
    unknown = max(0, min(round_half_up(Fraction(used) * (end - begin)), end - begin) - known)

    def upto(at: int) -> int:
        uncovered = at - begin - _active_us(work, begin, at)
        return round_half_up(Fraction(unknown * uncovered, max(1, end - begin - known)))

    return upto(high) - upto(low)


def _interval(samples: list[Doc], at: int, params: OracleParams) -> tuple[int, int, float | None]:
    """The sample interval that holds a time, and its utilisation."""
    first = [doc for doc in samples if doc["ts_us"] <= at][-1]
    begin = first["ts_us"]
    end, used = begin + params.gap_us, first["utilization"]
    later = [doc["ts_us"] for doc in samples if doc["ts_us"] > at]
    if later and later[0] <= end:
        end = later[0]
        used = [doc for doc in samples if doc["ts_us"] == end][-1]["utilization"]  # it looks back on what it ends
    return begin, end, used


def _active_us(work: list[_Work], low: int, high: int) -> int:
    """Microseconds of [low, high) in which any request was active."""
    total, until = 0, low
    for item in sorted(work, key=lambda item: item.start):
        begin, end = max(item.start, until), min(item.end, high)
        if end > begin:
            total, until = total + end - begin, end
    return total


def _energy(samples: list[Doc], low: int, high: int, params: OracleParams) -> Fraction | None:
    """Millijoules of [low, high), which lies between two neighbouring samples; None where they cannot say."""
    before = [doc for doc in samples if doc["ts_us"] <= low]
    after = [doc for doc in samples if doc["ts_us"] > low]
    if not before or not after:
        return None
    first, last = before[-1], after[0]
    span: int = last["ts_us"] - first["ts_us"]
    if span > params.gap_us:
        return None
    if first["energy_j"] is not None and last["energy_j"] is not None:
        counted = Fraction(last["energy_j"]) - Fraction(first["energy_j"])
        catches_up = len(before) > 1 and last["ts_us"] - before[-2]["ts_us"] <= params.gap_us and _stands_still(*before[-2:])
        if _counter_counts(counted * 1_000_000 / span, first["power_w"], last["power_w"]) and not catches_up:
            return counted * 1000 * Fraction(high - low, span)
    if first["power_w"] is None or last["power_w"] is None:
        return None
    begin, end = Fraction(first["power_w"]), Fraction(last["power_w"])

    def watts(at: int) -> Fraction:
        return begin + (end - begin) * Fraction(at - first["ts_us"], span)

    return (watts(low) + watts(high)) / 2 * Fraction(high - low, 1000)


def _stands_still(first: Doc, last: Doc) -> bool:
    """Whether the counter says nothing of a pair of samples in which power says that energy was drawn."""
    known = [doc["power_w"] for doc in (first, last) if doc["power_w"] is not None]
    apart, same = first["ts_us"] < last["ts_us"], first["energy_j"] is not None and first["energy_j"] == last["energy_j"]
    return apart and same and len(known) == 2 and max(known) > 0


def _counter_counts(mean_w: Fraction, first_w: float | None, last_w: float | None) -> bool:
    """A counter that stood still, ran backwards, or contradicts both power readings did not count."""
    if not 0 < mean_w <= MAX_POWER_W:
        return False
    if first_w is None or last_w is None:
        return True
    low, high = Fraction(min(first_w, last_w)), Fraction(max(first_w, last_w))
    return low <= COUNTER_RATIO * mean_w and (high == 0 or mean_w <= COUNTER_RATIO * high)
