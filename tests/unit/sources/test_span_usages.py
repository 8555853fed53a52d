"""Which spans are requests, what they say, and when two are one: by shapes that engines and
instrumentations send."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from tests.unit.sources.shapes import (
    CHAT_ID,
    START_NS,
    below,
    current,
    langfuse,
    openinference,
    openllmetry,
    sglang,
    span,
    vllm,
)

from gpu_token_analytics.sources.instances import CountedBy, InstanceBook, InstancePlacement
from gpu_token_analytics.sources.span_figures import LeftOut, is_sampled
from gpu_token_analytics.sources.span_usages import Counted, usages
from gpu_token_analytics.sources.spans import Span, SpanKind
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.identity import identify
from gpu_token_analytics.wire.kind import encode
from gpu_token_analytics.wire.usage import TokenUsage

NOWHERE = InstanceBook()
START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def only(*spans: Span, book: InstanceBook = NOWHERE, tenant: str | None = None) -> TokenUsage:
    found = usages(spans, book, tenant)
    assert found.refused == []
    ((usage, _),) = found.usages
    assert decode(encode(usage), START + timedelta(minutes=1)) == usage, (
        "it is a good record as it is"
    )
    return usage


def placed(instance: str, *gpus: str, **fields: Any) -> InstanceBook:
    values: dict[str, Any] = {"host": "node1", "model": None, **fields}
    return InstanceBook([InstancePlacement(instance, gpus, **values)])


TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


@pytest.mark.parametrize(
    ("shape", "tokens", "model", "times", "finish", "place"),
    [
        (vllm, (1000, 200, 0, 0), "unknown", (1900, 250, 500), None, "vllm-chat@node1"),
        (sglang, (1000, 200, 640, 0), "qwen3-32b", (2000, None, 400), "stop", "sglang"),
        (current, (1000, 200, 640, 50), "llama-3.3-70b", (2000, None, 600), "length", "node1:8000"),
        (
            openllmetry,
            (1000, 200, 640, 50),
            "llama-3.3-70b",
            (2000, None, None),
            None,
            "node1:8000",
        ),
        (openinference, (1000, 200, 640, 50), "llama-3.3-70b", (2000, None, None), None, "agent"),
        (langfuse, (1000, 200, 640, 50), "llama-3.3-70b", (2000, None, 600), None, "agent"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_each_source_says(
    shape: Callable[..., Span],
    tokens: tuple[int, ...],
    model: str,
    times: tuple[float | None, ...],
    finish: str | None,
    place: str,
) -> None:
    usage = only(shape())
    assert tuple(getattr(usage, name) for name in TOKENS) == tokens
    assert usage.model == model
    assert (usage.latency_ms, usage.queue_ms, usage.ttft_ms) == times
    assert usage.finish_reason == finish
    assert usage.ts == START + timedelta(seconds=2)
    assert usage.gpus == [f"instance:{place}"]
    assert usage.tenant == "default"


# -- which spans tell of a request -----------------------------------------------------------------


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.operation.name": "invoke_agent"},
        {"gen_ai.operation.name": "execute_tool"},
        {"gen_ai.operation.name": "invoke_workflow"},
        {"gen_ai.operation.name": "fetch_response"},
        {"openinference.span.kind": "AGENT"},
        {"openinference.span.kind": "CHAIN"},
        {"langfuse.observation.type": "agent"},
        {"langfuse.observation.type": "span"},
        {"llm.request.type": "unknown"},
    ],
    ids=str,
)
def test_what_only_adds_up_is_not_counted(attributes: dict[str, Any]) -> None:
    totals = {
        "gen_ai.usage.input_tokens": 5000,
        "gen_ai.usage.output_tokens": 900,
        "llm.token_count.prompt": 5000,
    }
    parent = span({**attributes, **totals})
    assert usages([parent], NOWHERE).usages == []
    assert only(parent, below(current(), parent)).prompt_tokens == 1000


@pytest.mark.parametrize(
    "attributes", [{}, {"http.request.method": "POST"}, {"db.system": "mongodb"}]
)
def test_other_spans_are_nothing_to_us(attributes: dict[str, Any]) -> None:
    assert usages([span(attributes)], NOWHERE) == Counted()


def test_a_span_without_an_operation_counts_only_where_none_below_tells() -> None:
    tokens = {"gen_ai.usage.prompt_tokens": 1200, "gen_ai.usage.completion_tokens": 10}
    unnamed = span(tokens)
    assert only(unnamed).prompt_tokens == 1200
    found = usages([unnamed, between := below(span(), unnamed), below(current(), between)], NOWHERE)
    assert [usage.prompt_tokens for usage, _ in found.usages] == [1000]
    assert found.left_out == {LeftOut.TOLD_BELOW: 1}


def test_a_retrieval_below_a_chat_is_a_request_of_its_own() -> None:
    chat = current()
    embeds = span(
        {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.usage.input_tokens": 40,
            "gen_ai.request.model": "bge",
        }
    )
    found = usages([chat, below(embeds, chat)], NOWHERE)
    assert sorted(
        (usage.model, usage.prompt_tokens, usage.completion_tokens) for usage, _ in found.usages
    ) == [
        ("bge", 40, 0),
        ("llama-3.3-70b", 1000, 200),
    ]


def test_a_request_without_figures_is_told() -> None:
    found = usages([span({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"})], NOWHERE)
    assert found.usages == []
    assert found.left_out == {LeftOut.WITHOUT_TOKENS: 1}


# -- one request is one usage ----------------------------------------------------------------------


def test_client_and_engine_are_one_request_and_the_engine_wins_in_any_order() -> None:
    client = current(attributes={**current().attributes, "gpu_tokens.tenant": "acme"})
    http = below(span(kind=SpanKind.CLIENT), client)
    engine = below(vllm(), http)
    for order in permutations([client, http, engine]):
        usage = only(*order)
        assert usage.queue_ms == 250, "the engine's times"
        assert (usage.tenant, usage.model) == ("acme", "llama-3.3-70b"), (
            "what the engine does not say its client does"
        )


def test_in_one_export_they_are_found_by_the_response_id_where_the_trace_is_cut() -> None:
    client, engine = current(), vllm(trace_id="ff" * 16)
    for order in permutations([client, engine]):
        found = usages(order, NOWHERE)
        assert [usage.queue_ms for usage, _ in found.usages] == [250]
        assert found.left_out == {LeftOut.TOLD_TWICE: 1}


def test_in_two_exports_they_are_one_event() -> None:
    assert only(current()).event_id == only(vllm()).event_id
    assert only(openllmetry()).event_id == only(vllm()).event_id
    owner = only(current()).tenant
    assert identify([owner], [only(current()).event_id]) == identify(
        [owner], [only(vllm()).event_id]
    )


def test_a_span_sent_again_is_the_same_event_byte_for_byte() -> None:
    for one in (vllm(), current(), openinference(), langfuse()):
        assert encode(only(one)) == encode(only(one))
        assert encode(only(one, one)) == encode(only(one))


def test_other_requests_are_other_events() -> None:
    later = vllm(completion=201, start_ns=START_NS + 1)
    spans = [
        vllm(),
        later,
        vllm(request_id=CHAT_ID[:-1] + "9"),
        openinference(),
        openinference(),
        langfuse(),
    ]
    assert len({usage.event_id for usage, _ in usages(spans, NOWHERE).usages}) == len(spans)


def test_an_id_that_an_agent_hands_to_all_its_calls_loses_none() -> None:
    """vLLM makes the id from X-Request-Id, which meshes hand on."""
    calls = [
        vllm(prompt=1000 + call, completion=call, start_ns=START_NS + call) for call in range(5)
    ]
    assert sorted(usage.prompt_tokens for usage, _ in usages(calls, NOWHERE).usages) == [
        1000,
        1001,
        1002,
        1003,
        1004,
    ]


def test_short_ids_are_told_apart_by_their_trace() -> None:
    """Ollama's ids are one of 999."""
    attributes = {**current().attributes, "gen_ai.response.id": "chatcmpl-417"}
    spans = [span(attributes, trace_id=f"{number:032x}") for number in range(3)]
    assert len({usage.event_id for usage, _ in usages(spans, NOWHERE).usages}) == 3


