"""The middleware in front of a server that speaks the APIs, over real HTTP, read by the real
`openai` client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from door import Door
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.serving import serving

from gpu_tokens_client import UsageClient, sender
from gpu_tokens_client.asgi import UsageMiddleware

WORDS = ["one", "two", "three", "four"]
USAGE = {
    "prompt_tokens": 120,
    "completion_tokens": 4,
    "total_tokens": 124,
    "prompt_tokens_details": {"cached_tokens": 64},
}


class Engine:
    """An engine that answers WORDS; it keeps the requests it saw."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.pause_seconds = 0.0
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/embeddings", self.embeddings, methods=["POST"]),
                Route("/v1/messages", self.messages, methods=["POST"]),
                Route("/api/generate", self.ollama, methods=["POST"]),
                Route(
                    "/health",
                    lambda request: JSONResponse({"status": "ok"}),
                    methods=["GET", "POST"],
                ),
            ]
        )

    async def chat(self, request: Request) -> Response:
        asked = await request.json()
        self.requests.append(asked)
        if asked["model"] == "missing":
            return JSONResponse({"error": {"message": "no such model"}}, 404)
        head = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": asked["model"],
        }
        if not asked.get("stream"):
            choice = {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": " ".join(WORDS)},
            }
            return JSONResponse({**head, "choices": [choice], "usage": USAGE})
        return StreamingResponse(
            self._chunks(asked, head), media_type="text/event-stream; charset=utf-8"
        )

    async def _chunks(self, asked: dict[str, Any], head: dict[str, Any]) -> AsyncIterator[bytes]:
        options = asked.get("stream_options") or {}
        for index, word in enumerate(WORDS):
            finish = "stop" if index == len(WORDS) - 1 else None
            chunk = {
                **head,
                "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": finish}],
            }
            if options.get("continuous_usage_stats"):
                chunk["usage"] = {**USAGE, "completion_tokens": index + 1}
            whole = b"data: " + json.dumps(chunk).encode() + b"\n\n"
            yield whole[:17]  # TCP cuts where it likes
            yield whole[17:]
            await asyncio.sleep(self.pause_seconds)
        if options.get("include_usage"):
            yield b"data: " + json.dumps({**head, "choices": [], "usage": USAGE}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    async def embeddings(self, request: Request) -> Response:
        vector = [0.25] * 40_000  # large enough to be read in a thread
        usage = {"prompt_tokens": 8, "total_tokens": 8}
        data = [{"object": "embedding", "index": 0, "embedding": vector}]
        return JSONResponse({"object": "list", "data": data, "model": "e", "usage": usage})

    async def messages(self, request: Request) -> Response:
        usage = {
            "input_tokens": 10,
            "output_tokens": 2,
            "cache_read_input_tokens": 90,
            "cache_creation_input_tokens": 0,
        }
        return JSONResponse(
            {"id": "msg_1", "model": "c", "stop_reason": "end_turn", "content": [], "usage": usage}
        )

    async def ollama(self, request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            yield b'{"model":"o","response":"a","done":false}\n'
            yield (
                b'{"model":"o","response":"","done":true,"done_reason":"stop",'
                b'"prompt_eval_count":11,"eval_count":6}\n'
            )

        return StreamingResponse(lines(), media_type="application/x-ndjson")


class Served:
    """The engine behind the middleware, the client behind that, and what the door got."""

    def __init__(self, engine: Engine, url: str, usage: UsageClient, door: Door) -> None:
        self.engine, self.url, self.usage, self.door = engine, url, usage, door
        self.openai = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def events(self, count: int) -> list[dict[str, Any]]:
        """So many events and no more: the middleware notes a request after its answer has left, so
        they may be on their way."""
        while len(self.door.records) < count:
            self.usage.flush(1)
        assert self.usage.flush(30)
        assert len(self.door.records) == count
        return self.door.records

    def event(self) -> dict[str, Any]:
        """The one event that came."""
        return self.events(1)[0]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "LINGER_SECONDS", 0.02)


@pytest.fixture(params=[False])
def served(door: Door, request: pytest.FixtureRequest) -> Iterator[Served]:
    engine = Engine()
    with UsageClient(door.url, host="h", gpu_uuids=["GPU-1"], model="unknown") as usage:
        app = UsageMiddleware(
            engine.app, usage, tenant_header="X-Tenant", continuous_usage=request.param
        )
        with serving(app) as url:
            served = Served(engine, url, usage, door)
            yield served
            served.openai.close()


MESSAGES: Any = [{"role": "user", "content": "count"}]


def test_a_plain_answer(served: Served) -> None:
    answer = served.openai.chat.completions.create(
        model="m", messages=MESSAGES, extra_headers={"x-tenant": "search"}
    )
    assert answer.choices[0].message.content == "one two three four"
    event = served.event()
    assert {name: event[name] for name in ("model", "tenant", "prompt_tokens", "cached_tokens",
    "completion_tokens")} == {
        "model": "m", "tenant": "search", "prompt_tokens": 120, "cached_tokens": 64,
        "completion_tokens": 4,
    }  # fmt: skip
    assert event["request_id"] == "chatcmpl-1"
    assert event["finish_reason"] == "stop"
    assert event["latency_ms"] > 0
    assert "ttft_ms" not in event


@pytest.mark.parametrize("asks", [False, True])
def test_a_stream_whose_caller_asked_for_usage_or_not(served: Served, asks: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if asks else {}
    chunks = list(
        served.openai.chat.completions.create(model="m", messages=MESSAGES, stream=True, **options)
    )
    assert [chunk.choices[0].delta.content for chunk in chunks if chunk.choices] == WORDS
    assert [chunk.usage is not None for chunk in chunks if not chunk.choices] == (
        [True] if asks else []
    )
    assert served.engine.requests[0]["stream_options"]["include_usage"] is True
    event = served.event()
    assert (event["prompt_tokens"], event["cached_tokens"], event["completion_tokens"]) == (
        120,
        64,
        4,
    )
    assert 0 <= event["ttft_ms"] <= event["latency_ms"]
    assert event["finish_reason"] == "stop"


def _cut_after_two_words(served: Served) -> None:
    served.engine.pause_seconds = 0.3
    stream = served.openai.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    for count, _ in enumerate(stream, start=1):
        if count == 2:
            break
    stream.close()


def test_a_stream_that_is_cut_off_is_marked_and_estimated(served: Served) -> None:
    _cut_after_two_words(served)
    event = served.event()
    assert event["finish_reason"] == "abort"
    assert 2 <= event["completion_tokens"] <= 3
    assert event["prompt_tokens"] > 0


@pytest.mark.parametrize("served", [True], indirect=True)
def test_a_cut_stream_with_continuous_usage_has_the_engines_own_counts(served: Served) -> None:
    _cut_after_two_words(served)
    event = served.event()
    assert (event["prompt_tokens"], event["cached_tokens"]) == (120, 64)
    assert 2 <= event["completion_tokens"] <= 3
    assert event["finish_reason"] == "abort"


def test_embeddings_messages_and_ollama(served: Served) -> None:
    served.openai.embeddings.create(model="e", input="text", encoding_format="float")
    for path in ("/v1/messages", "/api/generate"):
        httpx.post(
            served.url + path, json={"model": "x"}, timeout=30, trust_env=False
        ).raise_for_status()
    counts = [
        (one["model"], one["prompt_tokens"], one["completion_tokens"]) for one in served.events(3)
    ]
    assert counts == [("e", 8, 0), ("c", 100, 2), ("o", 11, 6)]


def test_errors_and_other_routes_are_no_events(served: Served) -> None:
    with pytest.raises(openai.NotFoundError):
        served.openai.chat.completions.create(model="missing", messages=MESSAGES)
    httpx.post(f"{served.url}/health", json={}, timeout=30, trust_env=False).raise_for_status()
    assert served.usage.flush(30)
    assert served.usage.stats().emitted == 0


def test_other_members_of_a_request_reach_the_server_as_they_were(served: Served) -> None:
    body = (
        b'{"model":"m","messages":[],"stream":true,"seed":12345678901234567890,"temperature":0.10,'
        b'"x":{"b":1,"a":[2]}}'
    )
    headers = {"content-type": "application/json"}
    with httpx.Client(timeout=30, trust_env=False) as client:
        answer = client.post(f"{served.url}/v1/chat/completions", content=body, headers=headers)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert answer.text.count("data: ") == len(WORDS) + 1
    expected = {**json.loads(body), "stream_options": {"include_usage": True}}
    assert served.engine.requests == [expected]
