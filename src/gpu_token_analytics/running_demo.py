"""The demo that runs on this machine, found by the other commands of the same user.

    $XDG_STATE_HOME/gpu-tokens/demo.json    (~/.local/state where that is not set) what it talks to,
                                            readable by its owner only

The demo holds a lock on the file while it runs, and a lock ends with its process however that ends:
what a killed demo left is not believed. MONGODB_URI or KAFKA_BOOTSTRAP in the environment is the
user's word, and nothing is looked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import SecretStr

from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.settings import Settings, load

_USERS_WORD = frozenset({"mongodb_uri", "kafka_bootstrap"})


@dataclass(frozen=True)
class RunningDemo:
    """What other commands need to know of a demo. `dashboard` is empty without one; `settings` are
    by their names."""

    folder: str
    dashboard: str
    settings: dict[str, Any]


def record_path() -> Path:
    """Where the running demo of this user says what it talks to."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "gpu-tokens" / "demo.json"


@contextlib.contextmanager
def published(demo: RunningDemo) -> Iterator[bool]:
    """Let other commands find this demo for a block. False: they do not, as another one runs or the
    file cannot be written."""
    with contextlib.ExitStack() as stack:
        try:
            path = record_path()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            file = stack.enter_context(path.open("a+"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(file, json.dumps(asdict(demo)))
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            with contextlib.suppress(OSError):
                _write(file, "")


def find() -> RunningDemo | None:
    """The demo that this user runs now."""
    try:
        with record_path().open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return RunningDemo(**json.loads(file.read()))
    except (OSError, ValueError, TypeError):
        return None  # none was ever run here, or it is just writing
    return None


def shared_settings(settings: Settings) -> dict[str, Any]:
    """What commands beside a demo have to know of its settings: those that are set, without secrets
    but its own database's address, which has none."""
    names = sorted(settings.model_fields_set)
    values = {name: getattr(settings, name) for name in names}
    shared = {name: value for name, value in values.items() if not isinstance(value, SecretStr)}
    return shared | {"mongodb_uri": settings.mongodb_uri.get_secret_value()}


def settings_beside_demo(**overrides: Any) -> Settings:
    """`load()` for a command that a person runs: beside a running demo, the demo's. Says so on
    standard error."""
    settings = load(**overrides)
    if settings.model_fields_set & _USERS_WORD or (demo := find()) is None:
        return settings
    missing = {
        name: value
        for name, value in demo.settings.items()
        if name not in settings.model_fields_set
    }
    print(
        visible(
            f"talking to the demo in {demo.folder}; set MONGODB_URI to talk to another database"
        ),
        file=sys.stderr,
    )
    return load(**{**missing, **overrides})


def _write(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