def test_choices_of_one_request_share_its_prompt() -> None:
    """n=2 in vLLM: two spans of one arrival under one id, each with the whole prompt."""
    usage = only(vllm(completion=200), vllm(completion=120))
    assert (usage.prompt_tokens, usage.completion_tokens) == (1000, 320)
    client = current(attributes={**current().attributes, "gen_ai.usage.output_tokens": 320})
    assert (
        only(vllm(completion=200), vllm(completion=120), client).event_id == only(client).event_id
    )


def test_the_first_prompt_of_a_completion_request_has_its_response_id() -> None:
    response_id = "cmpl-5e0d9f0cb3f94b0e9a1f0d5c1b2a3948"
    client = current(attributes={**current().attributes, "gen_ai.response.id": response_id})
    assert only(vllm(request_id=f"{response_id}-0")).event_id == only(client).event_id


def test_two_frameworks_around_one_call_count_it_once() -> None:
    outer = current(seconds=3)
    inner = openllmetry()
    assert usages([outer, inner], NOWHERE).left_out == {LeftOut.TOLD_TWICE: 1}
    assert only(outer, inner).latency_ms == 2000
    assert only(outer, below(inner, outer)).latency_ms == 2000


def test_spans_in_a_circle_end() -> None:
    one = current()
    other = below(current(), one)
    assert usages([below(one, other), other], NOWHERE).usages == []


