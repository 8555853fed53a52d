"""Tokens that engines counted: of requests + unexplained, per instance and minute, in integers;
their money; their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle.counted import COUNTS_AT, engine_tokens, request_tokens
from tests.unit.ledger.worlds import GPUS, MINUTE, SECOND, T0, usage

from gpu_token_analytics.ledger.counted import CounterRow, counter_lines
from gpu_token_analytics.ledger.document import LedgerLine
from gpu_token_analytics.ledger.params import LedgerParams, WorkWeights
from gpu_token_analytics.ledger.placements import Placement, Placements
from gpu_token_analytics.ledger.requests import Requests, UsageRows
from gpu_token_analytics.wire.engines import COUNTED, Engine

PARAMS = LedgerParams()
Document = dict[str, Any]
KINDS = ("prompt", "completion")


def row(
    at_s: float,
    prompt: int | None,
    completion: int | None,
    *,
    engine: str = "sglang",
    seconds: float = 15,
    **said: Any,
) -> CounterRow:
    """What an engine counted in the `seconds` up to `at_s` after T0."""
    start, end = T0 + round((at_s - seconds) * SECOND), T0 + round(at_s * SECOND)
    fields: dict[str, Any] = {
        "gpus": ("GPU-a",),
        "instance": "node1:8000",
        "model": "m",
        "cached": 0,
    } | said
    return CounterRow(
        gpus=fields["gpus"],
        host="node1",
        instance=fields["instance"],
        engine=cast("Engine", engine),
        model=fields["model"],
        start_us=start,
        ts_us=end,
        prompt=prompt,
        cached=fields["cached"],
        completion=completion,
    )


def lines(
    rows: Sequence[CounterRow],
    usages: Sequence[Document] = (),
    gpu: str = "GPU-a",
    minute: int = 0,
    nusd: int | None = 1_000,
    placements: Placements | None = None,
    params: LedgerParams = PARAMS,
) -> list[LedgerLine]:
    """The lines of engines in one cell."""
    placed = placements or Placements()
    mine = [doc for doc in usages if gpu in placed.resolve_all(doc["gpus"], doc["ts_us"])]
    requests = Requests.of(UsageRows.of(mine), gpu, placed, MINUTE)
    mentioned = [one for one in rows if gpu in placed.resolve_all(one.gpus, one.ts_us)]
    return counter_lines(T0 + minute * MINUTE, gpu, mentioned, requests, placed, nusd, params)


def tokens(found: Sequence[LedgerLine]) -> dict[str, tuple[int, int, int]]:
    """(counted, unexplained, more) of each kind."""
    return {
        kind: (
            sum(
                cast("int", cast("Mapping[str, Any]", line["counted"])[f"{kind}_tokens"])
                for line in found
            ),
            sum(cast("int", cast("Mapping[str, Any]", line)[f"{kind}_tokens"]) for line in found),
            sum(
                cast("int", cast("Mapping[str, Any]", line["counted"])[f"more_{kind}_tokens"])
                for line in found
            ),
        )
        for kind in KINDS
    }


def test_what_no_request_tells_of_is_unexplained() -> None:
    told = usage("r", 40, 10, prompt=100, completion=50)
    found = lines([row(15, 0, 0), row(30, 300, 80), row(45, 100, 50), row(60, 0, 0)], [told])
    assert tokens(found) == {"prompt": (400, 300, 0), "completion": (130, 80, 0)}
    assert [
        (line["model"], line["tenant"], line["method"], line["requests"]) for line in found
    ] == [("m", "", "counter", 0)]
    assert found[0]["counted"]["unmetered_nusd"] == 1_000


def test_where_requests_tell_more_it_is_said_and_nothing_is_negative() -> None:
    told = usage("r", 40, 10, prompt=100, completion=50)
    found = lines([row(60, 60, 80, seconds=60)], [told])
    assert tokens(found) == {"prompt": (60, 0, 40), "completion": (80, 30, 0)}


def test_tokens_count_when_the_engine_counts_them() -> None:
    """A request over a border of minutes: SGLang counts all of it at its end, vLLM its prompt at
    the first token."""
    # from 30 s on, first token at 40 s
    told = usage("r", 90, 60, ttft_s=10, prompt=100, completion=50)
    at_the_end = [row(60, 0, 0, seconds=60), row(120, 100, 50, seconds=60)]
    assert tokens(lines(at_the_end, [told])) == {"prompt": (0, 0, 0), "completion": (0, 0, 0)}
    assert tokens(lines(at_the_end, [told], minute=1)) == {
        "prompt": (100, 0, 0),
        "completion": (50, 0, 0),
    }
    live = [row(60, 100, 20, engine="vllm", seconds=60), row(120, 0, 30, engine="vllm", seconds=60)]
    assert tokens(lines(live, [told])) == {"prompt": (100, 0, 0), "completion": (20, 0, 0)}
    assert tokens(lines(live, [told], minute=1)) == {"prompt": (0, 0, 0), "completion": (30, 0, 0)}


def test_a_request_that_ends_with_a_minute_is_of_that_minute() -> None:
    """Its end is excluded, as ever: the next minute does not even load it."""
    told = usage("r", 60, 10, prompt=100, completion=50)
    rows = [row(60, 100, 50, seconds=60), row(120, 0, 0, seconds=60)]
    assert tokens(lines(rows, [told])) == {"prompt": (100, 0, 0), "completion": (50, 0, 0)}
    assert tokens(lines(rows, [told], minute=1)) == {"prompt": (0, 0, 0), "completion": (0, 0, 0)}


def test_time_without_counters_is_not_compared() -> None:
    told = [usage("a", 10, 5, prompt=100, completion=50), usage("b", 50, 5, prompt=7, completion=3)]
    assert tokens(lines([row(60, 7, 3, seconds=30)], told)) == {
        "prompt": (7, 0, 0),
        "completion": (3, 0, 0),
    }


def test_prefill_and_decode_on_the_same_gpus_count_a_request_once() -> None:
    """Each counts its part; the request is of both."""
    gpus = ("GPU-a", "GPU-b")
    rows = [
        row(60, 500, None, seconds=60, instance="prefill:1", gpus=gpus),
        row(60, None, 90, seconds=60, instance="decode:1", gpus=gpus),
    ]
    told = usage("r", 40, 10, prompt=400, completion=90, gpus=gpus)
    both = [tokens(lines(rows, [told], gpu)) for gpu in gpus]
    assert [sum(of_gpu["prompt"][at] for of_gpu in both) for at in range(3)] == [500, 100, 0]
    assert [sum(of_gpu["completion"][at] for of_gpu in both) for at in range(3)] == [90, 0, 0]


def test_requests_are_of_the_model_that_they_name() -> None:
    rows = [row(60, 100, 100, seconds=60, model="a"), row(60, 100, 100, seconds=60, model="b")]
    told = [usage("r", 40, 10, model="b", prompt=100, completion=60)]
    assert {
        line["model"]: (line["prompt_tokens"], line["completion_tokens"])
        for line in lines(rows, told)
    } == {
        "a": (100, 100),
        "b": (0, 40),
    }


def test_a_request_under_another_name_of_the_model_is_explained_all_the_same() -> None:
    """Gateways call models as they like; one engine alone on the GPU served it."""
    told = [usage("r", 40, 10, model="hosted_vllm/m", prompt=100, completion=60)]
    assert tokens(lines([row(60, 100, 100, seconds=60)], told)) == {
        "prompt": (100, 0, 0),
        "completion": (100, 40, 0),
    }


def test_a_label_is_the_gpu_that_it_means() -> None:
    placed = Placements([Placement("node1/0", "GPU-a", 0, 2 * T0)])
    told = usage("r", 40, 10, prompt=100, completion=50)
    rows = [row(60, 100, 70, seconds=60, gpus=("node1/0",))]
    assert tokens(lines(rows, [told], placements=placed)) == {
        "prompt": (100, 0, 0),
        "completion": (70, 20, 0),
    }


def test_cached_tokens_are_a_part_of_what_is_unexplained() -> None:
    found = lines(
        [row(60, 100, 10, seconds=60, cached=90)],
        [usage("r", 40, 10, prompt=70, cached=0, completion=10)],
    )
    assert (found[0]["prompt_tokens"], found[0]["cached_tokens"]) == (30, 30)


# -- money -----------------------------------------------------------------------------------------


def money(found: Sequence[LedgerLine]) -> list[int | None]:
    """Of unmetered work, line by line."""
    return [line["counted"]["unmetered_nusd"] for line in found]


def money_by_model(found: Sequence[LedgerLine]) -> dict[str, int | None]:
    """The same by model."""
    return dict(zip([line["model"] for line in found], money(found), strict=True))


def test_money_of_busy_time_goes_by_the_work_of_unexplained_tokens() -> None:
    rows = [row(60, 1_000, 0, seconds=60, model="a"), row(60, 0, 750, seconds=60, model="b")]
    found = lines(rows, nusd=4_001)
    assert money_by_model(found) == {"a": 1_000, "b": 3_001}, "1,000 to 4 x 750"
    weights = LedgerParams(model_weights={"b": WorkWeights(output=1.0)})
    assert money_by_model(lines(rows, nusd=1_750, params=weights)) == {
        "a": 1_000,
        "b": 750,
    }


def test_the_example_of_the_page() -> None:
    """docs/cost-model.md, "Tokens that no request explains"."""
    rows = [
        row(60, 10_000, 2_500, seconds=60, model="a"),
        row(60, 4_000, 1_500, seconds=60, model="b"),
    ]
    told = [usage("r", 40, 10, model="a", prompt=4_000, completion=1_000)]
    assert money_by_model(lines(rows, told, nusd=30_000_000)) == {"a": 16_363_636, "b": 13_636_364}


def test_money_is_not_known_where_utilisation_is_not() -> None:
    assert money(lines([row(60, 10, 10, seconds=60)], nusd=None)) == [None]


def test_busy_time_before_an_engine_counts_is_its_only_models() -> None:
    """SGLang counts a request of ten minutes at its end; nobody else is there."""
    assert money(lines([row(60, 0, 0, seconds=60)])) == [1_000]
    two = [row(60, 0, 0, seconds=60, model="a"), row(60, 0, 0, seconds=60, model="b")]
    assert money(lines(two)) == [0, 0], "whose it is, nobody knows"
    assert money(lines([row(60, 0, 0, seconds=60, engine="vllm")])) == [0], (
        "vLLM would have counted"
    )
    told = usage("r", 40, 10, prompt=0, completion=0)
    assert money(lines([row(60, 0, 0, seconds=60)], [told])) == [0], "requests say who was there"


# -- conservation ----------------------------------------------------------------------------------

_requests = st.lists(
    st.tuples(
        st.integers(1, 178_000),  # end, in ms after T0
        st.integers(0, 90_000) | st.none(),  # latency
        st.integers(0, 100),  # per cent of it up to the first token
        st.integers(0, 5_000),
        st.integers(0, 2_000),
        st.sampled_from(["m", "other", "m2"]),
    ),
    max_size=8,
)
_counts = st.lists(
    st.tuples(st.integers(0, 20_000), st.integers(0, 8_000), st.sampled_from(["m", "m2"])),
    max_size=8,
)


def requests_on(
    gpus: Sequence[str], said: Sequence[tuple[int, int | None, int, int, int, str]]
) -> list[Document]:
    """Their documents."""
    return [
        usage(
            f"r{at}",
            end_ms / 1000,
            None if latency_ms is None else latency_ms / 1000,
            ttft_s=None if latency_ms is None else latency_ms * part // 100 / 1000,
            prompt=prompt,
            completion=completion,
            model=model,
            gpus=tuple(gpus),
        )
        for at, (end_ms, latency_ms, part, prompt, completion, model) in enumerate(said)
    ]


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(sorted(COUNTS_AT)), st.integers(1, 3), _requests, _counts, st.integers(0, 14)
)
def test_counted_is_what_requests_tell_and_what_is_unexplained(
    engine: str,
    gpu_count: int,
    said: list[tuple[int, int | None, int, int, int, str]],
    counts: list[Any],
    shift: int,
) -> None:
    """In every minute, over all GPUs of the instance, against the specification."""
    gpus = GPUS[:gpu_count]
    usages = requests_on(gpus, said)
    rows = [
        row(15 * at + shift + 15, prompt, completion, engine=engine, model=model, gpus=gpus)
        for at, (prompt, completion, model) in enumerate(counts)
    ]
    documents = [
        {
            "start_us": one.start_us,
            "ts_us": one.ts_us,
            "prompt_tokens": one.prompt,
            "completion_tokens": one.completion,
        }
        for one in rows
    ]
    for minute in range(4):
        of_gpus = [tokens(lines(rows, usages, gpu, minute)) for gpu in gpus]
        for kind in KINDS:
            counted, unexplained, more = (
                sum(of_gpu[kind][at] for of_gpu in of_gpus) for at in range(3)
            )
            at_us = T0 + minute * MINUTE
            of_requests = request_tokens(usages, engine, f"{kind}_tokens", documents, at_us)
            assert counted == engine_tokens(documents, f"{kind}_tokens", at_us)
            assert counted == of_requests + unexplained - more
            assert min(unexplained, more) == 0
            assert unexplained >= 0


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), _requests, st.data())
def test_a_simulated_engine_and_its_requests(
    gpu_count: int, said: list[tuple[int, int | None, int, int, int, str]], data: st.DataObject
) -> None:
    """An engine that counts at the end serves requests, of which only some are told: unexplained is
    what was not, exactly."""
    gpus = GPUS[:gpu_count]
    served = requests_on(
        gpus, [(end, latency or 1, part, p, c, "m") for end, latency, part, p, c, _ in said]
    )
    hidden = data.draw(st.sets(st.sampled_from(range(len(served))))) if served else set()
    told = [doc for at, doc in enumerate(served) if at not in hidden]
    rows = []
    for tick in range(12):
        low, high = T0 + tick * 15 * SECOND, T0 + (tick + 1) * 15 * SECOND
        ended = [doc for doc in served if low <= max(doc["ts_us"] - 1, doc["start_us"]) < high]
        prompt, completion = (sum(doc[f"{kind}_tokens"] for doc in ended) for kind in KINDS)
        rows.append(row(15 * (tick + 1), prompt, completion, gpus=gpus))
    for minute in range(3):
        low, high = T0 + minute * MINUTE, T0 + (minute + 1) * MINUTE
        missing = [
            doc
            for at, doc in enumerate(served)
            if at in hidden and low <= max(doc["ts_us"] - 1, doc["start_us"]) < high
        ]
        for kind in KINDS:
            of_gpus = [tokens(lines(rows, told, gpu, minute))[kind] for gpu in gpus]
            assert sum(one[1] for one in of_gpus) == sum(doc[f"{kind}_tokens"] for doc in missing)
            assert sum(one[2] for one in of_gpus) == 0


@settings(deadline=None, max_examples=60)
@given(_requests, _counts, st.integers(0, 10**7))
def test_lines_of_a_part_of_the_gpus_are_conserved_too(
    said: list[tuple[int, int | None, int, int, int, str]], counts: list[Any], nusd: int
) -> None:
    """Requests that name one of two GPUs (data parallel): of each GPU counted + more = of requests
    + unexplained, summed."""
    usages = [{**doc, "gpus": [GPUS[at % 2]]} for at, doc in enumerate(requests_on(GPUS[:1], said))]
    rows = [
        row(15 * at + 15, p, c, model=model, gpus=GPUS[:2])
        for at, (p, c, model) in enumerate(counts)
    ]
    documents = [{"start_us": one.start_us, "ts_us": one.ts_us} for one in rows]
    for minute in range(3):
        for gpu in GPUS[:2]:
            found = lines(rows, usages, gpu, minute, nusd)
            if found:
                assert sum(line["counted"]["unmetered_nusd"] or 0 for line in found) in (0, nusd)
            mine = [doc for doc in usages if doc["gpus"] == [gpu]]
            for kind in KINDS:
                counted, unexplained, more = tokens(found)[kind]
                told = request_tokens(
                    mine, "sglang", f"{kind}_tokens", documents, T0 + minute * MINUTE
                )
                assert counted + more == told + unexplained
                assert min(unexplained, more) >= 0


def test_every_engine_is_in_the_specification() -> None:
    names = {"first_token": "first", "live": "live", "end": "end", "start": "start"}
    assert {
        engine: tuple(names[when] for when in counted) for engine, counted in COUNTED.items()
    } == COUNTS_AT


@pytest.mark.parametrize("tenant", ["", None])
def test_nobodys_tokens_have_no_tenant_in_sums(tenant: str | None) -> None:
    from gpu_token_analytics.rollups.packed import pack_lines, unpack
    from gpu_token_analytics.rollups.vectors import ZERO_LINE

    packed = pack_lines({("m", ""): list(ZERO_LINE)})
    assert [name for _, name, _ in unpack(packed)] == [tenant or None]
