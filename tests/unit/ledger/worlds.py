"""Small worlds for the ledger: raw documents as the store holds them, drawn by Hypothesis or
written by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from tests.oracle.idle import OracleCard
from tests.oracle.ledger import OracleCell, oracle_cells
from tests.oracle.raw_documents import sample_document, usage_document
from tests.oracle.work import OracleParams

from gpu_token_analytics.ledger.cells import compute_cells
from gpu_token_analytics.ledger.computed import CellContent
from gpu_token_analytics.ledger.inputs import NO_TIMES, CardShare, CellInput, GpuInput, Samples
from gpu_token_analytics.ledger.money import Int64, nusd_per_hour
from gpu_token_analytics.ledger.params import LedgerParams, WorkWeights
from gpu_token_analytics.ledger.placements import Placement, Placements
from gpu_token_analytics.ledger.prices import PriceBook, PriceRow
from gpu_token_analytics.ledger.requests import Requests, UsageRows
from gpu_token_analytics.wire.identity import raw_id
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.times import from_us
from gpu_token_analytics.wire.usage import TokenUsage

Document = dict[str, Any]

SECOND = 1_000_000
MINUTE = 60 * SECOND
T0 = 1_767_268_800 * SECOND  # 2026-01-01T12:00:00Z
GPU = "GPU-a"
GPUS = ("GPU-a", "GPU-b", "GPU-c")
_STORED = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class World:
    """Everything the ledger is a function of."""

    usages: list[Document] = field(default_factory=list)
    samples: list[Document] = field(default_factory=list)  # of all GPUs
    prices: list[Document] = field(default_factory=list)
    params: LedgerParams = field(default_factory=LedgerParams)
    # label -> the GPU that carries it, at all times
    labels: Mapping[str, str] = field(default_factory=dict)
    # of requests that are left out of `usages` (GpuInput.before)
    before: tuple[Int64, Int64] = NO_TIMES

    def cells(
        self,
        spans: Sequence[tuple[int, int]],
        gpu: str = GPU,
        card: CardShare | None = None,
        priced_as: str | None = None,
        with_shares: bool = True,
        known: bool = True,
    ) -> Sequence[CellContent]:
        """The product's cells [start, until) of one GPU."""
        (found,) = compute_cells(
            [self.input(spans, gpu, card, priced_as, known)], self.params, with_shares=with_shares
        )
        return found

    def input(
        self,
        spans: Sequence[tuple[int, int]],
        gpu: str = GPU,
        card: CardShare | None = None,
        priced_as: str | None = None,
        known: bool = True,
    ) -> GpuInput:
        """What these cells are computed from."""
        book = PriceBook(PriceRow.of(row) for row in self.prices)
        samples = self._samples(gpu)
        own = [(doc["ts_us"], self._own_price(doc)) for doc in samples]
        inputs = [
            CellInput(
                start,
                until,
                book.pieces(priced_as or gpu, "h", "H100", start, max(until, start + 1), own),
                card,
            )
            for start, until in spans
        ]
        if not known:
            inputs = [CellInput(start, until, (), known=False) for start, until in spans]
        requests = Requests.of(
            UsageRows.of(self.of_gpu(gpu)), gpu, self.placements, self.params.cell_us
        )
        return GpuInput(inputs, requests, Samples.of(samples), before=self.before)

    def oracle(
        self,
        spans: Sequence[tuple[int, int]],
        gpu: str = GPU,
        card: CardShare | None = None,
        priced_as: str | None = None,
        known: bool = True,
    ) -> list[OracleCell]:
        """What the specification says about the same cells."""
        weights = {
            name: (w.input, w.cached, w.output)
            for name, w in {**self.params.model_weights, "*": self.params.default_weights}.items()
        }
        own = self.params
        params = OracleParams(
            own.gap_us, own.model_loaded_mb, own.model_kept_us, own.cell_us, weights
        )
        share = (
            None
            if card is None
            else OracleCard(card.denominator, card.slice_parts, card.child_parts)
        )
        return oracle_cells(
            gpu,
            spans,
            self.of_gpu(gpu),
            self._samples(gpu),
            self.prices,
            params,
            meanings=self.labels,
            priced_as=priced_as,
            host="h",
            gpu_name="H100",
            card=share,
            known=known,
        )

    @property
    def placements(self) -> Placements:
        """What the labels mean."""
        return Placements(Placement(label, gpu, 0, 2 * T0) for label, gpu in self.labels.items())

    def of_gpu(self, gpu: str) -> list[Document]:
        """Usages that name this GPU, by its id or a label."""
        return [
            doc
            for doc in self.usages
            if gpu in (self.labels.get(name, name) for name in doc["gpus"])
        ]

    def _samples(self, gpu: str) -> list[Document]:
        return sorted(
            (doc for doc in self.samples if doc["gpu"] == gpu),
            key=lambda doc: (doc["ts_us"], doc["_id"]),
        )

    @staticmethod
    def _own_price(doc: Mapping[str, Any]) -> int | None:
        price = doc["price_per_hour_usd"]
        return None if price is None else nusd_per_hour(price)