# -- tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # A prompt that leaves out what was cached, as Anthropic's API counts.
        (
            {"gen_ai.usage.input_tokens": 300, "gen_ai.usage.cache_read.input_tokens": 640},
            (300 + 640 + 64, 200, 640, 50),
        ),
        # An answer that leaves out the thoughts, as Gemini's API counts.
        (
            {"gen_ai.usage.output_tokens": 40, "gen_ai.usage.reasoning.output_tokens": 50},
            (1000, 90, 640, 50),
        ),
        ({"gen_ai.usage.input_tokens": "1000"}, (1000, 200, 640, 50)),
        ({"gen_ai.usage.input_tokens": 1000.0}, (1000, 200, 640, 50)),
        (
            {"gen_ai.usage.output_tokens": 0, "gen_ai.usage.reasoning.output_tokens": None},
            (1000, 0, 640, 0),
        ),
        (
            {"gen_ai.usage.input_tokens": None, "gen_ai.usage.prompt_tokens": 900},
            (900, 200, 640, 50),
        ),
    ],
    ids=str,
)
def test_counts_are_inclusive(changes: dict[str, Any], expected: tuple[int, ...]) -> None:
    usage = only(current(attributes={**current().attributes, **changes}))
    assert tuple(getattr(usage, name) for name in TOKENS) == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"gen_ai.usage.input_tokens": -1},
            "gen_ai.usage.input_tokens='-1' is no number of tokens",
        ),
        ({"gen_ai.usage.input_tokens": 1.5}, "1.5"),
        ({"gen_ai.usage.input_tokens": float("nan")}, "nan"),
        ({"gen_ai.usage.input_tokens": float("inf")}, "inf"),
        ({"gen_ai.usage.input_tokens": True}, "True"),
        ({"gen_ai.usage.input_tokens": "many"}, "many"),
        ({"gen_ai.usage.input_tokens": 10**9}, "no number of tokens"),
        (
            {"gen_ai.usage.output_tokens": None},
            "gen_ai.usage.output_tokens is missing beside gen_ai.usage.input_tokens=1000",
        ),
        ({"langfuse.observation.usage_details": "{"}, "is no JSON object"),
        ({"langfuse.observation.usage_details": "[1]"}, "is no JSON object"),
        ({"langfuse.observation.usage_details": '{"input": "x"}'}, "usage_details.input"),
    ],
    ids=str,
)
def test_what_cannot_be_counted_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    bad = current(attributes={**current().attributes, **changes})
    found = usages([bad, vllm(request_id="x" * 30)], NOWHERE)
    assert [usage.queue_ms for usage, _ in found.usages] == [250], "the other one counts"
    ((refused, why),) = found.refused
    assert refused is bad
    assert said in why


