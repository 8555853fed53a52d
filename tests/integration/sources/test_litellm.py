"""docs/sources/litellm.md, done as written with LiteLLM's real proxy in an environment of its own;
only the engine behind it is a fake. Plain, streamed, cut off, retried, cached by LiteLLM: exact
tokens, and a cost by model and tenant."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.conftest import ROOT, unavailable
from tests.integration.sources.conftest import World, wait_for
from tests.integration.sources.pages import ADDRESS, KEY, Page
from tests.programs import running
from tests.serving import serving

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.child import free_port
from gpu_token_analytics.errors import EmbeddedServiceError
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.wire.usage import USAGE as USAGE_KIND

REQUIREMENTS = ROOT / "requirements" / "litellm.txt"
USAGE = {
    "prompt_tokens": 120,
    "completion_tokens": 4,
    "total_tokens": 124,
    "prompt_tokens_details": {"cached_tokens": 64},
}
WORDS = ["one ", "two ", "three ", "four"]
MASTER_KEY = "sk-" + sha256(os.urandom(16)).hexdigest()


class Engine:
    """Answers WORDS; fails every second time where the prompt says FAIL."""

    def __init__(self) -> None:
        self.asked = 0
        self.cut = 0
        routes = [Route("/v1/chat/completions", self.chat, methods=["POST"])]
        self.app = Starlette(routes=routes)

    async def chat(self, request: Request) -> Response:
        asked = await request.json()
        self.asked += 1
        if "FAIL" in json.dumps(asked["messages"]) and self.asked % 2:
            return JSONResponse({"error": {"message": "out of memory"}}, 500)
        head = {"id": f"chatcmpl-{self.asked:032x}", "created": 1, "model": asked["model"]}
        if not asked.get("stream"):
            choice = {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "".join(WORDS)},
            }
            return JSONResponse(
                {**head, "object": "chat.completion", "choices": [choice], "usage": USAGE}
            )
        return StreamingResponse(
            self._chunks(asked, {**head, "object": "chat.completion.chunk"}),
            media_type="text/event-stream",
        )

    async def _chunks(self, asked: dict[str, Any], head: dict[str, Any]) -> AsyncIterator[bytes]:
        slow = "SLOW" in json.dumps(asked["messages"])
        try:
            for index, word in enumerate(WORDS):
                finish = "stop" if index == len(WORDS) - 1 else None
                choice = {
                    "index": 0,
                    "delta": {"role": "assistant", "content": word},
                    "finish_reason": finish,
                }
                yield b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"
                await asyncio.sleep(1.0 if slow else 0.05)
            if (asked.get("stream_options") or {}).get("include_usage"):
                yield (
                    b"data: "
                    + json.dumps({**head, "choices": [], "usage": USAGE}).encode()
                    + b"\n\n"
                )
            yield b"data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.cut += 1
            raise


@pytest.fixture(scope="session")
def environment() -> Path:
    """LiteLLM with pinned, hash-checked packages, kept in the user's cache folder; some 3 minutes,
    once."""
    base = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpu-tokens" / "litellm"
    )
    version = f"{sys.version_info.major}.{sys.version_info.minor}".encode()
    folder = base / sha256(REQUIREMENTS.read_bytes() + version).hexdigest()[:16]
    base.mkdir(parents=True, exist_ok=True)
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            command = [
                str(folder / "bin" / "pip"),
                "install",
                "--quiet",
                "--require-hashes",
                "-r",
                str(REQUIREMENTS),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                said = " ".join(done.stderr.split())[-400:]
                unavailable(
                    EmbeddedServiceError(
                        f"LiteLLM's proxy cannot be installed into {folder}: {said}"
                    )
                )
            (folder / "installed").touch()
    return folder


class Proxy:
    """LiteLLM's proxy, and the engine behind it."""

    def __init__(self, engine: Engine, url: str, log: Path) -> None:
        self.engine, self.log = engine, log
        self.client = openai.OpenAI(
            base_url=f"{url}/v1", api_key=MASTER_KEY, max_retries=0, timeout=120
        )

    def ask(self, prompt: str, user: str, **more: Any) -> Any:
        messages: Any = [{"role": "user", "content": prompt}]
        return self.client.chat.completions.create(
            model="chat", messages=messages, user=user, **more
        )


