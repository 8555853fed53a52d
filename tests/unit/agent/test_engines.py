"""Engines' counters, sequence by sequence: exact tokens through resets, restarts, missed looks,
ranks and split serving."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.agent import engine_pages
from tests.unit.agent.engine_pages import MODEL, NO_CACHED, NO_MODEL, PAGES, Told

from gpu_token_analytics.agent.engines.deltas import Counts, EngineCounter, events_of
from gpu_token_analytics.agent.engines.names import NAMES, Tokens
from gpu_token_analytics.agent.engines.target import targets_of
from gpu_token_analytics.errors import SettingsError, SourceUnavailable
from gpu_token_analytics.wire.counters import EngineCounters
from gpu_token_analytics.wire.engines import COUNTED, Engine
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import encode

NOON = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
STEP = timedelta(seconds=15)
STARTED = NOON.timestamp() - 3600
FIRST = Told(1_000, 400, 250)
ENGINES = sorted(PAGES)


def counter(text: str = "vllm=http://node1:8000") -> EngineCounter:
    (target,) = targets_of([text], "node1")
    return EngineCounter(target, STEP.total_seconds())


def look(of: EngineCounter, text: str, tick: float) -> Counts | None:
    return of.look(text, NOON + tick * STEP)


def sums(counts: Counts | None) -> tuple[int, int, int]:
    """(prompt, cached, completion) of all models."""
    assert counts is not None
    return cast(
        "tuple[int, int, int]",
        tuple(sum(tokens.get(kind, 0) for tokens in counts.models.values()) for kind in Tokens),
    )


def told(engine: str, prompt: int, cached: int, completion: int) -> tuple[int, int, int]:
    """What is to be read of an engine: some do not count what they reused."""
    return prompt, 0 if engine in NO_CACHED else cached, completion


@pytest.mark.parametrize("engine", ENGINES)
def test_a_steady_engine(engine: str) -> None:
    of, page = counter(f"{engine}=http://node1:8000"), PAGES[engine]
    assert look(of, page([FIRST], STARTED), 0) is None, "where the counters stand"
    counts = look(of, page([Told(1_600, 500, 900)], STARTED), 1)
    assert sums(counts) == told(engine, 600, 100, 650)
    assert counts is not None
    assert (counts.start, counts.end, counts.reset, counts.gap) == (NOON, NOON + STEP, False, False)
    assert set(counts.models) == {"" if engine in NO_MODEL else MODEL}
    assert sums(look(of, page([Told(1_600, 500, 900)], STARTED), 2)) == (0, 0, 0), (
        "nothing counted is a known 0"
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reset(engine: str) -> None:
    """It counts less than before: what it shows was counted since."""
    of, page = counter(f"{engine}=http://node1:8000"), PAGES[engine]
    look(of, page([FIRST]), 0)
    counts = look(of, page([Told(70, 20, 30)]), 1)
    assert sums(counts) == told(engine, 70, 20, 30)
    assert counts is not None
    assert counts.reset
    after = look(of, page([Told(170, 50, 90)]), 2)
    assert sums(after) == told(engine, 100, 30, 60)
    assert after is not None
    assert not after.reset


@pytest.mark.parametrize("engine", ENGINES)
def test_a_restart_without_a_fall(engine: str) -> None:
    """It counted more since its start than before it: the time of the start tells."""
    of, page = counter(f"{engine}=http://node1:8000"), PAGES[engine]
    look(of, page([FIRST], STARTED), 0)
    counts = look(of, page([Told(2_000, 600, 300)], NOON.timestamp() + 5), 1)
    assert sums(counts) == told(engine, 2_000, 600, 300)
    assert counts is not None
    assert counts.reset


def test_a_start_that_ntp_moved_is_the_same_process() -> None:
    of = counter()
    look(of, engine_pages.vllm([FIRST], STARTED), 0)
    counts = look(of, engine_pages.vllm([Told(1_100, 400, 300)], STARTED + 1.0), 1)
    assert sums(counts) == (100, 0, 50)
    assert counts is not None
    assert not counts.reset


def test_a_series_that_was_created_later_began_anew() -> None:
    of = counter()
    look(of, engine_pages.vllm([FIRST], created=STARTED), 0)
    counts = look(of, engine_pages.vllm([Told(2_000, 600, 300)], created=NOON.timestamp() + 5), 1)
    assert counts is not None
    assert counts.reset
    assert counts.models[MODEL][Tokens.PROMPT] == 2_000
    assert counts.models[MODEL][Tokens.COMPLETION] == 300


@pytest.mark.parametrize("engine", ENGINES)
def test_missed_looks(engine: str) -> None:
    """The next one counts for all of the time, and says so."""
    of, page = counter(f"{engine}=http://node1:8000"), PAGES[engine]
    look(of, page([FIRST], STARTED), 0)
    with pytest.raises(
        SourceUnavailable, match=r"no page of Prometheus metrics|no counter of tokens"
    ):
        look(of, "<html>502 Bad Gateway</html>", 1)
    counts = look(of, page([Told(4_000, 1_000, 2_000)], STARTED), 3)
    assert sums(counts) == told(engine, 3_000, 600, 1_750)
    assert counts is not None
    assert (counts.start, counts.end, counts.gap, counts.reset) == (
        NOON,
        NOON + 3 * STEP,
        True,
        False,
    )


@pytest.mark.parametrize(("back_seconds", "at_once"), [(0, False), (5, False), (3_600, True)])
def test_a_clock_that_is_set_back_loses_nothing(back_seconds: int, at_once: bool) -> None:
    of = counter()
    of.look(engine_pages.vllm([FIRST]), NOON)
    back = NOON - timedelta(seconds=back_seconds)
    counts = of.look(engine_pages.vllm([Told(1_500, 400, 250)]), back)
    assert (counts is not None) == at_once
    after = of.look(engine_pages.vllm([Told(1_600, 400, 250)]), back + 2 * STEP)
    assert (sums(counts)[0] if counts else 0) + sums(after)[0] == 600


@pytest.mark.parametrize("engine", sorted({"vllm", "ray", "sglang", "lmdeploy", "triton"}))
def test_the_fall_of_one_rank_does_not_hide_in_the_rise_of_another(engine: str) -> None:
    """Delta first, then the sum: the other way round 1,000 tokens of the rank that stayed are
    lost."""
    of, page = counter(f"{engine}=http://node1:8000"), PAGES[engine]
    look(of, page([Told(1_000, 400, 250), Told(5_000, 3_000, 2_000)]), 0)
    counts = look(of, page([Told(2_000, 600, 700), Told(30, 10, 8)]), 1)
    assert sums(counts) == told(engine, 1_000 + 30, 200 + 10, 450 + 8)
    assert counts is not None
    assert counts.reset


@pytest.mark.parametrize("engine", sorted({"vllm", "ray", "sglang", "lmdeploy", "triton"}))
def test_a_rank_that_appears_began_since(engine: str) -> None:
    of, page = counter(f"{engine}=http://node1:8000"), PAGES[engine]
    look(of, page([FIRST]), 0)
    assert sums(look(of, page([FIRST, Told(90, 40, 50)]), 1)) == told(engine, 90, 40, 50)
    assert sums(look(of, page([FIRST]), 2)) == (0, 0, 0), "and one that is gone counts nothing"
    assert sums(look(of, page([FIRST, Told(100, 40, 60)]), 3)) == told(engine, 10, 0, 10), (
        "until it is back"
    )


@pytest.mark.parametrize("engine", ["sglang", "trtllm"])
def test_prefill_and_decode_count_a_request_once(engine: str) -> None:
    """Both count the prompt: it is the prefill worker's, the answer is the decode worker's."""
    page = PAGES[engine]
    prefill, decode_ = (
        counter(f"{engine}=http://node1:30000"),
        counter(f"{engine}=http://node2:30000"),
    )
    look(prefill, page([Told(kind="prefill")], STARTED), 0)
    look(decode_, page([Told(kind="decode")], STARTED), 0)
    first = look(prefill, page([Told(800, 300, 2, "prefill")], STARTED), 1)
    second = look(decode_, page([Told(800, 300, 640, "decode")], STARTED), 1)
    assert (sums(first), sums(second)) == ((800, 300, 0), (0, 0, 640))
    assert second is not None
    assert second.models == {MODEL: {Tokens.COMPLETION: 640}}, "what it does not count is not 0"


@pytest.mark.parametrize("engine", ["vllm", "lmdeploy", "triton", "ray"])
def test_a_role_says_what_metrics_do_not(engine: str) -> None:
    page = PAGES[engine]
    prefill = counter(f"{engine}/prefill=http://node1:8100")
    decode_ = counter(f"{engine}/decode=http://node1:8200")
    for of in (prefill, decode_):
        look(of, page([Told()], STARTED), 0)
    assert sums(look(prefill, page([Told(800, 300, 1)], STARTED), 1)) == (800, 300, 0)
    assert sums(look(decode_, page([Told(800, 800, 640)], STARTED), 1)) == (0, 0, 640)


# -- traps -----------------------------------------------------------------------------------------


def test_the_total_of_cached_tokens_is_not_added_to_its_parts() -> None:
    """SGLang's `cache_source` has a `total` beside device, host and storage."""
    of = counter("sglang=http://node1:30000")
    look(of, engine_pages.sglang([Told()]), 0)
    text = engine_pages.sglang([Told(900, 300, 100)])
    assert text.count("sglang:cached_tokens_total{") == 4
    assert sums(look(of, text, 1)) == (900, 300, 100)