def minutes(count: int, size_us: int = MINUTE, first_us: int = T0) -> list[tuple[int, int]]:
    """`count` cells of `size_us`, side by side."""
    return [(first_us + i * size_us, first_us + (i + 1) * size_us) for i in range(count)]


def usage(
    event_id: str,
    end_s: float,
    latency_s: float | None = None,
    *,
    queue_s: float | None = None,
    ttft_s: float | None = None,
    prompt: int = 100,
    cached: int = 0,
    completion: int = 100,
    reasoning: int = 0,
    model: str = "m",
    tenant: str = "t",
    gpus: Sequence[str] = (GPU,),
) -> Document:
    """A document of `token_usage` that ended `end_s` after T0."""

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else seconds * 1000

    event = TokenUsage(
        event_id=event_id,
        ts=from_us(T0 + round(end_s * SECOND)),
        host="h",
        model=model,
        request_id=f"r-{event_id}",
        tenant=tenant,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
        gpu_uuids=list(gpus),
        latency_ms=ms(latency_s),
        queue_ms=ms(queue_s),
        ttft_ms=ms(ttft_s),
    )
    return usage_document(event, event_id.encode(), _STORED, "test")


def sample(
    event_id: str,
    at_s: float,
    *,
    utilization: float | None = None,
    mem_mb: float | None = None,
    power_w: float | None = None,
    energy_j: float | None = None,
    usd_per_hour: float | None = None,
    gpu: str = GPU,
) -> Document:
    """A document of `gpu_metrics`, `at_s` after T0."""
    event = GpuSample(
        event_id=event_id,
        ts=from_us(T0 + round(at_s * SECOND)),
        host="h",
        gpu_index=0,
        source="seed",
        gpu_uuid=gpu,
        name="H100",
        utilization=utilization,
        mem_used_mb=mem_mb,
        power_w=power_w,
        energy_j=energy_j,
        price_per_hour_usd=usd_per_hour,
    )
    return sample_document(event, event_id.encode(), _STORED, "test")


def price(
    row: str,
    usd_per_hour: float | str,
    *,
    scope: str = "default",
    key: str | None = None,
    mode: str = "on_demand",
    from_s: float | None = None,
    to_s: float | None = None,
    usd_per_kwh: float | None = None,
    pue: float | None = None,
    created_s: float = 0,
) -> Document:
    """A document of `prices`; valid from 1970 unless from_s says otherwise."""
    return {
        "_id": row,
        "scope": scope,
        "key": key,
        "usd_per_hour": str(usd_per_hour),
        "mode": mode,
        "usd_per_kwh": usd_per_kwh,
        "pue": pue,
        "valid_from": from_us(0) if from_s is None else from_us(T0 + round(from_s * SECOND)),
        "valid_to": None if to_s is None else from_us(T0 + round(to_s * SECOND)),
        "created_at": from_us(T0 + round(created_s * SECOND)),
    }


def by_request(cells: Iterable[CellContent], event_ids: Sequence[str]) -> dict[str, int]:
    """Cost of each request of tenant `t` over several cells, by event id; in the order of their
    `_id`, the ledger's."""
    ordered = sorted(event_ids, key=lambda event_id: raw_id("t", event_id))
    costs = dict.fromkeys(ordered, 0)
    for cell in cells:
        for share in cell.shares:
            costs[ordered[share.request]] += share.cost_nusd
    return costs


# -- Hypothesis ------------------------------------------------------------------------------------

# Seconds after T0: many on borders of seconds and minutes, where ends meet; some anywhere.
_moments = st.one_of(
    st.integers(-90, 270).map(float),
    st.sampled_from([0.0, 60.0, 120.0, 180.0]),
    st.integers(-90 * SECOND, 270 * SECOND).map(lambda us: us / SECOND),
)
_tokens = st.one_of(st.sampled_from([0, 1, 2, 7, 1000, 100_000_000]), st.integers(0, 5000))
_latency_s = st.one_of(
    st.none(),
    st.sampled_from([0.0, 0.000001, 0.001, 1.0, 20.0, 60.0, 600.0, 21_600.0]),
    st.integers(1, 90).map(float),
    st.integers(1, 90 * SECOND).map(lambda us: us / SECOND),
)
_part = st.one_of(
    st.none(), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 1000).map(lambda n: n / 1000)
)