@pytest.fixture
def proxy(
    world: World, environment: Path, tmp_path: Path, keep_log: Callable[[Path], None]
) -> Iterator[Proxy]:
    engine = Engine()
    with serving(engine.app) as behind:
        page = Page("litellm")
        key, *declared = page.commands[:-1]
        secret = world.run(key).split()[0]
        for command in declared:
            world.run(command.replace("http://node1:8000", behind))
        (config,) = page.yaml
        # A response cache of LiteLLM's own, to be seen as one; retries; the rest is the page's.
        more = (
            "  cache: true\n  cache_params: {type: local, supported_call_types: [acompletion]}\n  "
            "num_retries: 2\n"
        )
        (tmp_path / "config.yaml").write_text(
            textwrap.dedent(config).replace("http://node1:8000", behind) + more
        )
        made = {
            name: value.replace(KEY, secret).replace(ADDRESS, world.environment["TEST_API"])
            for name, value in page.exports.items()
        }
        made["GPU_TOKENS_SPOOL_DIR"] = str(tmp_path / "spool")
        (install,) = page.installs
        target = tmp_path / "packages"
        path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
        child_environment = {
            **os.environ, **made, "PATH": path, "PYTHONPATH": str(target),
            "LITELLM_MASTER_KEY": MASTER_KEY,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }  # fmt: skip
        # Beside the environment, which other runs share; what it needs is pinned there.
        apart = ["--target", str(target), "--no-deps"]
        subprocess.run([*shlex.split(install), *apart], cwd=ROOT, env=child_environment, check=True)
        port, log = free_port(), tmp_path / "litellm.log"
        keep_log(log)
        line = page.start.replace("--port 4000", f"--host 127.0.0.1 --port {port}")
        with running(shlex.split(line), log, child_environment, tmp_path) as child:
            url = f"http://127.0.0.1:{port}"
            wait_for(
                lambda: child.poll() is not None or _lives(url), f"LiteLLM does not listen: {log}"
            )
            assert child.poll() is None, log.read_text()[-3000:]
            proxy = Proxy(engine, url, log)
            yield proxy
            proxy.client.close()


def _lives(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/liveliness", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_calls_through_the_real_proxy_become_costs_by_model_and_tenant(
    world: World, store: Store, proxy: Proxy
) -> None:
    assert proxy.ask("plain", "acme").usage.prompt_tokens == 120
    streamed = [
        chunk.choices[0].delta.content
        for chunk in proxy.ask("streamed", "acme", stream=True)
        if chunk.choices
    ]
    assert [word for word in streamed if word] == WORDS
    assert proxy.engine.asked == 2
    proxy.engine.asked = 2  # the next is odd: it fails, and LiteLLM tries again
    assert proxy.ask("FAIL once", "globex").choices[0].message.content == "".join(WORDS)
    assert proxy.engine.asked == 4
    proxy.ask("plain", "acme")
    assert proxy.engine.asked == 4, "LiteLLM's response cache answered"
    stream = proxy.ask("SLOW and cut off in the middle", "globex", stream=True)
    for count, _ in enumerate(stream):
        if count == 1:
            break
    stream.close()
    wait_for(lambda: proxy.engine.cut == 1, "the engine is not told that the caller has gone")
    events = store[USAGE_KIND.collection]
    wait_for(lambda: events.count_documents({}) >= 4, "not all calls have arrived")
    time.sleep(3)  # what must not come has time to come
    found = {document["request_id"][-1]: document for document in events.find()}
    assert sorted(found) == ["1", "2", "4", "5"], "each call that an engine answered"
    assert events.count_documents({}) == 4, "once"
    whole = [found[number] for number in "124"]
    assert {
        (one["prompt_tokens"], one["cached_tokens"], one["completion_tokens"]) for one in whole
    } == {(120, 64, 4)}
    assert {one["finish_reason"] for one in whole} == {"stop"}
    assert found["2"]["ttft_ms"] < found["2"]["latency_ms"]
    assert "ttft_ms" not in found["1"] or found["1"]["ttft_ms"] is None
    cut = found["5"]
    assert cut["finish_reason"] == "abort"
    assert 0 < cut["prompt_tokens"] < 120, "LiteLLM's own estimate"
    assert 0 < cut["completion_tokens"] < 4
    assert {tuple(one["gpus"]) for one in found.values()} == {("node1/0",)}
    assert {one["host"] for one in found.values()} == {"node1"}

    def closed() -> bool:
        totals = json.loads(world.run("report --last 1h --by model,tenant --json"))["totals"]
        return bool(totals["requests"] == 4 and totals["money"]["attributed_nusd"])

    world.wait_until(closed)
    wait_for(
        lambda: not store[Collection.LEDGER_CELLS].find_one({"rolled": False}),
        "the sums are behind",
    )
    answer = json.loads(world.run(f"{Page('litellm').commands[-1]} --json"))
    rows = {
        (row["group"]["model"], row["group"]["tenant"]): row
        for row in answer["rows"]
        if row["group"]["model"]
    }
    assert {key: row["requests"] for key, row in rows.items()} == {
        ("llama-3.3-70b", "acme"): 2,
        ("llama-3.3-70b", "globex"): 2,
    }
    assert all(row["money"]["attributed_nusd"] > 0 for row in rows.values())
    assert rows["llama-3.3-70b", "acme"]["tokens"]["prompt"] == 240
    assert json.loads(world.run("audit --wait 60 --json"))["holds"]