def test_parts_without_a_total_are_added_and_stay_so() -> None:
    """A `total` that appears later says the same tokens again."""
    of = counter("sglang=http://node1:30000")
    text = engine_pages.sglang([Told(900, 300, 100)])
    without = (
        "\n".join(line for line in text.splitlines() if 'cache_source="total"' not in line) + "\n"
    )
    look(
        of, engine_pages.sglang([Told()]).replace('cache_source="total"', 'cache_source="none"'), 0
    )
    assert sums(look(of, without, 1)) == (900, 300, 100)
    assert sums(look(of, engine_pages.sglang([Told(950, 330, 100)]), 2)) == (50, 30, 0)


def test_times_of_creation_and_histograms_are_no_counters() -> None:
    """`vllm:prompt_tokens_created` is a time of 1.8 billion seconds, `vllm:iteration_tokens_total`
    a histogram."""
    of = counter()
    look(of, engine_pages.vllm([Told()], created=STARTED), 0)
    text = engine_pages.vllm([Told(10, 0, 5)], created=STARTED)
    assert "vllm:prompt_tokens_created" in text
    assert sums(look(of, text, 1)) == (10, 0, 5)


def test_llama_cpp_counts_what_it_reused_beside_the_prompt() -> None:
    of = counter("llamacpp=http://node1:8080#qwen3-8b")
    look(of, engine_pages.llamacpp([Told()]), 0)
    counts = look(of, engine_pages.llamacpp([Told(1_000, 900, 50)]), 1)
    assert sums(counts) == (1_000, 900, 50)
    assert counts is not None
    assert set(counts.models) == {"qwen3-8b"}