def test_an_error_before_the_answer_has_no_answer() -> None:
    attributes = {
        **current().attributes,
        "gen_ai.usage.output_tokens": None,
        "error.type": "timeout",
    }
    for name in ("gen_ai.response.finish_reasons", "gen_ai.usage.reasoning.output_tokens"):
        attributes[name] = None
    usage = only(current(attributes=attributes))
    assert (usage.completion_tokens, usage.finish_reason) == (0, "timeout")


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "latency_ms"),
    [
        ({"seconds": 0}, None),
        ({"start_ns": 0}, None),
        ({"seconds": -1}, None),
        ({"seconds": 0.0015}, 1.5),
    ],
    ids=str,
)
def test_a_span_without_a_length_is_a_point_in_time(
    fields: dict[str, Any], latency_ms: float | None
) -> None:
    usage = only(current(**fields))
    assert usage.latency_ms == latency_ms
    assert usage.ttft_ms == (None if latency_ms is None else min(600, latency_ms))


def test_times_that_are_none_are_unknown() -> None:
    for wrong in (-1.0, float("nan"), float("inf"), True, "soon", None):
        attributes = {
            **vllm().attributes,
            "gen_ai.latency.time_in_queue": wrong,
            "gen_ai.latency.time_to_first_token": wrong,
        }
        usage = only(vllm(attributes=attributes))
        assert (usage.queue_ms, usage.ttft_ms) == (None, None)


def test_a_span_that_has_not_ended_is_refused() -> None:
    ((_, why),) = usages([current(end_ns=0)], NOWHERE).refused
    assert "endTimeUnixNano" in why


# -- tenant and model ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "tenant"),
    [
        ({}, "default"),
        ({"resource": {"gpu_tokens.tenant": "site"}}, "site"),
        ({"resource": {"tenant": "a"}, "trace_state": "vendor=1, gpu-tokens=acme"}, "acme"),
        ({"trace_state": "gpu-tokens=acme", "extra": {"tenant.id": "b"}}, "b"),
        ({"extra": {"gpu_tokens.tenant": "first", "tenant.id": "b", "tenant": "c"}}, "first"),
        ({"extra": {"tenant.id": "  "}}, "default"),
        ({"extra": {"tenant.id": "x" * 300}}, "x" * 256),
        ({"extra": {"user.id": "u1", "session.id": "s"}}, "default"),
    ],
    ids=str,
)
def test_the_tenant_by_the_stated_rule(fields: dict[str, Any], tenant: str) -> None:
    extra = fields.get("extra", {})
    rest = {name: value for name, value in fields.items() if name != "extra"}
    assert only(current(attributes={**current().attributes, **extra}, **rest)).tenant == tenant


def test_a_tenants_key_sends_its_own() -> None:
    assert only(current(), tenant="acme").tenant == "acme"
    own = current(resource={"tenant": "acme"})
    assert only(own, tenant="acme").tenant == "acme"
    found = usages([current(resource={"tenant": "other"})], NOWHERE, "acme")
    assert found.usages == []
    assert "this key is for tenant 'acme' only" in found.refused[0][1]


