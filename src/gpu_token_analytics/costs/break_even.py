"""When do own GPUs beat an API? Pure arithmetic over ledger sums.

With M the money of a time of H hours, T its tokens, p the API's USD per million tokens:

    own $/M              M / T
    break-even tokens/h  (M / H) / p      the GPUs cost the same whether busy or not
    break-even ratio     break-even tokens/h over T / H: 0.5 means that half of today's load would
                         do
    break-even share     share of the money now that work has x ratio: load is taken to scale with
                         busy time; above 1 the GPUs cannot win at this price, however full
p of a price list is what the API would bill for the tokens of the row, per million: (prompt -
cached) x input + cached x cached + completion x output, over all its tokens. A what-if price per
GPU-hour scales all money by (what-if x owned GPU hours) / M. Where M is 0 all of it is what-if x
owned GPU hours, and no model's part is known. Where both cost the same nobody wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from gpu_token_analytics.costs.answers.costs import BreakEvenResponse, BreakEvenRow
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.query import CostQuery, Row
from gpu_token_analytics.costs.questions import check_cost
from gpu_token_analytics.documents import NUSD_PER_USD, US_PER_HOUR
from gpu_token_analytics.errors import Refused
from gpu_token_analytics.sentences import Sentence, in_usd, sentence
from gpu_token_analytics.units import MAX_USD_PER_HOUR

OTHERS = "*"
MAX_PRICE = 1e6
_FORM = (
    "give MODEL=INPUT/CACHED/OUTPUT in USD per million tokens, such as llama-3-8b=0.10/0.05/0.40; "
    "* is every other model"
)


@dataclass(frozen=True)
class ApiPrice:
    """What an API charges, USD per million tokens."""

    input: float
    cached: float
    output: float

    def bill_usd(self, row: Row) -> float:
        """For all tokens of a row."""
        fresh = row["prompt_tokens"] - row["cached_tokens"]
        return (
            fresh * self.input
            + row["cached_tokens"] * self.cached
            + row["completion_tokens"] * self.output
        ) / 1e6


@dataclass(frozen=True)
class ApiPrices:
    """A price list: by model, or one for all others."""

    by_model: dict[str, ApiPrice] = field(default_factory=dict)

    @staticmethod
    def of(flat_usd_per_million: float | None, listed: Sequence[str]) -> ApiPrices:
        """One price for every token of models that are not listed, and a list. Raises Refused."""
        flat = flat_usd_per_million
        if flat is not None:
            _check_price("api_usd_per_million", flat, MAX_PRICE)
        found = {} if flat is None else {OTHERS: ApiPrice(flat, flat, flat)}
        for text in listed:
            model, _, amounts = text.rpartition("=")
            try:
                numbers = [float(part) for part in amounts.split("/")]
            except ValueError:
                numbers = []
            if (
                not model
                or len(numbers) != 3
                or not all(0 <= number <= MAX_PRICE for number in numbers)
            ):
                raise Refused("invalid_parameter", f"price={text!r} is no price; {_FORM}", "price")
            found[model] = ApiPrice(*numbers)
        if not found:
            raise Refused(
                "invalid_parameter",
                f"no API price is given: api_usd_per_million, or price; {_FORM}",
                "price",
            )
        return ApiPrices(found)

    def price_of(self, model: str) -> ApiPrice | None:
        """That of a model; None: none is given."""
        return self.by_model.get(model) or self.by_model.get(OTHERS)


def against_api(
    desk: Desk, query: CostQuery, prices: ApiPrices, usd_per_gpu_hour: float | None
) -> BreakEvenResponse:
    """The answer of /v1/break-even. query: grouped by model. usd_per_gpu_hour: what if a GPU-hour
    cost this? Raises Refused."""
    check_what_if(usd_per_gpu_hour)
    check_cost(query, desk.reads.gpu_count())
    now = desk.now()
    rows = list(desk.costs.rows(query, now))
    whole = desk.costs.total(replace(query, models=frozenset()), now)
    return compared(
        query, rows, whole, now, prices, usd_per_gpu_hour, desk.settings.low_volume_tokens
    )


def compared(
    query: CostQuery,
    rows: Sequence[Row],
    whole: Row,
    now: datetime,
    prices: ApiPrices,
    usd_per_gpu_hour: float | None,
    low_volume_tokens: int,
) -> BreakEvenResponse:
    """The answer over sums that are read already. rows: by model, the null row may be among them.
    whole: everything. Tokens fewer than low_volume_tokens are labelled."""
    hours = max(0.0, (min(query.end, now) - query.start).total_seconds() / 3600)
    gpu_hours = whole["gpu_us"] / US_PER_HOUR
    paid_usd = whole.money_nusd / NUSD_PER_USD
    own_price = paid_usd / gpu_hours if gpu_hours else None
    factor: float | None = 1.0
    if usd_per_gpu_hour and own_price:
        factor = usd_per_gpu_hour / own_price
    elif usd_per_gpu_hour is not None:  # 0 in all, or of hours that cost nothing
        factor = None if usd_per_gpu_hour else 0.0
    case = _Case(
        hours,
        usd_per_gpu_hour if usd_per_gpu_hour is not None else own_price,
        low_volume_tokens,
    )
    of_models = [row for row in rows if row.key[0] is not None]
    found = []
    for row in of_models:
        model = str(row.key[0])
        price = prices.price_of(model)
        bill = None if price is None else price.bill_usd(row)
        nusd = row.loaded_nusd
        own_usd = None if factor is None else nusd * factor / NUSD_PER_USD
        found.append(_row(case, model, row, nusd, own_usd, price, bill))
    if not query.models:
        bills = [
            item.bill_usd(row) if (item := prices.price_of(str(row.key[0]))) else None
            for row in of_models
            if _tokens(row)
        ]
        whole_bill = None if None in bills else sum(bill for bill in bills if bill is not None)
        nusd = whole.money_nusd
        own_usd = (
            gpu_hours * (usd_per_gpu_hour or 0.0)
            if factor is None
            else nusd * factor / NUSD_PER_USD
        )
        found.append(
            _row(case, None, whole, nusd, own_usd, prices.by_model.get(OTHERS), whole_bill)
        )
    return BreakEvenResponse(
        from_=query.start,
        to=query.end,
        next=None,
        usd_per_gpu_hour=usd_per_gpu_hour,
        own_usd_per_gpu_hour=own_price,
        rows=found,
    )


def check_what_if(usd_per_gpu_hour: float | None) -> None:
    """That a GPU-hour may be said to cost this. Raises Refused."""
    if usd_per_gpu_hour is not None:
        _check_price("usd_per_gpu_hour", usd_per_gpu_hour, MAX_USD_PER_HOUR)


def _check_price(name: str, usd: float, most: float) -> None:
    if not 0 <= usd <= most:  # nor NaN
        raise Refused("invalid_parameter", f"{name}={usd} is not between 0 and {most:g} USD", name)


@dataclass(frozen=True)
class _Case:
    """What holds for every row."""

    hours: float
    usd_per_gpu_hour: float | None
    low_volume_tokens: int


def _tokens(row: Row) -> int:
    return row["prompt_tokens"] + row["completion_tokens"]


def _row(
    case: _Case,
    model: str | None,
    row: Row,
    nusd: int,
    own_usd: float | None,
    price: ApiPrice | None,
    bill_usd: float | None,
) -> BreakEvenRow:
    """nusd: its money in the ledger; own_usd: what it costs or would cost, None: nobody knows."""
    tokens = row.priced_tokens  # those whose money is known
    # Without tokens there is no bill to make a rate of; one price for every token is one.
    flat = (
        price.input if price is not None and price.input == price.cached == price.output else None
    )
    per_million = bill_usd / _tokens(row) * 1e6 if bill_usd is not None and _tokens(row) else flat
    api_usd = None if per_million is None else tokens * per_million / 1e6
    per_hour = tokens / case.hours if case.hours else None
    even = (
        own_usd / case.hours / per_million * 1e6
        if own_usd is not None and case.hours and per_million
        else None
    )
    load = even / per_hour if even is not None and per_hour else None
    used = row.work_nusd / nusd if nusd else None
    needed = used * load if used is not None and load is not None else None
    saved_usd = (
        api_usd - own_usd if tokens and api_usd is not None and own_usd is not None else None
    )
    verdict = BreakEvenRow(
        model=model,
        tokens=tokens,
        tokens_per_hour=per_hour,
        low_volume=tokens < case.low_volume_tokens,
        own_usd_per_million=own_usd / tokens * 1e6 if tokens and own_usd is not None else None,
        input_usd_per_million=price.input if price else None,
        cached_usd_per_million=price.cached if price else None,
        output_usd_per_million=price.output if price else None,
        api_usd_per_million=per_million,
        own_wins=saved_usd > 0 if saved_usd else None,
        saved_nusd=None if saved_usd is None else round(saved_usd * NUSD_PER_USD),
        break_even_tokens_per_hour=even,
        break_even_ratio=load,
        break_even_utilization=needed if needed is not None and needed <= 1 else None,
        utilization=used,
        says="",
        sentence=[],
    )
    verdict.sentence = _sentence(case, verdict)
    verdict.says = in_usd(verdict.sentence)
    return verdict


def _sentence(case: _Case, row: BreakEvenRow) -> Sentence:
    """The winner, by how much, and what would change it."""
    name = row.model or "everything, with all idle money"
    if not row.tokens:
        return sentence(f"Nothing to compare for {name}: no tokens in this range.")
    if row.api_usd_per_million is None:
        missing = "no API price is given" if row.model else "some models have no API price"
        return sentence(f"No winner for {name}: {missing}.")
    if row.own_usd_per_million is None:
        return sentence(
            f"No winner for {name}: the GPU-hours of this range cost nothing, so its part of ",
            _nusd(case.usd_per_gpu_hour or 0.0),
            " a GPU-hour is not known.",
        )
    own, api = _nusd(row.own_usd_per_million), _nusd(row.api_usd_per_million)
    if row.own_wins is None:
        return sentence(
            f"No winner for {name}: ", own, " a million tokens on own GPUs and from the API."
        )
    saved = abs(row.saved_nusd or 0)
    rates = (own, " a million tokens on own GPUs, ", api, " from the API, ", saved, " less; ")
    now = f"now {row.tokens_per_hour or 0:,.0f}"
    low = (
        f" Few tokens (less than {case.low_volume_tokens:,}): read it with care."
        if row.low_volume
        else ""
    )
    if row.own_wins:
        even = row.break_even_tokens_per_hour or 0
        change = f"the API would win below {even:,.0f} tokens an hour ({now}) or at less than "
        return sentence(f"Own GPUs win for {name}: ", *rates, change, own, ".", low)
    ways: Sentence = []
    for way in filter(None, (_enough_load(row, now), _low_enough_price(case, row))):
        ways += [" or ", *way] if ways else way
    return sentence(
        f"The API wins for {name}: ",
        *rates,
        "own GPUs would win ",
        *(ways or ["at no load"]),
        ".",
        low,
    )


def _enough_load(row: BreakEvenRow, now: str) -> Sentence:
    """From what load on own GPUs would win; empty: that is not known."""
    even = row.break_even_tokens_per_hour
    if even is None:
        return []
    if row.utilization is None:
        return [f"from {even:,.0f} tokens an hour on ({now})"]
    if row.break_even_utilization is None:
        return [f"at no load these GPUs can take (it would need {even:,.0f} tokens an hour, {now})"]
    busy = (
        f"{100 * row.break_even_utilization:.0f} % of the GPU money used instead of "
        f"{100 * row.utilization:.0f} %"
    )
    return [f"from {even:,.0f} tokens an hour on ({now}; {busy})"]


def _low_enough_price(case: _Case, row: BreakEvenRow) -> Sentence:
    """Below what price of a GPU-hour own GPUs would win; empty: that is not known."""
    price, own, api = case.usd_per_gpu_hour, row.own_usd_per_million, row.api_usd_per_million
    if price is None or not own or api is None:
        return []
    return ["below ", _nusd(price * api / own), " a GPU-hour instead of ", _nusd(price)]


def _nusd(usd: float) -> int:
    return round(usd * NUSD_PER_USD)