def test_llama_cpp_may_answer_with_a_quoted_page() -> None:
    of = counter("llamacpp=http://node1:8080")
    look(
        of, '"' + engine_pages.llamacpp([Told()]).replace('"', '\\"').replace("\n", "\\n") + '"', 0
    )
    assert sums(look(of, engine_pages.llamacpp([Told(7, 0, 3)]), 1)) == (7, 0, 3)


def test_a_worker_of_dynamo_is_refused() -> None:
    """Its frontend counts the same tokens."""
    text = engine_pages.vllm([FIRST]).replace('engine="0"', 'engine="0",dynamo_component="backend"')
    with pytest.raises(
        SourceUnavailable, match="frontend counts the same tokens; scrape that: --engine dynamo=URL"
    ):
        look(counter(), text, 0)


def test_a_router_of_vllm_is_refused() -> None:
    """The production stack's router re-exports under the engine's prefix."""
    text = (
        '# TYPE vllm:input_tokens counter\nvllm:input_tokens_total{server="http://a",model="m"} '
        "5.0\n"
    )
    with pytest.raises(
        SourceUnavailable,
        match=r"vllm at http://node1:8000/metrics: no counter of tokens.*a router's page",
    ):
        look(counter(), text, 0)


@pytest.mark.parametrize("engine", ["sglang", "trtllm", "dynamo", "ray", "lmdeploy"])
def test_counters_that_come_with_the_first_token_are_no_error(engine: str) -> None:
    prefix = NAMES[cast("Engine", engine)].prefix
    of = counter(f"{engine}=http://node1:8000")
    assert look(of, f"# TYPE {prefix}up gauge\n{prefix}up 1\n", 0) is None
    counts = look(of, f"# TYPE {prefix}up gauge\n{prefix}up 1\n", 1)
    assert counts is not None
    assert not counts.models
    assert sums(look(of, PAGES[engine]([FIRST]), 2)) == told(engine, 1_000, 400, 250)


