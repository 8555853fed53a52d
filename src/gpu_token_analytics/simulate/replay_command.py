"""`gpu-tokens replay`: a published trace, or the history in any CSV file, as usages."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.errors import SettingsError, TraceUnreadable
from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.simulate.disturb import Disturbances, disturb
from gpu_token_analytics.simulate.fleet import TokenTimes
from gpu_token_analytics.simulate.progress import ReplayProgress
from gpu_token_analytics.simulate.replay import DEFAULT_TIMES, Assumptions, replay, shift_to_now_us
from gpu_token_analytics.simulate.run import Delivery, Sent
from gpu_token_analytics.simulate.sending import (
    DryRun,
    progress_bar,
    say_sent,
    send,
    settings_to_send,
)
from gpu_token_analytics.simulate.trace import FAILED, BadRow, Trace, TraceFacts, TraceRow
from gpu_token_analytics.simulate.trace_layout import Field, read_mapping
from gpu_token_analytics.wire.events import MAX_AHEAD_SECONDS
from gpu_token_analytics.wire.fields import MAX_LATENCY_MS
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.times import EARLIEST_TS, to_us


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("replay")(replay_trace)


def replay_trace(
    file: Annotated[
        Path,
        typer.Argument(
            help="A trace: of Azure, BurstGPT, Mooncake or Qwen-Bailian, or any CSV with --map."
        ),
    ],
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", help="What columns mean: FIELD=COLUMN, comma-separated; repeatable."),
    ] = None,
    time_unit: Annotated[
        str | None, typer.Option(help="With --map: s, ms, us or ns of times that are numbers.")
    ] = None,
    start: Annotated[
        str, typer.Option(help="When a trace began whose times count from 0: 2026-10-01T00:00:00Z.")
    ] = "",
    gpu: Annotated[
        list[str] | None,
        typer.Option(help="GPU (UUID or host/index) of all its requests; repeatable."),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            min=0, help="1 is real time, 10 ten times faster, 0 as fast as Kafka takes it."
        ),
    ] = 0.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N requests.")] = None,
    shift_to_now: Annotated[
        bool, typer.Option("--shift-to-now", help="Move the trace so that it looks live.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the same replay was interrupted.")
    ] = False,
    bad_rows: Annotated[
        Path | None, typer.Option(help="Write every row that is left out to this CSV file.")
    ] = None,
    gpus: Annotated[
        int, typer.Option(help="GPUs the requests are spread over, if the file names none.")
    ] = 4,
    hosts: Annotated[
        int | None, typer.Option(help="Hosts of these GPUs; default 2, or 1 for a single GPU.")
    ] = None,
    models: Annotated[
        str, typer.Option(help="Model names, comma-separated, repeated over the GPUs.")
    ] = "chat-a,chat-b",
    tenants: Annotated[
        str, typer.Option(help="Tenant names, comma-separated.")
    ] = "team-a,team-b,team-c",
    base_ms: Annotated[
        float, typer.Option(help="Time to first token: constant part.")
    ] = DEFAULT_TIMES.base_ms,
    prefill_ms_per_token: Annotated[
        float, typer.Option(help="Time to first token: per context token.")
    ] = DEFAULT_TIMES.prefill_ms_per_token,
    decode_ms_per_token: Annotated[
        float, typer.Option(help="Time per generated token after the first.")
    ] = DEFAULT_TIMES.decode_ms_per_token,
    concurrency: Annotated[
        int, typer.Option(help="Requests one GPU runs at once; more wait in its queue.")
    ] = 32,
    gpu_samples: Annotated[
        bool,
        typer.Option(
            "--gpu-samples",
            help="Also send GPU samples, as the replay implies them; they give its GPUs money.",
        ),
    ] = False,
    sample_interval: Annotated[float, typer.Option(help="Seconds between these samples.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Seed of the rule that picks GPU and tenant.")] = 1,
    dry_run: DryRun = False,
) -> None:
    """Replay a trace, or the history in any CSV file, as usages.

    Tokens, times and names are the file's. What it does not say is assumed: GPU and tenant by a
    hash of seed and row, the model by the GPU, and the duration by this model:

    time to first token = queue + base_ms + prefill_ms_per_token x context tokens that are not
    cached;
    latency = time to first token + decode_ms_per_token x (generated tokens - 1).

    Fields of --map: ts (when it arrived), end, input_tokens, output_tokens, cached_tokens,
    reasoning_tokens, latency_ms, queue_ms, ttft_ms (or ..._seconds), model, tenant, host, gpus,
    request_id, finish_reason; and id, by which a request counts once in whatever file it stands.

    The same file with the same options is the same events: replaying it twice changes nothing.
    Requests are priced as of their day. GPUs that nobody sampled or declared have no money until
    they are declared (`gpu-tokens gpus declare`): tokens count at once, and the money is the same
    whenever that comes.

    Examples: `gpu-tokens replay trace.csv` | `gpu-tokens replay mooncake.jsonl --start
    2026-10-01T00:00:00Z` | `gpu-tokens replay october.csv --map
    ts=started_at,input_tokens=prompt,output_tokens=completion,latency_ms=ms,gpus=gpu`
    """
    now = SystemClock().now()
    trace = Trace(
        file,
        read_mapping(columns or (), time_unit, gpu or ()),
        _start_us(start, shift_to_now),
        to_us(now + timedelta(seconds=MAX_AHEAD_SECONDS)),
    )
    facts = _surveyed(file, trace, bad_rows)
    assumptions = Assumptions(
        trace_sha256=facts.sha256,
        trace_name=file.stem[:128],
        seed=seed,
        gpus=gpus,
        hosts=min(2, gpus) if hosts is None else hosts,
        models=_names(models),
        tenants=_names(tenants),
        times=TokenTimes(base_ms, prefill_ms_per_token, decode_ms_per_token),
        concurrency=concurrency,
        sample_interval_seconds=sample_interval if gpu_samples else None,
        layout=facts.layout,
        start_us=_start_us(start, False),
    ).check()
    assumptions = assumptions.needed()

    def rows() -> Iterator[TraceRow]:
        return islice(trace.rows(lambda _: None), limit)

    if shift_to_now:
        assumptions = replace(
            assumptions, shift_us=shift_to_now_us(rows(), assumptions, now, speed)
        )
    elif start and not facts.layout.time_unit:
        raise SettingsError(
            f"--start is for files whose times count from 0; {file.name} has times of day: leave "
            "it out"
        )
    _check_end(rows, assumptions, facts, now)
    settings = settings_to_send(dry_run)
    progress = _progress_of(assumptions, settings, limit, resume, dry_run, shift_to_now)
    before = progress.acknowledged() if progress is not None and resume else 0
    if before:
        typer.echo(f"going on after {before:,} records that Kafka has acknowledged", err=True)
    total = min(facts.rows, limit or facts.rows)
    with progress_bar("records" if gpu_samples else "requests", total) as bar:
        bar.update(bar.task_ids[0], completed=min(before, total))

        def show(sent: Sent, _delivery: Delivery) -> None:
            if sent.requests % 100 == 0 or sent.requests == total:
                bar.update(bar.task_ids[0], completed=before + sent.requests)

        events: Iterable[Event] = islice(replay(rows(), assumptions, limit), before, None)
        deliveries = disturb(events, Disturbances(), seed)
        sent = send(
            deliveries,
            "replay",
            settings,
            dry_run,
            speed,
            show,
            None if progress is None else _Keeper(progress, before),
        )
    _say_assumed(assumptions, facts)
    say_sent(sent)
    if progress is not None and not sent.stopped:
        progress.forget()
    elif sent.stopped:
        typer.echo(
            (
                f"stopped after {before + sent.records:,} records; the same command with --resume "
                "goes on from there"
            ),
            err=True,
        )


def _start_us(start: str, shift_to_now: bool) -> int | None:
    """Of times that count from 0. Raises SettingsError."""
    if not start:
        return to_us(EARLIEST_TS) if shift_to_now else None  # any: all of it is shifted
    try:
        at = datetime.fromisoformat(start)
    except ValueError:
        raise SettingsError(
            f"--start {start!r} is not a time; give one such as 2026-10-01T00:00:00Z"
        ) from None
    if at.tzinfo is None:
        raise SettingsError(f"--start {start!r} has no zone; add one, such as {start}Z for UTC")
    if at < EARLIEST_TS:
        raise SettingsError(f"--start {start!r} is before {EARLIEST_TS:%Y}; give a later one")
    return to_us(at)


def _surveyed(file: Path, trace: Trace, bad_rows: Path | None) -> TraceFacts:
    """What is in the file; rows that are left out are named before anything is sent. Raises
    TraceUnreadable."""
    with ExitStack() as stack:
        on_bad_row: Callable[[BadRow], None] | None = None
        if bad_rows is not None:
            try:
                writer = csv.writer(
                    stack.enter_context(bad_rows.open("w", encoding="utf-8", newline=""))
                )
            except OSError as error:
                raise SettingsError(
                    f"--bad-rows {bad_rows} cannot be written: {error.strerror}"
                ) from None
            writer.writerow(["line", "problem"])

            def on_bad_row(row: BadRow) -> None:
                writer.writerow(row)

        facts = trace.survey(on_bad_row)
    _name_bad_rows(file, facts)
    if facts.rows == 0:
        raise TraceUnreadable(f"{file} has no readable request ({facts.bad_rows} bad rows)")
    return facts


def _check_end(
    rows: Callable[[], Iterator[TraceRow]],
    assumptions: Assumptions,
    facts: TraceFacts,
    now: datetime,
) -> None:
    """Before anything is sent: nothing ends after now. Raises SettingsError."""
    if (
        assumptions.shift_us
        or facts.layout.has_durations
        or facts.latest_us + MAX_LATENCY_MS * 1000 < to_us(now)
    ):
        return
    last = max(
        (event.ts for event in replay(rows(), replace(assumptions, sample_interval_seconds=None))),
        default=now,
    )
    if last > now + timedelta(seconds=MAX_AHEAD_SECONDS):
        raise SettingsError(
            f"the last request would end at {last:%Y-%m-%dT%H:%M:%SZ}, after now, by the assumed "
            "durations; give an earlier "
            "--start, more --gpus or a higher --concurrency"
        )


class _Keeper:
    """Keeps how far a replay came; says once where it cannot."""

    def __init__(self, progress: ReplayProgress, before: int) -> None:
        self._progress, self._before, self._said = progress, before, False

    def __call__(self, records: int) -> None:
        problem = self._progress.write(self._before + records)
        if problem is not None and not self._said:
            self._said = True
            typer.echo(
                (
                    f"how far it came cannot be kept ({problem}): after an interruption begin "
                    "again, it counts once"
                ),
                err=True,
            )


def _progress_of(
    assumptions: Assumptions,
    settings: Settings,
    limit: int | None,
    resume: bool,
    dry_run: bool,
    shift_to_now: bool,
) -> ReplayProgress | None:
    """Where this replay keeps how far it came; None: it is another one each time. Raises
    SettingsError."""
    if dry_run or shift_to_now:
        if resume:
            given = "--dry-run" if dry_run else "--shift-to-now"
            raise SettingsError(
                f"--resume cannot be used with {given}: there is nothing to go on with"
            )
        return None
    interval = assumptions.sample_interval_seconds
    progress = ReplayProgress.of(
        assumptions.namespace, limit, interval, settings.kafka_bootstrap, settings.kafka_topic
    )
    if resume and not progress.acknowledged():
        typer.echo(
            "no interrupted replay of this file with these options is known: "
            "it begins at the start",
            err=True,
        )
    if not resume:
        progress.forget()
    return progress


def _say_assumed(assumptions: Assumptions, facts: TraceFacts) -> None:
    """What the file did not say, and what its figures are worth."""
    layout, times = assumptions.layout, assumptions.times
    assumed = []
    if not layout.has_gpus:
        at_once = (
            "" if layout.has_durations else f", {assumptions.concurrency} requests at once each"
        )
        assumed.append(f"{assumptions.gpus} GPUs on {assumptions.hosts} hosts{at_once}")
    if Field.MODEL not in layout.columns:
        assumed.append(f"models {', '.join(assumptions.models)}")
    if Field.TENANT not in layout.columns:
        assumed.append(f"tenants {', '.join(assumptions.tenants)}")
    if not layout.has_durations:
        assumed.append(
            f"first token {times.base_ms:g} ms + {times.prefill_ms_per_token:g} ms per context "
            "token, "
            f"then {times.decode_ms_per_token:g} ms per token"
        )
    if assumed:
        typer.echo(visible(f"assumed: {'; '.join(assumed)}"), err=True)
    if layout.block_tokens:
        typer.echo(
            f"cached tokens, by blocks of {layout.block_tokens} that were there before: "
            f"{facts.cached_tokens:,}, an upper "
            "bound (of a cache that never forgets)",
            err=True,
        )
    if facts.failed:
        typer.echo(
            (
                f"requests that failed (finish_reason {FAILED}): {facts.failed:,}; their prompts "
                "are counted"
            ),
            err=True,
        )
    if assumptions.sample_interval_seconds is None:
        has_time = layout.has_gpus or layout.has_durations
        typer.echo(
            "no samples were sent: a GPU that nobody ever sampled or declared has tokens and no "
            f"money; {'' if has_time else 'send them with --gpu-samples, or '}"
            "declare it: gpu-tokens gpus declare",
            err=True,
        )


def _name_bad_rows(file: Path, facts: TraceFacts) -> None:
    """Say which rows are left out, before anything is sent."""
    for row in facts.first_bad_rows:
        typer.echo(visible(f"{file.name}: line {row.line} is left out: {row.problem}"), err=True)
    if facts.bad_rows > len(facts.first_bad_rows):
        typer.echo(
            f"{file.name}: {facts.bad_rows - len(facts.first_bad_rows)} more lines are left out",
            err=True,
        )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))