def test_the_model_is_the_engines_word_then_the_operators_then_the_clients() -> None:
    engine, client = vllm(), current()
    assert only(engine).model == "unknown"
    assert only(engine, client).model == "llama-3.3-70b"
    assert (
        only(engine, client, book=placed("vllm-chat", "GPU-a", model="operator")).model
        == "operator"
    )
    told = replace(engine, resource={**engine.resource, "gpu_tokens.model": "environment"})
    assert (
        only(told, client, book=placed("vllm-chat", "GPU-a", model="operator")).model
        == "environment"
    )
    assert only(sglang(), book=placed("sglang", "GPU-a", model="operator")).model == "qwen3-32b"


# -- where it ran ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "instance"),
    [
        (vllm(), "vllm-chat@node1"),
        (vllm(), "vllm-chat"),
        (
            vllm(
                resource={
                    "k8s.pod.name": "vllm-0",
                    "k8s.namespace.name": "chat",
                    "service.name": "v",
                }
            ),
            "chat.vllm-0",
        ),
        (vllm(resource={"k8s.pod.name": "vllm-0", "service.instance.id": "627cc493"}), "627cc493"),
        (vllm(resource={"service.name": "unknown_service", "host.name": "node1"}), "node1"),
        (current(), "node1:8000"),
        (current(), "node1"),
        (openllmetry(), "node1:8000"),
        (current(attributes={**current().attributes, "server.port": None}), "node1"),
        (
            current(
                attributes={
                    **current().attributes,
                    "url.full": "http://Node1:8000/v1/chat/completions",
                }
            ),
            "node1:8000",
        ),
        (current(kind=SpanKind.SERVER), "checkout@web7"),
    ],
    ids=str,
)
def test_an_instance_is_found_by_its_names(one: Span, instance: str) -> None:
    usage = only(one, book=placed(instance, "GPU-a", "GPU-b"))
    assert usage.gpus == ["GPU-a", "GPU-b"]
    assert usage.host == "node1"


def test_a_clients_own_name_is_not_that_of_the_engine() -> None:
    assert only(current(), book=placed("checkout", "GPU-a")).gpus == ["instance:node1:8000"]


def test_placements_are_as_of_the_end_of_the_request() -> None:
    us = START_NS // 1000
    rows = [
        InstancePlacement("vllm-chat", ("GPU-a",), "h", None, from_us=0),
        InstancePlacement("vllm-chat", ("GPU-b",), "h", None, from_us=us + 2_000_000),
        InstancePlacement("vllm-chat", ("GPU-c",), "h", None, from_us=us + 2_000_001),
    ]
    assert only(vllm(), book=InstanceBook(rows)).gpus == ["GPU-b"]


def test_gpus_that_the_span_names_need_no_placement() -> None:
    engine = vllm(
        resource={"gpu_tokens.gpus": "GPU-a;GPU-b GPU-a", "host.name": "node1", "service.name": "v"}
    )
    assert only(engine).gpus == ["GPU-a", "GPU-b"]
    assert only(engine).host == "node1"
    labelled = vllm(resource={"gpu_tokens.gpus": "node2/0 node2/1", "host.name": "container7"})
    assert (only(labelled).gpus, only(labelled).host) == (["node2/0", "node2/1"], "node2")
    listed = vllm(attributes={**vllm().attributes, "gpu_tokens.gpus": ["GPU-z"]})
    assert only(listed).gpus == ["GPU-z"]


def test_an_unplaced_instance_is_named_and_its_tokens_are_kept() -> None:
    found = usages(
        [vllm(), current(attributes={**current().attributes, "gen_ai.response.id": "y" * 30})],
        NOWHERE,
    )
    assert found.unplaced == {"vllm-chat@node1", "node1:8000"}
    assert sum(usage.prompt_tokens for usage, _ in found.usages) == 2000
    removed = InstanceBook([InstancePlacement("vllm-chat", (), None, None)])
    assert only(vllm(), book=removed).gpus == ["instance:vllm-chat@node1"]
    nameless = vllm(resource={})
    assert only(nameless).gpus == ["instance:unknown"]