def test_cached_tokens_that_come_later_wait_for_their_prompt() -> None:
    """LMDeploy counts a prompt at its first token, and what of it was reused at the end: no part is
    more than its whole."""
    of = counter("lmdeploy=http://node1:23333")
    look(of, engine_pages.lmdeploy([Told()]), 0)
    steps = [
        Told(1_000, 0, 5),
        Told(1_000, 900, 400),
        Told(1_700, 900, 500),
        Told(2_000, 1_500, 600),
    ]
    found = [
        sums(look(of, engine_pages.lmdeploy([step]), tick)) for tick, step in enumerate(steps, 1)
    ]
    assert found == [(1_000, 0, 5), (0, 0, 395), (700, 700, 100), (300, 300, 100)]


def test_names_with_an_underscore_are_the_same() -> None:
    """As OpenMetrics writes them."""
    of = counter()
    look(of, engine_pages.vllm([FIRST], prefix="vllm_"), 0)
    assert sums(look(of, engine_pages.vllm([Told(1_010, 404, 255)], prefix="vllm_"), 1)) == (
        10,
        4,
        5,
    )


def test_a_value_that_counts_nothing_is_an_error() -> None:
    with pytest.raises(SourceUnavailable, match="is nan"):
        look(counter(), engine_pages.vllm([FIRST]).replace(" 1000.0", " NaN"), 0)


@pytest.mark.parametrize("value", ["1.8446744073709552e+19", "9223372036854775807", "1e300", "2e9"])
def test_a_counter_that_no_engine_reaches_is_an_error_and_is_not_remembered(value: str) -> None:
    """In events of MAX_TOKENS each, what 2^64-1 says was counted would be 184 billion events."""
    of = counter()
    assert look(of, f'vllm:prompt_tokens_total{{model_name="m"}} {FIRST.prompt}\n', 0) is None
    with pytest.raises(
        SourceUnavailable, match="no engine counts more than 100,000,000 tokens a second"
    ):
        look(of, f'vllm:prompt_tokens_total{{model_name="m"}} {value}\n', 1)
    counts = look(of, f'vllm:prompt_tokens_total{{model_name="m"}} {FIRST.prompt + 50}\n', 2)
    assert sums(counts) == (50, 0, 0)
    assert counts is not None
    assert counts.gap, "it counts for both looks"


def test_a_counter_that_stands_high_is_a_counter() -> None:
    of = counter()
    look(of, 'vllm:prompt_tokens_total{model_name="m"} 9007199254740000\n', 0)
    assert sums(look(of, 'vllm:prompt_tokens_total{model_name="m"} 9007199254740990\n', 1)) == (
        990,
        0,
        0,
    )


def test_too_many_series_or_models_are_refused() -> None:
    many = "".join(
        f'vllm:prompt_tokens_total{{model_name="m",engine="{at}"}} 1.0\n' for at in range(5_001)
    )
    with pytest.raises(SourceUnavailable, match="5,001 series count tokens; at most 5,000"):
        look(counter(), many, 0)
    models = "".join(
        f'vllm:prompt_tokens_total{{model_name="m{at}",engine="0"}} 1.0\n' for at in range(101)
    )
    with pytest.raises(SourceUnavailable, match="names 101 models; at most 100"):
        look(counter(), models, 0)


# -- events ----------------------------------------------------------------------------------------


