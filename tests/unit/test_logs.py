"""Logs carry what happened, and never a password."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from gpu_token_analytics import logs
from gpu_token_analytics.settings import Settings, load

SECRET = "p@ss/w0rd-canary"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    noisy = {name: logging.getLogger(name).level for name in ("pymongo", "httpx", "uvicorn")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in noisy.items():
        logging.getLogger(name).setLevel(before)


def settings(log_format: str) -> Settings:
    return load(
        log_format=log_format,
        kafka_sasl_password=SECRET,
        mongodb_uri="mongodb://user:p%40ss%2Fw0rd-canary@db.example:27017/?authSource=admin",
    )


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_redacted_wherever_they_come_up(log_format: str) -> None:
    out = io.StringIO()
    logging.root.handlers[:] = []  # configure(force=True) would close pytest's own
    logs.configure(settings(log_format), out)
    log = logging.getLogger("test")
    log.warning("login with %s failed", SECRET)
    log.warning("cannot reach %s", "mongodb://user:p%40ss%2Fw0rd-canary@db.example")
    try:
        raise ValueError(f"bad password {SECRET}")
    except ValueError:
        log.exception("it failed")
    assert "canary" not in out.getvalue()
    assert out.getvalue().count("***") >= 3


def test_json_is_one_object_per_line() -> None:
    out = io.StringIO()
    logging.root.handlers[:] = []
    logs.configure(settings("json"), out)
    logging.getLogger("some.part").error("two\nlines")
    (line,) = out.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == (
        "ERROR",
        "some.part",
        "two\nlines",
    )
    assert entry["ts"].endswith("+00:00")


def test_level_is_obeyed() -> None:
    out = io.StringIO()
    logging.root.handlers[:] = []
    logs.configure(load(log_level="WARNING"), out)
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud")
    assert "quiet" not in out.getvalue()
    assert "loud" in out.getvalue()


@pytest.mark.parametrize(
    ("log_format", "said"), [("text", " INFO site=b app: up"), ("json", '"site": "b"')]
)
def test_lines_say_their_site_where_there_are_several(log_format: str, said: str) -> None:
    out = io.StringIO()
    logs.configure(load(log_format=log_format, site="b"), out)
    logging.getLogger("app").info("up")
    assert said in out.getvalue()
    out = io.StringIO()
    logs.configure(load(log_format=log_format), out)
    logging.getLogger("app").info("up")
    assert "site" not in out.getvalue()


def json_lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_lines_carry_the_ids_they_are_about() -> None:
    out = io.StringIO()
    logging.root.handlers[:] = []
    logs.configure(settings("json"), out)
    log = logging.getLogger("app")
    with logs.about(request_id="r1", trace_id=None):
        log.warning("slow", extra={"event_id": SECRET, "partition": 0, "colour": "red"})
    log.warning("other")
    first, second = json_lines(out)
    assert (first["request_id"], first["partition"]) == ("r1", 0)
    assert first["event_id"] == "***", "a secret is one in any field"
    assert "trace_id" not in first, "unknown is left out"
    assert "colour" not in first, "the list of fields is closed"
    assert "request_id" not in second