def test_an_engine_that_does_not_say_who_it_is_is_where_its_client_asked() -> None:
    usage = only(current(), vllm(resource={}), book=placed("node1:8000", "GPU-a"))
    assert (usage.gpus, usage.queue_ms) == (["GPU-a"], 250)


def test_clients_are_left_out_where_the_engine_tells_of_all() -> None:
    book = placed("node1:8000", "GPU-a", counted_by=CountedBy.ENGINE)
    found = usages([current()], book)
    assert found.usages == []
    assert found.left_out == {LeftOut.TOLD_BY_ENGINE: 1}
    names = ("node1:8000", "vllm-chat")
    both = InstanceBook(
        [InstancePlacement(name, ("GPU-a",), "node1", None, CountedBy.ENGINE) for name in names]
    )
    assert only(vllm(), book=both).gpus == ["GPU-a"]


# -- the rest --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "sampled"),
    [
        ({}, False),
        ({"trace_state": "ot=th:0"}, False),
        ({"trace_state": "ot=rv:1;th:c"}, True),
        ({"trace_state": "x=1,ot=p:3;r:5"}, True),
        ({"trace_state": "ot=p:0"}, False),
        ({"attributes": {"SampleRate": 10}}, True),
        ({"attributes": {"SampleRate": 1}}, False),
        ({"attributes": {"sampler.type": "probabilistic", "sampler.param": 0.1}}, True),
        ({"attributes": {"sampler.type": "probabilistic", "sampler.param": 1}}, False),
        ({"attributes": {"sampler.type": "const", "sampler.param": True}}, False),
    ],
    ids=str,
)
def test_sampling_is_noticed(fields: dict[str, Any], sampled: bool) -> None:
    assert is_sampled(span(**fields)) == sampled
    assert usages([span(**fields)], NOWHERE).sampled == sampled


def test_whatever_attributes_hold_nothing_breaks() -> None:
    """Every name with every kind of value: a usage, a refusal, or nothing - never an exception."""
    from gpu_token_analytics.sources.span_figures import (
        COUNTED,
        LANGFUSE_FIRST_TOKEN,
        LANGFUSE_USAGE,
        NAMES,
    )

    names = [
        *(name for group in NAMES.values() for name in group),
        *COUNTED,
        LANGFUSE_USAGE,
        LANGFUSE_FIRST_TOKEN,
    ]
    names += [
        "server.address",
        "server.port",
        "url.full",
        "service.name",
        "host.name",
        "k8s.pod.name",
    ]
    values: list[Any] = [
        None,
        True,
        -1,
        0,
        7,
        10**30,
        0.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        "[",
        "[1]",
        "\0",
        "é" * 5000,
    ]
    values += [
        [],
        [None],
        ["a", 1],
        "http://[::",
        "http://a:b",
        "{}",
        '{"input": {}}',
        "2026-01-31T12:00:00",
    ]
    chosen = random.Random(7)
    for _ in range(3000):
        made = {name: chosen.choice(values) for name in chosen.sample(names, 12)}
        shape = chosen.choice([vllm, current, langfuse, openinference])()
        one = replace(
            shape,
            attributes={**shape.attributes, **made},
            resource=made,
            trace_state=str(chosen.choice(values)),
        )
        found = usages([one], NOWHERE)
        assert len(found.usages) + len(found.refused) + found.left_out.total() <= 1
        for usage, _ in found.usages:
            encode(usage)


def test_the_page_has_every_name() -> None:
    from tests.conftest import ROOT

    from gpu_token_analytics.sources.span_figures import (
        COUNTED,
        LANGFUSE_FIRST_TOKEN,
        LANGFUSE_USAGE,
        NAMES,
    )

    page = (ROOT / "docs" / "sources" / "opentelemetry.md").read_text()
    names = [
        *(name for group in NAMES.values() for name in group),
        *COUNTED,
        LANGFUSE_USAGE,
        LANGFUSE_FIRST_TOKEN,
    ]
    names += [value for values in COUNTED.values() for value in values]
    assert [name for name in names if f"`{name}`" not in page] == []
