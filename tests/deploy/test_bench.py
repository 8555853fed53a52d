"""The bench's own judgement: what it counts, and that it would notice a wrong firewall."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from deploy.bench import evidence
from deploy.bench.checks import matrix
from deploy.bench.report import CheckFailed, NotChecked, Report, expect
from deploy.bench.vms import reachability

from deploy import flows

TABLE = flows.load()


def right() -> dict[tuple[str, str, int], str]:
    """What a correct bench sees."""
    sources = [*TABLE.machines, "admin", "outsider"]
    return {
        (source, target, port): "open" if TABLE.allowed(source, target, port) else "silent"
        for source in sources
        for target in TABLE.machines
        for port in [*TABLE.ports, *reachability.CLOSED_PORTS]
        if source != target
    }


def breaks(error: Exception) -> None:
    raise error


def test_a_correct_matrix_has_no_differences() -> None:
    assert matrix.differences(TABLE.allowed, right()) == []


@pytest.mark.parametrize(
    ("source", "target", "port", "seen"),
    [
        ("outsider", "vm2-mongo", 27017, "open"),  # a hole
        ("vm4-producers", "vm2-mongo", 27017, "open"),  # a machine that may do less
        ("vm3-processor", "vm1-kafka", 9092, "silent"),  # a flow that is closed
        ("admin", "vm1-kafka", 9999, "refused"),  # let through, though nothing listens
    ],
)
def test_every_kind_of_wrong_firewall_is_noticed(
    source: str, target: str, port: int, seen: str
) -> None:
    wrong = matrix.differences(TABLE.allowed, right() | {(source, target, port): seen})
    assert len(wrong) == 1
    assert f"{source} -> {target}:{port} is {seen}" in wrong[0]


def test_the_drawing_names_the_open_ports_only() -> None:
    drawn = dict(line.split(maxsplit=1) for line in reachability.draw(TABLE, right()).splitlines())
    assert drawn["vm3-processor"].split() == [
        "vm1-kafka:9092",
        "vm2-mongo:27017",
        "vm4-producers:-",
    ]
    assert "9092" not in drawn["outsider"]


def test_what_is_not_checked_is_neither_passed_nor_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report()
    with report.check("good"):
        expect(True, "")
    with report.check("lacking"):
        breaks(NotChecked("this machine lacks a cloud"))
    assert report.close(strict=True) == 1
    assert report.close() == 0
    said = capsys.readouterr().out
    assert "NOT CHECKED  lacking: this machine lacks a cloud" in said
    assert said.splitlines()[-1] == "1 passed, 0 failed"


def test_what_only_a_longer_run_holds_is_a_row_of_the_evidence_and_no_lack(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report()
    report.leave_out("drains", "only in the long run")
    assert report.close(strict=True) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 0 failed"
    assert "| drains: only in the long run | not run |" in evidence.table_of(report.stages[""])


def test_a_failed_check_fails_the_run_and_the_next_one_still_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report()
    with report.check("bad"):
        breaks(CheckFailed("port 27017 is open"))
    with report.check("broken"):
        breaks(OSError("no such machine"))
    with report.check("good"):
        pass
    assert report.close() == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 2 failed"


@pytest.mark.parametrize("admin", ["0.0.0.0/0", "::/0", "any", "laptop"])
def test_the_firewall_script_refuses_to_open_ssh_for_the_world(admin: str, tmp_path: Path) -> None:
    ufw = tmp_path / "ufw"
    ufw.write_text("#!/bin/sh\necho must not run >&2; exit 1\n")
    ufw.chmod(0o755)
    command = [
        str(flows.ROOT / "CA0/common/firewall.sh"),
        str(flows.ROOT / "CA0/vm2-mongo/firewall.rules"),
        admin,
    ]
    done = subprocess.run(
        command,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "198.51.100.10/32" in done.stderr  # says what to give instead
    assert "must not run" not in done.stderr


@pytest.mark.parametrize(
    ("lines", "status", "says"),
    [
        ("kafka running healthy 0", 0, "ok   kafka"),
        ("agent running 0", 0, "ok   agent"),  # no healthcheck: the column is empty
        ("topics exited 0\nprocessor running healthy 0", 0, "ok   topics"),
        ("processor running unhealthy 0", 1, "BAD  processor"),
        ("processor running starting 0", 1, "BAD  processor"),
        ("topics exited 1", 1, "BAD  topics"),
        ("processor restarting 1", 1, "BAD  processor"),
        ("", 1, "nothing runs here"),
    ],
)
def test_health_says_what_is_not_well(lines: str, status: int, says: str) -> None:
    text = f"{lines}\n" if lines else ""
    done = subprocess.run(
        [flows.ROOT / "CA0/common/health.sh"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, says in done.stdout) == (status, True), done.stdout


def test_makefiles_run_by_the_bench_do_not_see_the_arguments_of_make_vms(tmp_path: Path) -> None:
    (tmp_path / "inner").write_text("ARGS ?=\ndown:\n\t@echo down $(ARGS).\n")
    inner = (
        f"from deploy.bench.shell import run; print(run(['make', '-sf', '{tmp_path}/inner', "
        "'down']).stdout)"
    )
    (tmp_path / "outer").write_text(f'vms:\n\t@{sys.executable} -c "{inner}"\n')
    outer = ["make", "-sf", str(tmp_path / "outer"), "vms", "ARGS=--install --strict"]
    assert (
        subprocess.run(outer, capture_output=True, text=True, check=True).stdout.split("\n")[0]
        == "down ."
    )
