"""What an operator says of an engine to scrape: `vllm=http://node1:8000`,
`sglang/decode=http://node1:30001`, `llamacpp=http://node1:8080#llama-3.3-70b`.

A role is for engines whose prompts are read on one and answered on another (disaggregated prefill
and decode): both count the prompt, so `prefill` says that its prompts count and its completions do
not, `decode` the other way round. What follows `#` is the model, for engines that do not name it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import cast, get_args
from urllib.parse import urlsplit, urlunsplit

from gpu_token_analytics.agent.engines.names import NAMES
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.wire.engines import Engine
from gpu_token_analytics.wire.instances import MAX_INSTANCE, canonical_instance

MOST_ENGINES = 256
_PORTS = {"http": 80, "https": 443}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})


class Role(StrEnum):
    """Which part of a request an engine does."""

    UNIFIED = "unified"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True)
class Target:
    """One engine to scrape."""

    engine: Engine
    url: str  # of its page
    instance: str  # its name in events, canonical
    role: Role = Role.UNIFIED
    model: str | None = None

    def __str__(self) -> str:
        return f"{self.engine} at {self.url}"


def targets_of(texts: Sequence[str], host: str) -> list[Target]:
    """The engines that are named. host: this machine, whose name stands for localhost in an
    instance's name: one of each machine has `localhost:8000`. Raises SettingsError."""
    targets = [_target(text, host) for text in texts]
    if len(targets) > MOST_ENGINES:
        raise SettingsError(
            f"--engine names {len(targets)} engines; one agent scrapes at most {MOST_ENGINES}: "
            "start another"
        )
    seen: dict[str, Target] = {}
    for target in targets:
        if target.instance in seen:
            raise SettingsError(
                f"--engine {target.url} is named twice ({target.instance}): its tokens would count "
                "twice"
            )
        seen[target.instance] = target
    return targets


def _target(text: str, host: str) -> Target:
    name, equals, url = text.strip().partition("=")
    engine, _, role = name.strip().lower().partition("/")
    known = ", ".join(get_args(Engine))
    if not equals or engine not in get_args(Engine):
        raise SettingsError(
            f"--engine {text!r}: write ENGINE=URL, such as vllm=http://node1:8000; engines are "
            f"{known}"
        )
    if role and role not in tuple(Role):
        raise SettingsError(
            f"--engine {text!r}: a role is {', '.join(Role)}, such as "
            f"{engine}/decode=http://node1:8000"
        )
    named = cast(Engine, engine)
    try:
        parts = urlsplit(url.strip())
        name_of, port = parts.hostname, parts.port
    except ValueError:
        parts, name_of, port = urlsplit(""), None, None
    if parts.scheme not in ("http", "https") or not name_of:
        raise SettingsError(
            f"--engine {text!r}: {url!r} is no URL; write {engine}=http://HOST:PORT"
        )
    path = parts.path if parts.path.strip("/") else NAMES[named].path
    page = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
    whole = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if name_of in _LOOPBACK:
        named_host = f"[{host}]" if ":" in host else host
        whole = f"{parts.scheme}://{named_host}:{port or _PORTS[parts.scheme]}"
    return Target(
        named,
        page,
        canonical_instance(whole)[:MAX_INSTANCE],
        Role(role or Role.UNIFIED),
        parts.fragment or None,
    )
