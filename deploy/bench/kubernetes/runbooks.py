"""docs/runbooks.md followed as it is written: every alert's condition made, its commands run, what
cures it, and its end."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.bench.kubernetes import conditions
from deploy.bench.kubernetes.alerts import Alarm
from deploy.bench.kubernetes.conditions import Condition
from deploy.bench.report import CheckFailed, expect
from deploy.bench.shell import CommandFailed
from deploy.flows import ROOT
from deploy.observability.table import ALERTS, PAGE, alert_names

if TYPE_CHECKING:
    from deploy.bench.kubernetes.checks import Bench

PAGE_FILE = ROOT / "docs/runbooks.md"
SPEED = 15
_FIRING_SECONDS = 600
_TOLD_SECONDS = 120
_OVER_SECONDS = 600
_GONE = "hen the cause is gone"
_BLOCK = re.compile(r"^ *```bash\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Runbook:
    """One alert's section. `commands` are run while it fires, `after` when its cause is gone;
    `see`: others to follow."""

    alert: str
    commands: tuple[str, ...]
    after: tuple[str, ...]
    see: tuple[str, ...]


def read() -> tuple[str, dict[str, Runbook]]:
    """What the page says to define first, and the section of each alert."""
    head, *sections = re.split(r"^## (\w+)\n", PAGE_FILE.read_text(), flags=re.MULTILINE)
    preparation = "\n".join(_BLOCK.findall(head))
    books = {}
    for alert, text in zip(sections[::2], sections[1::2], strict=True):
        before, _, later = text.partition(_GONE)
        see = tuple(
            name
            for name in dict.fromkeys(re.findall(r"\b[A-Z]\w+\b", text))
            if name in alert_names() and name != alert
        )
        books[alert] = Runbook(alert, _commands(before), _commands(later), see)
    return preparation, books


def _commands(text: str) -> tuple[str, ...]:
    lines = (line.strip() for block in _BLOCK.findall(text) for line in block.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def severity(alert: str) -> str:
    """`page` or `ticket`."""
    known = {item.name: item.severity for item in ALERTS}
    return known.get(alert, "page" if alert.endswith("Page") else "ticket")


def shipped(bench: Bench) -> None:
    """The shipped rules and the shipped Alertmanager, nothing in them made faster: real faults
    until the receiver is told."""
    alarm = Alarm(bench)
    alarm.listen()
    _follow_all(
        bench,
        alarm,
        conditions.with_shipped_rules(),
        "alerts of the shipped rules, as they are",
        hurried=False,
    )


def hurried(bench: Bench) -> None:
    """Every other alert, with time in the rules fifteen times faster."""
    alarm = Alarm(bench)
    alarm.listen()
    with bench.report.check(
        f"CA3: Prometheus with the shipped rules, time in them {SPEED} times faster"
    ):
        conditions.prepare(bench)
        alarm.hurry(SPEED)
    _follow_all(
        bench,
        alarm,
        conditions.with_hurried_rules(),
        f"alerts, time in the rules {SPEED} times faster",
        hurried=True,
    )


def _follow_all(
    bench: Bench, alarm: Alarm, made: list[Condition], what: str, *, hurried: bool
) -> None:
    preparation, books = read()
    rows: list[list[object]] = []
    for condition in made:
        names = ", ".join(condition.alerts)
        end = ", over" if hurried else ""
        with bench.report.check(
            f"CA3: {names}: fires, is received, its runbook followed as written{end}"
        ):
            rows += _follow(bench, alarm, condition, preparation, books, hurried=hurried)
    header = [
        what,
        "made by",
        "fired after (s)",
        "received at",
        "commands followed",
        "over after (s)",
    ]
    bench.report.table(header, rows)


def _follow(
    bench: Bench,
    alarm: Alarm,
    condition: Condition,
    preparation: str,
    books: Mapping[str, Runbook],
    *,
    hurried: bool,
) -> list[list[object]]:
    alarm.await_over([name for name in condition.alerts if _ends(name)], _OVER_SECONDS)
    before = len(alarm.told())
    ran: dict[str, int] = {}
    shown = condition.make(bench)
    try:
        fired = alarm.await_firing(condition.alerts, _FIRING_SECONDS)
        received = {name: _received(alarm, name, before) for name in condition.alerts}
        for name in condition.alerts:
            words = {**shown.get("", {}), **shown.get(name, {})}
            ran[name] = _run(bench, preparation, books[name].commands, words, condition.exits)
    finally:
        condition.heal(bench)
    healed = time.monotonic()
    for name in condition.alerts:
        words = {**shown.get("", {}), **shown.get(name, {})}
        ran[name] += _run(
            bench, preparation, books[name].after, words, condition.exits, patience_seconds=240
        )
    bench.workload.wait_until_ready(600)
    over = "not waited for"  # the shipped windows look back for minutes to hours
    if hurried:
        alarm.await_over([name for name in condition.alerts if _ends(name)], _OVER_SECONDS)
        over = f"{time.monotonic() - healed:.0f}"
        for name in condition.alerts:
            if not name.endswith("Ticket"):
                alarm.await_told("resolved", name, _path(name), before, _TOLD_SECONDS)
    return [
        [name, condition.how_of(name), f"{fired[name]:.0f}", received[name], _told(ran[name],
        books[name]),
         over if _ends(name) else "its windows are days"]
        for name in condition.alerts
    ]  # fmt: skip


def _told(commands: int, book: Runbook) -> str:
    return str(commands) if commands else f"as {book.see[0]}"


def _ends(alert: str) -> bool:
    """Whether it ends within minutes of its cause. A slow burn's ticket looks back over days."""
    return severity(alert) == PAGE or alert in {item.name for item in ALERTS}


