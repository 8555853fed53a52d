"""ASGI middleware: an OpenAI-compatible server (or gateway) in Python tells what its requests used,
by itself.

    client = UsageClient(host="gpu-7", gpu_uuids=["GPU-1f0c"])
    app.add_middleware(UsageMiddleware, client=client, tenant_header="x-tenant")

It reads the `usage` of plain and streamed answers (answers.py lists whose). For streams of the chat
and completions APIs it asks the server for usage (`stream_options.include_usage`) where the caller
did not, and keeps the chunk that this adds from the caller. Answers pass through byte for byte and
as they come; nothing is held back.

A stream that the caller cuts off has no usage. Its event is marked `finish_reason="abort"`, and its
tokens are an estimate: the chunks of text seen so far, and a quarter of the prompt's bytes. With
`continuous_usage=True` (vLLM, SGLang: usage in every chunk, which callers then see) the last
chunk's own counts are taken instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

import msgspec

from gpu_tokens_client.answers import Answer, Tokens
from gpu_tokens_client.client import UsageClient

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# Ends of paths that cost tokens. The first two understand stream_options.
_ASKS_FOR_USAGE = ("/chat/completions", "/completions")
PATHS = (
    *_ASKS_FOR_USAGE,
    "/responses",
    "/embeddings",
    "/messages",
    "/rerank",
    "/api/chat",
    "/api/generate",
    "/api/embed",
)
MAX_REQUEST_BYTES = 8 * 1024 * 1024  # a larger request passes as it is
MAX_ANSWER_BYTES = 32 * 1024 * 1024  # a larger plain answer is not read; a line of a stream neither
_IN_THREAD_BYTES = 64 * 1024  # reading more would hold up the event loop
_BYTES_PER_TOKEN = 4  # of the estimate for streams that were cut off


class _Question(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


class UsageMiddleware:
    """Emits one event per answered request of the paths in PATHS; everything else passes
    untouched."""

    def __init__(
        self,
        app: App,
        client: UsageClient,
        *,
        tenant_header: str | None = None,
        tenant: Callable[[Scope], str | None] | None = None,
        continuous_usage: bool = False,
    ) -> None:
        """Wrap `app`. tenant_header: header that names the tenant; tenant: or a function of the
        ASGI scope that does."""
        self._app, self._client = app, client
        self._tenant_header = tenant_header.lower().encode() if tenant_header else None
        self._tenant, self._continuous = tenant, continuous_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["method"] != "POST"
            or not scope["path"].endswith(PATHS)
        ):
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        body, replay = await _read_request(receive)
        question = _question(body)
        hide_usage = False
        if body is not None and question.stream and scope["path"].endswith(_ASKS_FOR_USAGE):
            asked = bool((question.stream_options or {}).get("include_usage"))
            if not asked or self._continuous:
                body = _asking_for_usage(body, self._continuous)
                scope = _with_length(scope, len(body))
                replay = _replay(
                    [{"type": "http.request", "body": body, "more_body": False}], receive
                )
            hide_usage = not asked
        watch = _Watch(send, began, hide_usage)
        try:
            await self._app(scope, replay, watch.send)
        finally:
            # Also when the caller hung up (cancelled) or the server failed in the middle: the GPU
            # worked.
            await self._emit(scope, watch, question, body)

    async def _emit(
        self, scope: Scope, watch: _Watch, question: _Question, body: bytes | None
    ) -> None:
        if watch.status is None or watch.status >= 400:
            return
        if watch.plain:
            document = b"".join(watch.plain)
            if len(document) > _IN_THREAD_BYTES and watch.ended:
                await asyncio.to_thread(watch.answer.read, document)
            else:
                watch.answer.read(document)
        answer, tokens = watch.answer, watch.answer.tokens
        cut = watch.streams and not watch.ended
        if cut and tokens is None:
            tokens = Tokens(len(body or b"") // _BYTES_PER_TOKEN, watch.text_chunks)
        if tokens is None:
            # no model's answer: a health route of the same name, a server that says no usage
            return
        self._client.emit(
            model=answer.model or question.model,
            tenant=self._tenant_of(scope),
            prompt_tokens=tokens.prompt,
            completion_tokens=tokens.completion,
            cached_tokens=tokens.cached,
            reasoning_tokens=tokens.reasoning,
            latency_ms=(watch.last - watch.began) * 1000,
            ttft_ms=(watch.first - watch.began) * 1000 if watch.streams and watch.first else None,
            finish_reason="abort" if cut else answer.finish_reason,
            request_id=answer.response_id,
        )

    def _tenant_of(self, scope: Scope) -> str | None:
        if self._tenant is not None:
            return self._tenant(scope)
        values: Mapping[bytes, bytes] = dict(scope["headers"])
        named = values.get(self._tenant_header) if self._tenant_header else None
        return named.decode("latin-1")[:256] if named else None


class _Watch:
    """Passes an answer on and reads it on the way."""

    def __init__(self, send: Send, began: float, hide_usage: bool) -> None:
        self.began = self.last = began
        self.first: float | None = None  # when the first text came
        self.status: int | None = None
        self.streams = self.ended = False
        self.text_chunks = 0
        self.answer = Answer()
        self.plain: list[bytes] = []
        self._plain_bytes = 0
        self._line = b""
        self._send, self._hide_usage = send, hide_usage
        self._ndjson = False

    async def send(self, message: Message) -> None:
        """As ASGI's send."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kind = dict(message.get("headers", ())).get(b"content-type", b"")
            self._ndjson = kind.startswith(b"application/x-ndjson")
            self.streams = self._ndjson or kind.startswith(b"text/event-stream")
        elif message["type"] == "http.response.body":
            self.last = time.monotonic()
            message = self._body(message)
        await self._send(message)
        # Only now: where sending fails, the caller has hung up.
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.ended = True

    def _body(self, message: Message) -> Message:
        part: bytes = message.get("body", b"")
        if not self.streams:
            self._plain_bytes += len(part)
            if self._plain_bytes <= MAX_ANSWER_BYTES:
                self.plain.append(part)
            else:
                self.plain.clear()
            return message
        shown = self._lines(part, last=not message.get("more_body"))
        return {**message, "body": shown} if self._hide_usage else message

    def _lines(self, part: bytes, *, last: bool) -> bytes:
        """Read the whole lines of the stream so far. Returns what the caller gets of them."""
        *lines, self._line = (self._line + part).split(b"\n")
        if last and self._line:
            lines, self._line = [*lines, self._line], b""
            ends = [b"\n"] * (len(lines) - 1) + [b""]
        else:
            ends = [b"\n"] * len(lines)
        if len(self._line) > MAX_ANSWER_BYTES:
            lines, ends, self._line = [*lines, self._line], [*ends, b""], b""
        shown = []
        hiding = False
        for line, end in zip(lines, ends, strict=True):
            if hiding and not line.strip():
                hiding = False  # the empty line that ends a hidden event
                continue
            hiding = self._read(line.rstrip(b"\r")) and self._hide_usage
            if not hiding:
                shown.append(line + end)
        return b"".join(shown)

    def _read(self, line: bytes) -> bool:
        """Take in one line of a stream. True: it holds nothing but usage."""
        document = line if self._ndjson else line[5:].strip() if line.startswith(b"data:") else b""
        if not document.startswith(b"{"):
            return False
        usage_alone = self.answer.read(document)
        if not usage_alone:
            self.text_chunks += 1
            self.first = self.first or self.last
        return usage_alone


