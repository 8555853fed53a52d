"""`gpu-tokens simulate` and `gpu-tokens replay`."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gpu_token_analytics import logs
from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.errors import SettingsError, TraceUnreadable
from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.settings import load
from gpu_token_analytics.signals import stoppable
from gpu_token_analytics.simulate.disturb import Delivery, Disturbances, disturb
from gpu_token_analytics.simulate.fleet import TokenTimes, default_fleet
from gpu_token_analytics.simulate.load import Load, generate
from gpu_token_analytics.simulate.replay import DEFAULT_TIMES, Assumptions, replay, shift_to_now_us
from gpu_token_analytics.simulate.run import Sent, send_stream
from gpu_token_analytics.simulate.trace import TraceFacts, TraceRow, read_trace, survey
from gpu_token_analytics.wire.events import MAX_AHEAD_SECONDS
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.sinks import EventSink

_DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the records, one per line, instead of sending them.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("simulate")(simulate)
    app.command("replay")(replay_trace)


def simulate(
    rate: Annotated[float, typer.Option(help="Requests per second over the whole fleet, on average.")] = 10.0,
    hosts: Annotated[int, typer.Option(help="Hosts of the fleet.")] = 3,
    gpus_per_host: Annotated[int, typer.Option(help="GPUs of each host.")] = 4,
    duration: Annotated[float | None, typer.Option(help="Stop after this many seconds; default: never.")] = None,
    start: Annotated[str, typer.Option(help="History: first moment, such as 2026-01-31T00:00:00Z.")] = "",
    hours: Annotated[float | None, typer.Option(help="History: hours from --start, or until now.")] = None,
    sample_interval: Annotated[float, typer.Option(help="Seconds between samples of a GPU; 0: no samples.")] = 5.0,
    flat: Annotated[bool, typer.Option("--flat", help="The same rate all day, without peak and trough.")] = False,
    late: Annotated[float, typer.Option(help="Share of events sent 1-15 minutes late.")] = 0.0,
    duplicates: Annotated[float, typer.Option(help="Share of events sent twice.")] = 0.0,
    broken: Annotated[float, typer.Option(help="Broken records added per event; they end in the dead letters.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same events; default: another one each time.")] = None,
    dry_run: _DryRun = False,
) -> None:
    """Send the events of a simulated GPU fleet: live in real time, or history as fast as Kafka takes it.

    The fleet shows everything the ledger tells apart: busy GPUs with batches, a tensor-parallel pair, models that are
    loaded but idle, GPUs with nothing loaded, and (from nine GPUs on) one busy without a known request. Load follows the
    hour of the day (UTC) and comes in bursts. Its GPU samples carry the source `seed`: declared, not measured.

    Examples: `gpu-tokens simulate --rate 20` | `gpu-tokens simulate --hours 24 --rate 5 --seed 1` |
    `gpu-tokens simulate --duration 60 --late 0.01 --duplicates 0.05 --broken 0.001`
    """
    history = bool(start) or hours is not None
    begin, seconds = _span(SystemClock().now(), start, hours, duration)
    seed = secrets.randbelow(2**32) if seed is None else seed
    fleet = default_fleet(hosts, gpus_per_host, name_host=load().host_at_site)
    load_ = Load(rate, 0.0) if flat else Load(rate)
    events = generate(fleet, begin, seconds, seed, load=load_, sample_interval_seconds=sample_interval or None)
    if seconds is not None:
        end = begin + timedelta(seconds=seconds)  # a request that ends later has not happened yet
        events = takewhile(lambda event: event.ts <= end, events)
    deliveries = disturb(events, Disturbances(late, duplicates, broken), seed)
    typer.echo(
        f"{len(fleet.gpus)} GPUs on {len(fleet.hosts)} hosts ({fleet.price_per_hour_usd:.2f} $/h), {rate:g} requests/s, "
        f"seed {seed}, from {begin:%Y-%m-%d %H:%M:%S} UTC" + ("" if history else ", live"),
        err=True,
    )
    with _progress("simulated", None if not history else round(seconds or 0)) as bar:

        def show(sent: Sent, delivery: Delivery) -> None:
            if sent.records % 200 == 0 or not history:
                elapsed = delivery.at_us / 1e6 - begin.timestamp()
                bar.update(bar.task_ids[0], completed=elapsed if history else sent.requests)

        sent = _send(deliveries, "simulate", dry_run, 0.0 if history else 1.0, show)
    _summary(sent)


def replay_trace(
    file: Annotated[Path, typer.Argument(help="CSV with TIMESTAMP,ContextTokens,GeneratedTokens.")],
    speed: Annotated[
        float, typer.Option(min=0, help="1 is real time, 10 ten times faster, 0 as fast as Kafka takes it.")
    ] = 0.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N requests.")] = None,
    shift_to_now: Annotated[bool, typer.Option("--shift-to-now", help="Move the trace so that it looks live.")] = False,
    gpus: Annotated[int, typer.Option(help="GPUs the requests are spread over.")] = 4,
    hosts: Annotated[int | None, typer.Option(help="Hosts of these GPUs; default 2, or 1 for a single GPU.")] = None,
    models: Annotated[str, typer.Option(help="Model names, comma-separated, repeated over the GPUs.")] = "chat-a,chat-b",
    tenants: Annotated[str, typer.Option(help="Tenant names, comma-separated.")] = "team-a,team-b,team-c",
    base_ms: Annotated[float, typer.Option(help="Time to first token: constant part.")] = DEFAULT_TIMES.base_ms,
    prefill_ms_per_token: Annotated[
        float, typer.Option(help="Time to first token: per context token.")
    ] = DEFAULT_TIMES.prefill_ms_per_token,
    decode_ms_per_token: Annotated[
        float, typer.Option(help="Time per generated token after the first.")
    ] = DEFAULT_TIMES.decode_ms_per_token,
    concurrency: Annotated[int, typer.Option(help="Requests one GPU runs at once; more wait in its queue.")] = 32,
    gpu_samples: Annotated[
        bool,
        typer.Option("--gpu-samples", help="Also send GPU samples, as the replay implies them; they give its GPUs money."),
    ] = False,
    sample_interval: Annotated[float, typer.Option(help="Seconds between these samples.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Seed of the rule that picks GPU and tenant.")] = 1,
    dry_run: _DryRun = False,
) -> None:
    """Replay a request trace (Azure LLM inference trace format) as usages.

    Arrival and token counts are the trace's. What it does not say is assumed: GPU and tenant by a hash of seed and row,
    the model by the GPU, and the duration by this model:

    time to first token = queue + base_ms + prefill_ms_per_token x context tokens;
    latency = time to first token + decode_ms_per_token x (generated tokens - 1).

    The same file with the same options is the same events: replaying it twice changes nothing. No GPU samples are sent
    unless asked for, so that only what is in the trace is claimed. Then its GPUs have no money until they are declared
    (`gpu-tokens gpus declare`): tokens count at once, and the money is the same whenever that comes.

    Examples: `gpu-tokens replay trace.csv` | `gpu-tokens replay trace.csv --speed 60 --shift-to-now` |
    `gpu-tokens replay trace.csv --limit 1000 --gpus 8 --dry-run`
    """
    facts = survey(file)
    _name_bad_rows(file, facts)
    if facts.rows == 0:
        raise TraceUnreadable(f"{file} has no readable request ({facts.bad_rows} bad rows)")
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
    ).check()

    def rows() -> Iterator[TraceRow]:
        return islice(read_trace(file, lambda _: None), limit)

    if shift_to_now:
        assumptions = replace(assumptions, shift_us=shift_to_now_us(rows(), assumptions, SystemClock().now(), speed))
    total = min(facts.rows, limit or facts.rows)
    with _progress("requests", total) as bar:

        def show(sent: Sent, _delivery: Delivery) -> None:
            if sent.requests % 100 == 0 or sent.requests == total:
                bar.update(bar.task_ids[0], completed=sent.requests)

        events: Iterable[Event] = replay(rows(), assumptions, limit)
        sent = _send(disturb(events, Disturbances(), seed), "replay", dry_run, speed, show)
    times = assumptions.times
    typer.echo(
        f"assumed: {assumptions.gpus} GPUs on {assumptions.hosts} hosts, {concurrency} requests at once each; "
        f"first token {times.base_ms:g} ms + {times.prefill_ms_per_token:g} ms per context token, "
        f"then {times.decode_ms_per_token:g} ms per token",
        err=True,
    )
    if not gpu_samples:
        typer.echo(
            "no samples were sent: a GPU that nobody ever sampled or declared has tokens and no money; "
            "send them with --gpu-samples, or declare it: gpu-tokens gpus declare",
            err=True,
        )
    _summary(sent)


class _LineSink:
    """Prints each record as a line on stdout, as it would go to Kafka."""

    def send(self, event: Event) -> None:
        self.send_raw(encode(event), event.host)

    def send_raw(self, value: bytes, key: str) -> None:  # noqa: ARG002 - the key is Kafka's
        sys.stdout.buffer.write(value + b"\n")

    def flush(self, timeout_seconds: float) -> None:  # noqa: ARG002 - a pipe takes what it takes
        sys.stdout.buffer.flush()


def _send(
    deliveries: Iterable[Delivery], client: str, dry_run: bool, speed: float, on_sent: Callable[[Sent, Delivery], None]
) -> Sent:
    settings = load()
    logs.configure(settings)
    sink: EventSink = _LineSink()
    if not dry_run:
        from gpu_token_analytics.kafka.producer import EventProducer  # loads librdkafka: not for `--dry-run` and `--help`

        sink = producer = EventProducer(settings, client=client)
        producer.check()
    with stoppable() as stop:
        return send_stream(deliveries, sink, SystemClock(), stop, speed=speed, on_sent=on_sent)


def _span(now: datetime, start: str, hours: float | None, duration: float | None) -> tuple[datetime, float | None]:
    """First moment and length in seconds (None: endless). Raises SettingsError naming the option."""
    for name, value in (("--hours", hours), ("--duration", duration)):
        if value is not None and not 0 < value <= 24 * 366 * 3600:
            raise SettingsError(f"{name} {value} cannot be used; give more than 0")
    if not start and hours is None:
        return now, duration
    if duration is not None:
        raise SettingsError("--duration is for live simulation; with --start or --hours give the length as --hours")
    try:
        begin = datetime.fromisoformat(start) if start else now - timedelta(hours=hours or 24)
    except ValueError:
        raise SettingsError(f"--start {start!r} is not a time; give one such as 2026-01-31T00:00:00Z") from None
    if begin.tzinfo is None:
        raise SettingsError(f"--start {start!r} has no zone; add one, such as {start}Z for UTC")
    seconds = 3600 * hours if hours is not None else min(86_400.0, (now - begin).total_seconds())
    if seconds <= 0 or begin + timedelta(seconds=seconds) > now + timedelta(seconds=MAX_AHEAD_SECONDS):
        raise SettingsError(
            f"the history would end after now ({now:%Y-%m-%dT%H:%M:%SZ}), and events of the future are refused; "
            "give an earlier --start or fewer --hours"
        )
    return begin.astimezone(UTC), seconds


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _name_bad_rows(file: Path, facts: TraceFacts) -> None:
    """Say which rows are left out, before anything is sent."""
    for row in facts.first_bad_rows:
        typer.echo(visible(f"{file.name}: line {row.line} is left out: {row.problem}"), err=True)
    if facts.bad_rows > len(facts.first_bad_rows):
        typer.echo(f"{file.name}: {facts.bad_rows - len(facts.first_bad_rows)} more lines are left out", err=True)


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Progress]:
    """A progress bar on stderr; nothing where stderr is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task(what, total=total)
        yield bar


def _summary(sent: Sent) -> None:
    """What went out, on stderr."""
    span = "" if sent.first_ts is None or sent.last_ts is None else f"{sent.first_ts.isoformat()} to {sent.last_ts.isoformat()}"
    typer.echo(
        f"sent{' until stopped' if sent.stopped else ''}: {sent.requests:,} requests, {sent.prompt_tokens:,} prompt and "
        f"{sent.completion_tokens:,} completion tokens, {sent.samples:,} GPU samples, {sent.broken:,} broken records, "
        f"{len(sent.gpus)} GPUs, {span}",
        err=True,
    )
