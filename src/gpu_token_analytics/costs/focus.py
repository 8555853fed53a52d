"""FOCUS 1.2 (FinOps Open Cost and Usage Specification), with the columns that 1.3 added: the ledger
as FinOps tools read it.

One row per GPU, hour, way of paying, class of money, model and tenant: a usage charge of GPU-hours.
All mandatory columns of the specification, the recommended and conditional ones that say something
here, and `x_` columns for what FOCUS has no column for yet (models, token kinds, the class of idle
money). https://focus.finops.org, folder specification/columns of v1.2.

    idle money      CapacityReservationStatus=Unused: the GPU is capacity held for use. Unobserved
                    money has no status: whether it was used is not known
    GPU-hours       the owned time of the class, shared among its rows in proportion to their money,
                    exactly
    four costs      are equal: prices of the price book are what is paid (no list price, no discount
                    is known here)
    PricingCategory from the mode of the price row, see PRICING_CATEGORIES
    SkuPriceId      the SKU and the mode: neither an amount nor a date, so that it stays the same
                    over time
    ChargeClass     null: a correction restates its hour, it is not an extra row
    InvoiceId       null: no invoice is known here
    Allocated*      (1.3) money that came to a model and tenant: whose, by which method, what part
                    of its GPU, hour and class
    ServiceProvider-, HostProviderName   (1.3) as ProviderName and PublisherName, which 1.3 gives up
    Tags            of the GPU; model and tenant, too, in rows that are allocated to nobody. In
                    allocated rows they are AllocatedTags, which must not be in Tags
    ContractApplied (1.3) null: no contract commitment is known here
    CommitmentDiscountStatus null, for the same reason: rules of ConsumedQuantity ask for it
    BillingCurrency USD, or the one asked for: costs at the rate of their hour, which x_UnitsPerUsd
    and x_RateValidFrom tell
    unknown GPUs    requests on GPUs that nobody sampled or declared: costs of 0 (FOCUS has no null
                    there), x_CostNanoUsd null

Left out, because their condition is not met: unit prices (no list price without discounts is
published, no negotiated one known), all else of commitment discounts, pricing currencies, regions,
types of accounts (there is one).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from itertools import groupby
from typing import Any

from gpu_token_analytics.books.rates import Converted
from gpu_token_analytics.costs.files import Column, ColumnKind, month_of, usd
from gpu_token_analytics.costs.query import Row
from gpu_token_analytics.documents import US_PER_HOUR, MoneyClass
from gpu_token_analytics.ledger.money import split_exactly
from gpu_token_analytics.ledger.prices import PriceMode

GROUP_BY = ("gpu", "host", "gpu_name", "price_mode", "class", "model", "tenant")
# "Standard when pricing is predetermined at the agreed upon rate": reserved prices too. A
# commitment discount (Committed) would need its id and its unused part, which nobody tells us.
# Owned: a price of one's own making, no provider's.
PRICING_CATEGORIES = {
    PriceMode.ON_DEMAND: "Standard",
    PriceMode.RESERVED: "Standard",
    PriceMode.SPOT: "Dynamic",
    PriceMode.OWNED: "Other",
}
PROVIDER = "Self-hosted GPUs"
SERVICE = "LLM inference"
_CLASS_END = GROUP_BY.index("class") + 1  # the model follows
_STATUS: dict[str, str] = {
    MoneyClass.ATTRIBUTED: "Used",
    MoneyClass.UNMETERED_WORK: "Used",
    MoneyClass.WARM_IDLE: "Unused",
    MoneyClass.COLD_IDLE: "Unused",
}
# How a GPU's money came to a model and tenant (FOCUS 1.3, split cost allocation); other classes are
# nobody's.
ALLOCATED_BY: dict[str, str] = {
    MoneyClass.ATTRIBUTED: "work-rate-sweep",
    MoneyClass.WARM_IDLE: "by-attributed-money-of-the-hour",
}
_WORDS: dict[str, str] = {
    MoneyClass.ATTRIBUTED: "Requests",
    MoneyClass.UNMETERED_WORK: "GPU busy without a known request",
    MoneyClass.WARM_IDLE: "Idle with a model in memory",
    MoneyClass.COLD_IDLE: "Idle without a model",
    MoneyClass.UNOBSERVED: "Not observed",
}

COLUMNS: tuple[Column, ...] = (
    Column("AllocatedMethodDetails", ColumnKind.JSON),
    Column("AllocatedMethodId", ColumnKind.TEXT),
    Column("AllocatedResourceId", ColumnKind.TEXT),
    Column("AllocatedResourceName", ColumnKind.TEXT),
    Column("AllocatedTags", ColumnKind.JSON),
    Column("BilledCost", ColumnKind.DECIMAL),
    Column("BillingAccountId", ColumnKind.TEXT),
    Column("BillingAccountName", ColumnKind.TEXT),
    Column("BillingCurrency", ColumnKind.TEXT),
    Column("BillingPeriodEnd", ColumnKind.TIME),
    Column("BillingPeriodStart", ColumnKind.TIME),
    Column("CapacityReservationId", ColumnKind.TEXT),
    Column("CapacityReservationStatus", ColumnKind.TEXT),
    Column("ChargeCategory", ColumnKind.TEXT),
    Column("ChargeClass", ColumnKind.TEXT),
    Column("ChargeDescription", ColumnKind.TEXT),
    Column("ChargeFrequency", ColumnKind.TEXT),
    Column("ChargePeriodEnd", ColumnKind.TIME),
    Column("ChargePeriodStart", ColumnKind.TIME),
    Column("CommitmentDiscountStatus", ColumnKind.TEXT),
    Column("ConsumedQuantity", ColumnKind.DECIMAL),
    Column("ConsumedUnit", ColumnKind.TEXT),
    Column("ContractApplied", ColumnKind.JSON),
    Column("ContractedCost", ColumnKind.DECIMAL),
    Column("EffectiveCost", ColumnKind.DECIMAL),
    Column("HostProviderName", ColumnKind.TEXT),
    Column("InvoiceId", ColumnKind.TEXT),
    Column("InvoiceIssuerName", ColumnKind.TEXT),
    Column("ListCost", ColumnKind.DECIMAL),
    Column("PricingCategory", ColumnKind.TEXT),
    Column("PricingQuantity", ColumnKind.DECIMAL),
    Column("PricingUnit", ColumnKind.TEXT),
    Column("ProviderName", ColumnKind.TEXT),
    Column("PublisherName", ColumnKind.TEXT),
    Column("ResourceId", ColumnKind.TEXT),
    Column("ResourceName", ColumnKind.TEXT),
    Column("ResourceType", ColumnKind.TEXT),
    Column("ServiceCategory", ColumnKind.TEXT),
    Column("ServiceName", ColumnKind.TEXT),
    Column("ServiceProviderName", ColumnKind.TEXT),
    Column("ServiceSubcategory", ColumnKind.TEXT),
    Column("SkuId", ColumnKind.TEXT),
    Column("SkuMeter", ColumnKind.TEXT),
    Column("SkuPriceDetails", ColumnKind.JSON),
    Column("SkuPriceId", ColumnKind.TEXT),
    Column("SubAccountId", ColumnKind.TEXT),
    Column("SubAccountName", ColumnKind.TEXT),
    Column("Tags", ColumnKind.JSON),
    Column("x_Model", ColumnKind.TEXT),
    Column("x_Tenant", ColumnKind.TEXT),
    Column("x_MoneyClass", ColumnKind.TEXT),
    Column("x_Requests", ColumnKind.INTEGER),
    Column("x_PromptTokens", ColumnKind.INTEGER),
    Column("x_CachedTokens", ColumnKind.INTEGER),
    Column("x_CompletionTokens", ColumnKind.INTEGER),
    Column("x_ReasoningTokens", ColumnKind.INTEGER),
    Column("x_CostNanoUsd", ColumnKind.INTEGER),
    Column("x_Provisional", ColumnKind.BOOLEAN),
    Column("x_DefaultPriceNanoUsd", ColumnKind.INTEGER),
    Column("x_UnknownGpuRequests", ColumnKind.INTEGER),
    Column("x_UnknownGpuTokens", ColumnKind.INTEGER),
    Column("x_UnitsPerUsd", ColumnKind.DECIMAL),
    Column("x_RateValidFrom", ColumnKind.TIME),
)


def _in_usd(row: Row) -> Converted:
    return Converted("USD", row.money_nusd)


def focus_rows(
    rows: Iterable[Row], billing_account: str, convert: Callable[[Row], Converted] | None = None
) -> Iterator[list[Any]]:
    """The FOCUS rows of cost rows grouped by GROUP_BY in hours, which come in order; convert: into
    another currency."""
    money_of = convert or _in_usd
    for _, together in groupby(rows, key=lambda row: (row.start, row.key[:_CLASS_END])):
        ordered = list(together)
        money = [row.money_nusd for row in ordered]
        time_us = sum(row["gpu_us"] for row in ordered)
        weights = (
            money
            if any(money)
            else [int(row.key[_CLASS_END] is not None or len(ordered) == 1) for row in ordered]
        )
        if not any(weights):
            weights = [1] * len(ordered)
        shares = split_exactly(time_us, weights)
        for row, part_us, weight in zip(ordered, shares, weights, strict=True):
            if (
                row.money_nusd
                or part_us
                or row["requests"]
                or row["prompt_tokens"]
                or row["completion_tokens"]
            ):
                yield _row(row, part_us, weight / sum(weights), billing_account, money_of(row))


def _row(row: Row, part_us: int, ratio: float, billing_account: str, money: Converted) -> list[Any]:
    """ratio: its part of the GPU, hour and class."""
    gpu, host, name, mode, kind, model, tenant = (value or None for value in row.key)
    sku = name or "GPU"
    cost = usd(money.nano)
    # FOCUS knows no unknown cost: it is 0 there, and null in x_CostNanoUsd.
    status = None if row.is_unpriced else _STATUS.get(str(kind))
    words = (
        "Requests on a GPU that is not known, cost unknown"
        if row.is_unpriced
        else _WORDS[str(kind)]
    )
    billing_start, billing_end = month_of(row.start)
    work = _known(model=model, tenant=tenant)
    place = _known(host=host, gpu_name=name)
    hours = (Decimal(part_us) / US_PER_HOUR).quantize(Decimal("1e-9"))
    method = ALLOCATED_BY.get(str(kind)) if work else None
    whose = "/".join(work.values()) if method else None
    elements = [{"AllocatedRatio": ratio, "UsageUnit": "GPU-Hours", "UsageQuantity": float(hours)}]
    return [
        {"Elements": elements} if method else None,
        method,
        whose,
        whose,
        work if method else None,
        cost,
        billing_account,
        billing_account,
        money.currency,
        billing_end,
        billing_start,
        gpu if status else None,
        status,
        "Usage",
        None,
        " ".join(
            part for part in (words, f"({model})" if model else "", f"on {name or gpu}") if part
        ),
        "Usage-Based",
        row.end,
        row.start,
        None,
        # With a decimal place: readers of CSV take whole numbers for integers.
        Decimal(row["prompt_tokens"] + row["completion_tokens"]).quantize(Decimal("0.1")),
        "Tokens",
        None,
        cost,
        cost,
        PROVIDER,
        None,
        PROVIDER,
        cost,
        "Other" if mode is None else PRICING_CATEGORIES[PriceMode(mode)],
        hours,
        "GPU-Hours",
        PROVIDER,
        PROVIDER,
        gpu,
        f"{host} {name}" if host and name else host,
        "GPU",
        "AI and Machine Learning",
        SERVICE,
        PROVIDER,
        "Generative AI",
        sku,
        "GPU time",
        {"GpuCount": 1} | ({} if mode is None else {"x_PricingMode": mode}),
        sku if mode is None else f"{sku}/{mode}",
        tenant,
        tenant,
        place if method else place | work,
        model,
        tenant,
        kind,
        row["requests"],
        row["prompt_tokens"],
        row["cached_tokens"],
        row["completion_tokens"],
        row["reasoning_tokens"],
        None if row.is_unpriced else row.money_nusd,
        row["provisional_cells"] > 0,
        row.default_price_nusd,
        row["unknown_gpu_requests"],
        row["unknown_gpu_tokens"],
        money.units_per_usd,
        money.valid_from,
    ]


def _known(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
