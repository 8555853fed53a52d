"""The Azure trace through CA1's four machines: every request once, every token in the ledger,
whatever machine dies."""

from __future__ import annotations

import json
import time
from pathlib import Path

from deploy.bench.checks import replay
from deploy.bench.checks.replay import Sums
from deploy.bench.report import Report, expect
from deploy.bench.shell import CommandFailed, run, wait
from deploy.bench.vms.machines import USER, Bench

_HOME = "/opt/gpu-tokens"
_COMPOSE = "sudo docker compose -p gpu-tokens"
_TRACE = f"/home/{USER}/trace.csv"  # not /tmp: that is gone when the machine loses power
_REPLAYED = "replayed"


def run_checks(report: Report, bench: Bench, *, kill_machines: bool) -> None:
    """Needs CA1's machines with everything running; leaves the producers stopped."""
    trace: list[Path] = []
    with report.check("end to end: the trace is on vm4"):
        trace.append(replay.find_trace())
        run(
            [
                "scp",
                "-q",
                *bench.ssh_options,
                str(trace[0]),
                f"{USER}@{bench.table.machines['vm4-producers'].ip}:{_TRACE}",
            ]
        )
        bench.ssh("vm4-producers", f"cd {_HOME}/vm4-producers && {_COMPOSE} stop -t 20")
    if not trace:
        return
    expected = replay.sums_of(trace[0])
    with report.check(
        f"end to end: {expected.requests:,} requests replayed from vm4 are on vm2, each once, "
        "their tokens exact"
    ):
        started = time.monotonic()
        report.say(_replay(bench, "azure", "--speed 0").strip().splitlines()[-1])
        _await_stored(bench, "azure", expected, 120)
        report.say(f"stored {time.monotonic() - started:.1f} s after the replay began")
    audited(report, bench, "azure", expected)
    with report.check("end to end: a second replay of the same file changes nothing"):
        _replay(bench, "azure", "--speed 0")
        time.sleep(3)
        expect(_stored(bench, "azure") == expected, f"{_stored(bench, 'azure')}, not {expected}")
    if kill_machines:
        for name in bench.table.machines:
            killed_during_replay(report, bench, name, expected)


def killed_during_replay(report: Report, bench: Bench, name: str, expected: Sums) -> None:
    """One machine loses power in the middle of a replay and comes back."""
    model = name.partition("-")[0]
    with report.check(
        f"end to end: {name} loses power during a replay and restarts; nothing lost, nothing "
        "doubled"
    ):
        _replay(bench, model, "--speed 60", detached=True)  # the hour of the trace in 60 s
        before = _await_some(bench, model, expected.requests // 10)
        bench.kill(name)
        time.sleep(4)
        bench.start(name)
        bench.wait_until_up(name)
        report.say(f"{name} was down for about 5 s, with {before:,} requests stored before it died")
        expect(
            0 < before < expected.requests,
            f"{before} requests were stored when {name} died: it did not die in the middle",
        )
        # the producer itself died: whoever runs it again sends the same events
        if name == "vm4-producers":
            bench.ssh(
                name,
                f"cd {_HOME}/{name} && {_COMPOSE} stop -t 20; sudo docker rm -f {_REPLAYED}",
                check=False,
            )
            _replay(bench, model, "--speed 0")
        _await_stored(bench, model, expected, 240)
        wait(lambda: _healthy(bench), 120, "not every container is healthy again")
    audited(report, bench, model, expected)


def audited(report: Report, bench: Bench, model: str, expected: Sums) -> None:
    """The ledger's own sums for these models, and the audit of everything."""
    with report.check(
        f"end to end ({model}): exactly these requests and tokens in the ledger, audit exact to "
        "the nano-dollar"
    ):
        # This machine's own GPU samples go on, so some cell is always due: wait for the replay's
        # cells, not for all.
        replay.await_sums(lambda: _in_ledger(bench, model), expected, 180, "in the ledger")
        said = bench.ssh(
            "vm3-processor", f"make -s -C {_HOME}/vm3-processor audit", timeout_seconds=240
        )
        report.say(
            "\n".join(
                [
                    "",
                    *(
                        f"    {line}"
                        for line in said.strip().splitlines()[-8:]
                        if "CONFWARN" not in line
                    ),
                ]
            )
        )


def _in_ledger(bench: Bench, model: str) -> Sums:
    return _query(
        bench,
        f'db.ledger_cells.aggregate([{{$unwind: "$lines"}}, {{$match: {{"lines.model": '
        f"/^{model}-/}}}}, "
        "{$group: {_id: null, "
        'requests: {$sum: "$lines.requests"}, prompt_tokens: {$sum: "$lines.prompt_tokens"}, '
        'completion_tokens: {$sum: "$lines.completion_tokens"}}}])',
    )


def _replay(bench: Bench, model: str, speed: str, *, detached: bool = False) -> str:
    """Replays the trace from vm4 with models named after `model`, in the product's own
    container."""
    how = f"-d --name {_REPLAYED}" if detached else "--rm -T"
    command = (
        f"cd {_HOME}/vm4-producers && sudo docker rm -f {_REPLAYED} >/dev/null 2>&1; "
        f"{_COMPOSE} run {how} --no-deps -v {_TRACE}:/data/{replay.NAME}:ro simulate replay "
        f"/data/{replay.NAME} {speed} "
        f"--models {model}-a,{model}-b --gpu-samples"
    )
    return bench.ssh("vm4-producers", command, timeout_seconds=240)


def _stored(bench: Bench, model: str) -> Sums:
    return _query(
        bench,
        f"db.token_usage.aggregate([{{$match: {{model: /^{model}-/}}}}, {{$group: {{_id: null, "
        f"requests: {{$sum: 1}}, "
        'prompt_tokens: {$sum: "$prompt_tokens"}, completion_tokens: {$sum: '
        '"$completion_tokens"}}}])',
    )


def _await_some(bench: Bench, model: str, requests: int) -> int:
    """Waits until a replay is on its way; returns how many of its requests are stored."""
    wait(
        lambda: _stored(bench, model).requests >= requests,
        120,
        f"fewer than {requests} requests stored",
    )
    return _stored(bench, model).requests


def _healthy(bench: Bench) -> bool:
    """Whether Kafka, MongoDB and the processor say so themselves."""
    stores = ("vm1-kafka", "vm2-mongo", "vm3-processor")
    return all(
        "BAD" not in bench.ssh(name, f"make -s -C {_HOME}/{name} health", check=False)
        for name in stores
    )


def _await_stored(bench: Bench, model: str, expected: Sums, timeout_seconds: float) -> None:
    replay.await_sums(lambda: _stored(bench, model), expected, timeout_seconds, "stored")


def _query(bench: Bench, pipeline: str) -> Sums:
    """The one row of an aggregation over requests and tokens; zeros when there is none."""
    code = (
        f"print(JSON.stringify({pipeline}.toArray(), (k, v) => (v && v.toNumber ? v.toNumber() : "
        "v)))"
    )
    said = bench.inside("vm2-mongo", "env", "DOCKER=docker", f"{_HOME}/vm2-mongo/query.sh", code)
    try:
        rows = json.loads(said.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise CommandFailed(f"mongosh said: {said[-500:]}") from None
    return (
        Sums(rows[0]["requests"], rows[0]["prompt_tokens"], rows[0]["completion_tokens"])
        if rows
        else Sums(0, 0, 0)
    )