def _received(alarm: Alarm, alert: str, before: int) -> str:
    """Where it was received. The ticket of an objective whose page fires is held back, as
    Alertmanager's rules want it."""
    if alert.endswith("Ticket"):
        expect(
            alert.removesuffix("Ticket") + "Page" in alarm.firing(),
            f"{alert} fires and its page does not",
        )
        return "held back beside its page"
    alarm.await_told("firing", alert, _path(alert), before, _TOLD_SECONDS)
    return _path(alert)


def _path(alert: str) -> str:
    return f"/{severity(alert)}s"


def _run(
    bench: Bench,
    preparation: str,
    commands: tuple[str, ...],
    shown: Mapping[str, str],
    exits: Mapping[str, int],
    patience_seconds: float = 0,
) -> int:
    """Each command by itself, in a shell that has what the page says to define; returns how many
    they were.

    Raises CheckFailed when one ends with another status than 0, or than the one that the page names
    (`exits`). patience_seconds: how long one is repeated that does not.
    """
    words = "".join(f"{name}={shlex.quote(value)}\n" for name, value in shown.items())
    for command in commands:
        wanted = next((status for start, status in exits.items() if command.startswith(start)), 0)
        missing = [name for name in re.findall(r"\$([A-Z]+)\b", command) if name not in shown]
        expect(not missing, f"nothing says what {missing} is in: {command}")
        script = f"set -euo pipefail\n{preparation}\n{words}{command}\n"
        end = time.monotonic() + patience_seconds
        while True:
            try:
                done = bench.operator.tell(script, timeout_seconds=400)
            except CommandFailed as late:
                raise CheckFailed(
                    f"the runbook's command does not end: {command}: {late}"
                ) from None
            if done.returncode == wanted:
                break
            said = done.stdout.strip()[-800:]
            expect(
                time.monotonic() < end, f"exit {done.returncode}, not {wanted}: {command}\n{said}"
            )
            time.sleep(5)
        lines = done.stdout.strip().splitlines()
        bench.report.say(f"$ {command}\n" + "\n".join(f"    {line[:200]}" for line in lines[-4:]))
    return len(commands)
