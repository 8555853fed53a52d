"""`gpu-tokens simulate` and `replay` as a user runs them, printing instead of sending."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gpu_token_analytics.cli import app
from gpu_token_analytics.errors import InvalidRecord, SettingsError, TraceUnreadable
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.usage import TokenUsage

TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n" + "\r\n".join(
    f"2023-11-16 18:{minute:02}:{second:02}.1234567,{100 + second},{1 + minute}"
    for minute in range(3)
    for second in range(60)
)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, [*arguments, "--dry-run"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def events(result: Result) -> list[Event]:
    return [decode(line) for line in result.stdout_bytes.splitlines()]


def test_history_is_repeatable_and_stays_inside_its_span() -> None:
    arguments = (
        "simulate",
        "--start",
        "2026-01-15T12:00:00+01:00",
        "--hours",
        "0.1",
        "--rate",
        "5",
        "--seed",
        "3",
    )
    first = run(*arguments)
    assert first.stdout == run(*arguments).stdout
    found = events(first)
    assert {type(event) for event in found} == {TokenUsage, GpuSample}
    assert min(event.ts for event in found).isoformat() == "2026-01-15T11:00:00+00:00"
    assert max(event.ts for event in found).isoformat() <= "2026-01-15T11:06:00+00:00"


def test_disturbances_on_request() -> None:
    options = (
        "--rate",
        "20",
        "--seed",
        "3",
        "--duplicates",
        "0.1",
        "--late",
        "0.1",
        "--broken",
        "0.05",
        "--flat",
    )
    result = run("simulate", "--start", "2026-01-15T12:00:00Z", "--hours", "0.2", *options)
    ids: dict[str, int] = {}
    broken = 0
    for line in result.stdout_bytes.split(b"\n")[:-1]:
        try:
            event = decode(line)
        except InvalidRecord:
            broken += 1
        else:
            ids[event.event_id] = ids.get(event.event_id, 0) + 1
    assert broken > 100
    assert sum(1 for count in ids.values() if count == 2) > 500
    assert "broken records" in result.stderr


def test_live_runs_for_its_duration() -> None:
    found = events(
        run(
            "simulate",
            "--duration",
            "1",
            "--rate",
            "50",
            "--sample-interval",
            "0.5",
            "--hosts",
            "1",
        )
    )
    span = max(event.ts for event in found) - min(event.ts for event in found)
    assert span.total_seconds() == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--start", "2026-01-15T12:00:00"), "has no zone"),
        (("--start", "last week"), "--start 'last week'"),
        (("--start", "2199-01-01T00:00:00Z"), "future"),
        (("--hours", "0"), "--hours 0"),
        (("--hours", "20000000"), "--hours 20000000.0 cannot be used; give more than 0, at most"),
        (("--duration", "40000000"), "at most 31622400"),
        (("--hours", "1", "--duration", "5"), "--duration"),
        (("--duration", "-1"), "--duration -1"),
        (("--late", "2", "--hours", "1"), "--late 2"),
        (("--rate", "-1", "--hours", "1"), "requests_per_second=-1"),
        (("--gpus-per-host", "0", "--hours", "1"), "gpus per host=0"),
    ],
)
def test_options_that_cannot_be_used_are_named(arguments: tuple[str, ...], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        run("simulate", *arguments)


def write(tmp_path: Path, text: str = TRACE) -> str:
    path = tmp_path / "my-trace.csv"
    path.write_text(text, newline="")
    return str(path)


def test_replay_sends_the_trace_and_says_what_it_assumed(tmp_path: Path) -> None:
    result = run("replay", write(tmp_path))
    found = events(result)
    assert len(found) == 180
    assert all(isinstance(event, TokenUsage) for event in found)
    prompt = sum(event.prompt_tokens for event in found if isinstance(event, TokenUsage))
    assert prompt == 3 * sum(100 + second for second in range(60))
    assert f"180 requests, {prompt:,} prompt" in result.stderr
    assert "assumed: 4 GPUs on 2 hosts" in result.stderr
    assert run("replay", write(tmp_path)).stdout == result.stdout


def test_replay_options_reach_the_events(tmp_path: Path) -> None:
    options = (
        "--limit",
        "50",
        "--gpus",
        "2",
        "--hosts",
        "1",
        "--models",
        "m1, m2",
        "--tenants",
        "t",
        "--gpu-samples",
    )
    found = events(run("replay", write(tmp_path), *options))
    usages = [event for event in found if isinstance(event, TokenUsage)]
    assert len(usages) == 50
    assert {(event.host, event.tenant) for event in usages} == {("replay-1", "t")}
    assert {event.model for event in usages} == {"m1", "m2"}
    assert {event.source for event in found if isinstance(event, GpuSample)} == {"replay"}


def test_a_shifted_replay_ends_now(tmp_path: Path) -> None:
    from gpu_token_analytics.clock import SystemClock

    found = events(run("replay", write(tmp_path), "--shift-to-now"))
    assert abs((found[-1].ts - SystemClock().now()).total_seconds()) < 10
    assert (found[-1].ts - found[0].ts).total_seconds() == pytest.approx(180, abs=5)


def test_replay_at_speed_takes_its_time(tmp_path: Path) -> None:
    from gpu_token_analytics.clock import SystemClock

    before = SystemClock().monotonic()
    run("replay", write(tmp_path), "--speed", "100")
    assert SystemClock().monotonic() - before > 1.7


def test_bad_rows_are_named_before_anything_is_sent(tmp_path: Path) -> None:
    lines = TRACE.split("\r\n")
    lines[5] = "yesterday,1,1"
    lines[9:9] = [f"bad{number},1,1" for number in range(12)]
    result = run("replay", write(tmp_path, "\r\n".join(lines)))
    assert len(events(result)) == 179
    assert "my-trace.csv: line 6 is left out: TIMESTAMP='yesterday'" in result.stderr
    assert "3 more lines are left out" in result.stderr


def test_the_bad_rows_of_a_trace_without_a_request_are_named(tmp_path: Path) -> None:
    path = write(
        tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,9799600,4808,10\n"
    )
    result = CliRunner().invoke(app, ["replay", str(path), "--dry-run"])
    assert isinstance(result.exception, TraceUnreadable)
    assert "line 2 is left out: 4 columns, 3 expected" in result.stderr
    assert not result.stdout


def test_a_trace_without_a_request_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceUnreadable, match="no readable request"):
        run("replay", write(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n"))
