"""What an inference server's answer says about tokens, in the contract's inclusive counts.

Read are the `usage` objects of the OpenAI API (chat, completions, embeddings, responses), of
Anthropic's messages, and the counters of Ollama's and llama.cpp's own APIs. Every detail may be
null or missing; servers add fields freely.

    who counts what            prompt, and the cached part of it
    OpenAI chat, completions   prompt_tokens; prompt_tokens_details.cached_tokens
    OpenAI responses           input_tokens; input_tokens_details.cached_tokens
    Anthropic messages         input_tokens + cache_read + cache_creation; cache_read_input_tokens
    Ollama                     prompt_eval_count; unknown
    llama.cpp                  timings.prompt_n + timings.cache_n; timings.cache_n

Anthropic's `input_tokens` leaves out what the cache held, all others' include it: read alike, one
of them is wrong.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Tokens(msgspec.Struct, frozen=True):
    """Tokens of one request; `cached` is part of `prompt`, `reasoning` of `completion`."""

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_tokens: int | None = None  # SGLang says it at the top, too


class _Timings(msgspec.Struct):
    prompt_n: int | None = None
    cache_n: int | None = None
    predicted_n: int | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Nested(msgspec.Struct):
    """Where streams of OpenAI's responses (`response`) and Anthropic's messages (`message`,
    `delta`) keep it."""

    id: str | None = None
    model: str | None = None
    usage: _Usage | None = None
    status: str | None = None
    stop_reason: str | None = None


class _Document(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    usage: _Usage | None = None
    choices: list[_Choice] | None = None
    timings: _Timings | None = None
    # these three are a _Nested, or somebody else's: Ollama's /api/generate has its text in
    # `response`
    response: Any = None
    message: Any = None
    delta: Any = None
    status: str | None = None
    stop_reason: str | None = None
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None


class Answer(msgspec.Struct):
    """What one answer, or the chunks of a stream so far, said. None: not said yet."""

    response_id: str | None = None
    model: str | None = None
    tokens: Tokens | None = None
    finish_reason: str | None = None

    def read(self, document: bytes) -> bool:
        """Take in a whole answer or one chunk of a stream; later chunks replace earlier ones, they
        are cumulative.

        True: the chunk holds the usage and nothing else (OpenAI's last chunk, whose `choices` are
        empty). Raises nothing: what cannot be read says nothing.
        """
        try:
            part = _decoder.decode(document)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        nested = [_nested(value) for value in (part.response, part.message, part.delta)]
        self.response_id = (
            part.id or next((one.id for one in nested if one and one.id), None) or self.response_id
        )
        self.model = (
            part.model
            or next((one.model for one in nested if one and one.model), None)
            or self.model
        )
        self.finish_reason = _finish_reason(part, nested) or self.finish_reason
        usage = part.usage or next((one.usage for one in nested if one and one.usage), None)
        tokens = self._of_usage(usage) if usage else _of_counters(part)
        self.tokens = tokens or self.tokens
        return part.choices == [] and part.usage is not None

    def _of_usage(self, usage: _Usage) -> Tokens | None:
        if usage.prompt_tokens is not None:
            cached = _detail(usage.prompt_tokens_details, "cached_tokens")
            reasoning = (
                _detail(usage.completion_tokens_details, "reasoning_tokens")
                or usage.reasoning_tokens
                or 0
            )
            return Tokens(usage.prompt_tokens, usage.completion_tokens or 0, cached, reasoning)
        if usage.input_tokens is None and usage.output_tokens is None:
            return None
        prompt, cached = self._inputs(usage)
        # counts are cumulative: a later chunk that says less left some out
        if self.tokens and self.tokens.prompt > prompt:
            prompt, cached = self.tokens.prompt, self.tokens.cached
        return Tokens(
            prompt,
            usage.output_tokens or 0,
            cached,
            _detail(usage.output_tokens_details, "reasoning_tokens"),
        )

    @staticmethod
    def _inputs(usage: _Usage) -> tuple[int, int]:
        """(prompt, cached) of an `input_tokens` usage. Anthropic's message_delta may say the output
        alone."""
        if usage.input_tokens is None:
            return 0, 0
        anthropic = (
            usage.cache_read_input_tokens is not None
            or usage.cache_creation_input_tokens is not None
        )
        if not anthropic:
            return usage.input_tokens, _detail(usage.input_tokens_details, "cached_tokens")
        cached = usage.cache_read_input_tokens or 0
        return usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0), cached


_decoder = msgspec.json.Decoder(_Document)


def _nested(value: Any) -> _Nested | None:
    if not isinstance(value, dict):
        return None
    try:
        return msgspec.convert(value, _Nested)
    except msgspec.ValidationError:
        return None


def _detail(details: _Details | None, name: str) -> int:
    return (getattr(details, name) or 0) if details else 0


def _finish_reason(part: _Document, nested: list[_Nested | None]) -> str | None:
    reasons = [choice.finish_reason for choice in part.choices or ()]
    reasons += [part.stop_reason, part.done_reason]
    reasons += [one.stop_reason for one in nested if one]
    reasons += [
        status
        for status in (part.status, *(one.status for one in nested if one))
        if status != "in_progress"
    ]
    return next((reason for reason in reasons if reason), None)


def _of_counters(part: _Document) -> Tokens | None:
    timings = part.timings
    if timings is not None and timings.predicted_n is not None:
        cached = timings.cache_n or 0
        return Tokens((timings.prompt_n or 0) + cached, timings.predicted_n, cached)
    if part.done_reason is None and part.eval_count is None and part.prompt_eval_count is None:
        return None
    # Ollama leaves a count out when it is 0
    return Tokens(part.prompt_eval_count or 0, part.eval_count or 0)