def test_events_say_what_was_counted() -> None:
    of = counter("vllm=http://localhost:8000/v1")
    look(of, engine_pages.vllm([FIRST]), 0)
    counts = look(of, engine_pages.vllm([Told(1_600, 500, 900)]), 1)
    assert counts is not None
    (event,) = events_of(counts, of.target, "node1")
    assert decode(encode(event)) == event
    assert (event.instance, event.engine, event.model) == ("node1:8000", "vllm", MODEL)
    assert (event.ts, event.interval_ms) == (NOON + STEP, 15_000)
    assert (event.prompt_tokens, event.cached_tokens, event.completion_tokens) == (600, 100, 650)
    assert event.gpus == ["instance:node1:8000"]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 4 * 10**8), st.integers(0, 4 * 10**8)), min_size=1, max_size=3
    ),
    st.integers(1, 7 * 86_400 * 1_000_000),
)
def test_parts_of_long_gaps_add_up(models: Sequence[tuple[int, int]], length_us: int) -> None:
    """Whatever the time and the number of tokens: parts follow each other, and add up to the
    counts."""
    named = {
        f"m{at}": {Tokens.PROMPT: prompt, Tokens.COMPLETION: done}
        for at, (prompt, done) in enumerate(models)
    }
    counts = Counts(NOON, NOON + timedelta(microseconds=length_us), named, reset=False, gap=True)
    events = [decode(encode(event)) for event in events_of(counts, counter().target, "h")]
    for model, tokens in named.items():
        of_model = [
            event for event in events if isinstance(event, EngineCounters) and event.model == model
        ]
        assert sum(event.prompt_tokens or 0 for event in of_model) == tokens[Tokens.PROMPT]
        assert sum(event.completion_tokens or 0 for event in of_model) == tokens[Tokens.COMPLETION]
        assert of_model[-1].ts == counts.end
        if length_us > 10_000_000:
            starts = [event.ts - timedelta(milliseconds=event.interval_ms) for event in of_model]
            ends = [counts.start, *(event.ts for event in of_model)]
            gaps = [abs((a - b).total_seconds()) for a, b in zip(starts, ends[:-1], strict=True)]
            assert max(gaps) < 2e-6


_steps = st.tuples(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=3, max_size=3),
    st.sampled_from(["", "fall", "miss"]),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(_steps, min_size=1, max_size=10))
def test_nothing_is_lost_or_doubled_whatever_ranks_do(
    steps: Sequence[tuple[list[tuple[int, int]], str]],
) -> None:
    """Three ranks count; each may begin anew, once, right after a look; looks may be missed."""
    of, ranks, counted, seen = counter(), [Told(10**6, 0, 10**6)] * 3, [0, 0], [0, 0]
    fallen: set[int] = set()

    def see(tick: float) -> None:
        prompt, _, completion = sums(look(of, engine_pages.vllm(ranks), tick))
        seen[:] = [seen[0] + prompt, seen[1] + completion]

    look(of, engine_pages.vllm(ranks), 0)
    for tick, (grown, what) in enumerate(steps, 1):
        if what == "fall" and tick % 3 not in fallen:
            see(tick - 0.5)
            fallen.add(tick % 3)
            ranks[tick % 3] = Told()
        ranks = [
            Told(one.prompt + more[0], 0, one.completion + more[1])
            for one, more in zip(ranks, grown, strict=True)
        ]
        counted = [
            counted[0] + sum(more[0] for more in grown),
            counted[1] + sum(more[1] for more in grown),
        ]
        if what != "miss":
            see(tick)
    see(len(steps) + 1)
    assert seen == counted


def test_every_engine_has_names_and_a_time_of_counting() -> None:
    assert set(NAMES) == set(COUNTED) == set(PAGES)
    assert all(names.hint and names.prefix for names in NAMES.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vllm", "write ENGINE=URL"),
        ("ollama=http://a:1", "engines are vllm, sglang, trtllm"),
        ("vllm=node1:8000", r"vllm=http://HOST:PORT"),
        ("vllm=http://node1:99999", r"is no URL"),
        ("vllm/both=http://node1:8000", "a role is unified, prefill, decode"),
    ],
)
def test_what_is_no_engine_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        targets_of([text], "node1")


def test_an_engine_that_is_named_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="named twice"):
        targets_of(["vllm=http://node1:8000", "vllm=http://NODE1:8000/metrics"], "node1")


def test_localhost_is_this_host() -> None:
    named = targets_of(
        ["vllm=http://127.0.0.1:8000", "trtllm=http://node2", "tgi=http://[::1]:80/metrics#m"],
        "Node1",
    )
    assert [(target.instance, target.url, target.model) for target in named] == [
        ("node1:8000", "http://127.0.0.1:8000/metrics", None),
        ("node2:80", "http://node2/prometheus/metrics", None),
        ("node1:80", "http://[::1]:80/metrics", "m"),
    ]
