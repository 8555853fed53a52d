"""`gpu-tokens topics` and `gpu-tokens dead-letters`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from gpu_token_analytics.errors import InvalidRecord, Reason, SettingsError
from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.records import DeadLetter
from gpu_token_analytics.kafka.topics import create_topics, describe_group
from gpu_token_analytics.running_demo import settings_beside_demo
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.terminal.support import print_csv
from gpu_token_analytics.wire.events import decode

topics_app = typer.Typer(
    help="Create the topics, look at partitions and lag.", no_args_is_help=True
)
dead_letters_app = typer.Typer(
    help="List, show and re-send the records that were refused.", no_args_is_help=True
)

_ReasonOption = Annotated[
    Reason | None, typer.Option("--reason", help="Only letters with this reason.")
]
_At = Annotated[
    str,
    typer.Argument(
        metavar="PARTITION/OFFSET", help="Where the record was read, as `list` shows it."
    ),
]
_SHOWN_BYTES = 120
_LETTER_COLUMNS = (
    *("topic", "partition", "offset", "reason", "field", "message", "key", "value"),
    "cut_from_bytes",
)
_RESEND_TIMEOUT_SECONDS = 60.0


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(topics_app, name="topics")
    app.add_typer(dead_letters_app, name="dead-letters")


@topics_app.command("create")
def topics_create() -> None:
    """Create the topic, its dead-letter topic and the group's first offsets. Running it again
    changes nothing."""
    settings = settings_beside_demo()
    reports, seeded = create_topics(settings)
    for report in reports:
        typer.echo(
            f"{report.topic}: {'created' if report.created else 'exists'}, {report.partitions} "
            "partitions"
        )
        for note in report.notes:
            typer.echo(f"  note: {note}")
    typer.echo(f"group {settings.kafka_group}: first offset set for {seeded} partitions")


@topics_app.command("show")
def topics_show(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per partition.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One row per partition.")] = False,
) -> None:
    """Oldest, next and committed offset of each partition, and the lag."""
    states = describe_group(settings_beside_demo())
    names = ("partition", "low", "high", "committed", "lag")
    rows = [{name: getattr(state, name) for name in names} for state in states]
    if as_csv:
        print_csv(rows, names)
        return
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    typer.echo(f"{'partition':>9} {'oldest':>12} {'next':>12} {'committed':>12} {'lag':>10}")
    for state in states:
        committed = "not seeded" if state.committed is None else str(state.committed)
        typer.echo(
            f"{state.partition:>9} {state.low:>12} {state.high:>12} {committed:>12} {state.lag:>10}"
        )
    typer.echo(f"lag in all: {sum(state.lag for state in states)}")


@topics_app.command("resend-ledger")
def topics_resend_ledger() -> None:
    """Send every cell to the ledger's topic (LEDGER_TOPIC) again, as the processors come to it.

    For a topic that was deleted, or was switched on while some processor still ran without it. A
    revision that comes again changes nothing.
    """
    from gpu_token_analytics.mongo.client import COMMAND_CONNECT_MS, open_store
    from gpu_token_analytics.warehouse.outbox import Outbox

    settings = settings_beside_demo()
    if not settings.ledger_topic:
        raise SettingsError(
            "LEDGER_TOPIC is empty: set it to the topic that the processors send cells to"
        )
    store = open_store(settings, "gpu-tokens-topics", connect_ms=COMMAND_CONNECT_MS)
    try:
        Outbox(store).forget()
    finally:
        store.close()
    typer.echo(f"{settings.ledger_topic}: all cells will be sent again")


@dead_letters_app.command("list")
def dead_letters_list(
    reason: _ReasonOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per letter.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One row per letter.")] = False,
) -> None:
    """The records that were refused, with the reason. The last line counts all of them."""
    counts: Counter[str] = Counter()
    if as_csv:
        letters = islice(_matching(settings_beside_demo(), reason), limit)
        print_csv(map(_as_json, letters), _LETTER_COLUMNS)
        return
    for letter in _matching(settings_beside_demo(), reason):
        counts[letter.reason] += 1
        if counts.total() <= limit:
            typer.echo(json.dumps(_as_json(letter)) if as_json else _lines(letter))
    if not as_json:
        shown = (
            ", ".join(f"{visible(name)} {count}" for name, count in counts.most_common()) or "none"
        )
        typer.echo(f"{counts.total()} dead letters: {shown}")


@dead_letters_app.command("show")
def dead_letters_show(at: _At) -> None:
    """One refused record: the reason on stderr, its exact bytes on stdout (`show 3/17 >
    record.json`)."""
    letter = _at(settings_beside_demo(), at)
    where = f" in field {letter.field}" if letter.field else ""
    typer.echo(
        visible(f"{letter.topic} {letter.at}: {letter.reason}{where}: {letter.message}"), err=True
    )
    if letter.cut_from_bytes is not None:
        typer.echo(
            f"only the first {len(letter.value or b'')} of {letter.cut_from_bytes} bytes were kept",
            err=True,
        )
    sys.stdout.buffer.write(letter.value or b"")
    sys.stdout.buffer.flush()


@dead_letters_app.command("resend")
def dead_letters_resend(
    at: Annotated[
        str | None,
        typer.Argument(metavar="[PARTITION/OFFSET]", help="One letter; none: all that match."),
    ] = None,
    reason: _ReasonOption = None,
    value_file: Annotated[
        Path | None,
        typer.Option(
            help="Send this file's content in place of the refused bytes (one letter only)."
        ),
    ] = None,
) -> None:
    """Send refused records again, after the producer's data or the contract was repaired.

    What would be refused again, or was too long to be kept whole, is not sent but counted. Sending
    twice is harmless: events are stored once by id.
    """
    settings = settings_beside_demo()
    if value_file is not None and at is None:
        raise SettingsError("--value-file repairs one letter: name it as PARTITION/OFFSET")
    if reason is not None and at is not None:
        raise SettingsError(f"--reason {reason}: {at} is one letter already; leave one of them out")
    letters = _matching(settings, reason) if at is None else iter([_at(settings, at)])
    sent, still_bad = 0, Counter[str]()
    with EventProducer(settings, client="resend") as producer:
        for letter in letters:
            if letter.cut_from_bytes is not None and value_file is None:
                still_bad[letter.reason] += 1
                continue
            value = letter.value if value_file is None else value_file.read_bytes().rstrip(b"\n")
            try:
                decode(value, datetime.now(UTC))
            except InvalidRecord as error:
                if at is not None:
                    raise
                still_bad[error.reason] += 1
                continue
            producer.send_raw(value, letter.key)
            sent += 1
        producer.flush(_RESEND_TIMEOUT_SECONDS)
    refused = ", ".join(f"{name} {count}" for name, count in still_bad.most_common())
    typer.echo(f"sent {sent}" + (f"; not sent, still refused: {refused}" if refused else ""))


def _matching(settings: Settings, reason: Reason | None) -> Iterator[DeadLetter]:
    return (
        letter
        for letter in read_dead_letters(settings)
        if reason is None or letter.reason == reason
    )


def _at(settings: Settings, at: str) -> DeadLetter:
    letter_there = next(
        islice((letter for letter in read_dead_letters(settings) if letter.at == at), 1), None
    )
    if letter_there is None:
        raise SettingsError(
            f"no dead letter was read at {at!r}; `gpu-tokens dead-letters list` shows "
            "PARTITION/OFFSET"
        )
    return letter_there


def _lines(letter: DeadLetter) -> str:
    """Its place and reason, and below them the first bytes of what was refused."""
    value = (letter.value or b"")[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    why = f"{visible(letter.reason):<16} {visible(letter.message[:160])}"
    return f"{letter.at:>12}  {why}\n{'':>14}{visible(value)}"


def _as_json(letter: DeadLetter) -> dict[str, str | int | None]:
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "field": letter.field,
        "message": letter.message,
        "key": None if letter.key is None else letter.key.decode("utf-8", "backslashreplace"),
        "value": None if letter.value is None else letter.value.decode("utf-8", "backslashreplace"),
        "cut_from_bytes": letter.cut_from_bytes,
    }