async def _read_request(receive: Receive) -> tuple[bytes | None, Receive]:
    """The body of a request, or None where it is too large or was cut off; and a `receive` that
    gives all of it again."""
    messages: list[Message] = []
    size = 0
    while True:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or size > MAX_REQUEST_BYTES:
            return None, _replay(messages, receive)
        if not message.get("more_body"):
            return b"".join(one.get("body", b"") for one in messages), _replay(messages, receive)


def _replay(messages: list[Message], receive: Receive) -> Receive:
    waiting = list(reversed(messages))

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


def _question(body: bytes | None) -> _Question:
    try:
        return msgspec.json.decode(body or b"{}", type=_Question)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Question()


def _asking_for_usage(body: bytes, continuous: bool) -> bytes:
    """The request with usage asked for. Its other members stay as they are, byte for byte."""
    members: dict[str, msgspec.Raw] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    given = members.get("stream_options")
    options = (msgspec.json.decode(given) if given is not None else None) or {}
    options["include_usage"] = True
    if continuous:
        options["continuous_usage_stats"] = True
    return msgspec.json.encode({**members, "stream_options": options})


def _with_length(scope: Scope, length: int) -> Scope:
    kept = [
        (name, value)
        for name, value in scope["headers"]
        if name.lower() not in (b"content-length", b"transfer-encoding")
    ]
    return {**scope, "headers": [*kept, (b"content-length", str(length).encode())]}