@st.composite
def usages(draw: st.DrawFn, gpus: Sequence[str] = GPUS) -> Document:
    """Any valid usage near T0."""
    latency = draw(_latency_s)
    queue, ttft = (draw(_part), draw(_part)) if latency is not None else (None, None)
    prompt, completion = draw(_tokens), draw(_tokens)
    return usage(
        f"{draw(st.integers(0, 2**32)):08x}",
        draw(_moments),
        latency,
        queue_s=None if queue is None or latency is None else queue * latency,
        ttft_s=None if ttft is None or latency is None else ttft * latency,
        prompt=prompt,
        cached=draw(st.integers(0, prompt)),
        completion=completion,
        reasoning=draw(st.integers(0, completion)),
        model=draw(st.sampled_from(["m", "n", "free"])),
        tenant=draw(st.sampled_from(["t", "u"])),
        gpus=sorted(draw(st.sets(st.sampled_from(gpus), min_size=1))),
    )


@st.composite
def gpu_samples(draw: st.DrawFn, gpus: Sequence[str] = GPUS) -> Document:
    """Any valid sample near T0."""
    return sample(
        f"{draw(st.integers(0, 2**32)):08x}",
        draw(_moments),
        utilization=draw(st.one_of(st.sampled_from([None, 0.0, 0.05, 0.37, 1.0]), st.floats(0, 1))),
        mem_mb=draw(st.sampled_from([None, 0.0, 1023.9, 1024.0, 80_000.0])),
        power_w=draw(
            st.one_of(
                st.none(), st.sampled_from([0.0, 33.3, 700.0, 1e5]), st.integers(0, 1000).map(float)
            )
        ),
        energy_j=draw(
            st.one_of(
                st.none(),
                st.sampled_from([0.0, 5.0, 1e15]),
                st.integers(0, 10**6).map(lambda n: n / 10),
            )
        ),
        usd_per_hour=draw(st.sampled_from([None, None, None, 0.0, 1.7])),
        gpu=draw(st.sampled_from(gpus)),
    )


_usd = st.one_of(
    st.sampled_from(["0", "0.000000001", "0.85", "3.6", "100000"]),
    st.integers(1, 10**11).map(lambda n: f"{n}e-9"),
)


@st.composite
def price_rows(
    draw: st.DrawFn, modes: Sequence[str] = ("on_demand", "reserved", "spot", "owned")
) -> list[Document]:
    """A default row of all time and up to four others, some of which begin or end inside a
    minute."""
    owned = "owned" in modes and draw(st.booleans())
    rows = [
        price("row-0", draw(_usd), mode="owned", usd_per_kwh=0.4)
        if owned
        else price("row-0", draw(_usd))
    ]
    for number in range(1, 1 + draw(st.integers(0, 4))):
        scope = draw(st.sampled_from(["gpu", "host", "name", "default"]))
        mode = draw(st.sampled_from(modes))
        begin, end = sorted((draw(_moments), draw(_moments)))
        rows.append(
            price(
                f"row-{number}",
                draw(_usd),
                scope=scope,
                key={"gpu": GPU, "host": "h", "name": "H100", "default": None}[scope],
                mode=mode,
                from_s=draw(st.sampled_from([None, begin])),
                to_s=draw(st.sampled_from([None, end + 1])),
                usd_per_kwh=draw(st.sampled_from([None, 0.11, 2.5])) if mode == "owned" else None,
                pue=draw(st.sampled_from([None, 1.0, 1.4])),
                created_s=number,
            )
        )
    return rows


_params = st.sampled_from(
    [
        LedgerParams(),
        LedgerParams(
            gap_us=59 * SECOND,
            model_weights={"n": WorkWeights(1e-6, 0.0, 1e6), "free": WorkWeights(0.0, 1.0, 0.0)},
        ),
        LedgerParams(gap_us=SECOND, model_loaded_mb=0.0),
        LedgerParams(model_kept_us=7 * SECOND),
        LedgerParams(gap_us=59 * SECOND, model_kept_us=80 * SECOND),
    ]
)


@st.composite
def worlds(
    draw: st.DrawFn,
    gpus: Sequence[str] = GPUS,
    most_usages: int = 12,
    modes: Sequence[str] = ("on_demand",),
) -> World:
    """Events around T0 in any order, each id once, with prices and parameters."""
    found = draw(st.lists(usages(gpus), max_size=most_usages, unique_by=lambda doc: doc["_id"]))
    heard = draw(st.lists(gpu_samples(gpus), max_size=12, unique_by=lambda doc: doc["_id"]))
    return World(found, heard, draw(price_rows(modes)), draw(_params))
