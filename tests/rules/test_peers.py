"""The comparison with peers: what is fetched is what is pinned, and a figure that was not taken is
never shown as one."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bench.peers import installs
from bench.peers.contestants import CONTESTANTS, Kind
from bench.peers.installs import InstallFailed, check_sums
from bench.peers.run import broken_promises
from bench.peers.table import README, Results, markdown, rows, text, write_readme
from bench.peers.trials import Killed, Poisoned, Speed

from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION

WHEN = datetime(2026, 11, 29, tzinfo=UTC)
SAID = {"run": "5 events", "machine": "2 cores", "versions": "Kafka 4"}


def test_connect_is_of_the_brokers_version_and_its_jars_are_pinned() -> None:
    pom = installs.POM.read_text()
    assert f"<kafka.version>{CURRENT_VERSION}</kafka.version>" in pom
    match = re.search("<sink.version>(.*)</sink.version>", pom)
    assert match is not None
    names = [line.split()[1] for line in installs.JAR_SUMS.read_text().splitlines()]
    assert {f"connect-runtime-{CURRENT_VERSION}.jar", f"mongo-kafka-connect-{match[1]}.jar"} <= set(
        names
    )


def test_a_jar_that_is_not_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = tmp_path / "sums"
    sums.write_text(f"{hashlib.sha256(b'good').hexdigest()}  a.jar\n")
    monkeypatch.setattr(installs, "JAR_SUMS", sums)
    jars = tmp_path / "jars"
    jars.mkdir()
    with pytest.raises(InstallFailed, match=r"a\.jar is missing"):
        check_sums(jars)
    (jars / "a.jar").write_bytes(b"good")
    check_sums(jars)
    (jars / "b.jar").write_bytes(b"more")
    with pytest.raises(InstallFailed, match=r"b\.jar is .* says nothing of it"):
        check_sums(jars)
    (jars / "b.jar").unlink()
    (jars / "a.jar").write_bytes(b"bad")
    with pytest.raises(InstallFailed, match=r"a\.jar"):
        check_sums(jars)


def test_an_install_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    calls: list[Path] = []

    def fetch(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").touch()
        calls.append(folder)
        if len(calls) == 1:
            raise InstallFailed("cut off")

    with pytest.raises(InstallFailed):
        installs.kept("x", [installs.POM], fetch, tmp_path)
    for _ in range(2):
        assert (installs.kept("x", [installs.POM], fetch, tmp_path) / "half").exists()
    assert len(calls) == 2


def test_figures_are_medians_and_ratios_of_one_run_and_what_is_missing_is_empty(
    tmp_path: Path,
) -> None:
    results = Results()
    results.speeds["limit"] = [
        Speed(1000, 2, None, whole=True),
        Speed(3000, 4, None, whole=True),
        Speed(2000, 3, None, whole=True),
    ]
    results.speeds["ledger"] = [
        Speed(900, 50, 200.4, whole=True),
        Speed(1100, 70, 210.6, whole=False),
    ]
    results.kills["ledger"] = Killed(100, (30, 60), 0, 0, audit_holds=True)
    results.poisons["ledger"] = [
        (False, Poisoned(100, 0, ended=False, task_failed=False, dead_letters=1))
    ]
    table = {row[0]: row[1:] for row in rows(results, CONTESTANTS)}
    assert table["limit: inserts encoded beforehand"] == ("2,000", "1.00", "3", "", "", "")
    ledger = (
        "1,000 (cut)",
        "0.50",
        "60",
        "211",
        "0 lost, 0 doubled, audit holds",
        "dead letter, goes on",
    )
    assert table["this processor, with ledger"] == ledger
    assert table["Quix Streams, MongoDB sink"] == ("",) * 6
    assert "0.50" in text(rows(results, CONTESTANTS))
    results.write(tmp_path / "new" / "results.json")
    assert Results.read(tmp_path / "new" / "results.json") == results


@pytest.mark.parametrize(
    ("poison", "verdict"),
    [
        (
            Poisoned(10, 0, ended=False, task_failed=False, dead_letters=0),
            "goes on, the record is gone without a trace",
        ),
        (
            Poisoned(10, 4, ended=True, task_failed=False, dead_letters=0),
            "ends, 4 good ones not stored",
        ),
        (
            Poisoned(10, 4, ended=False, task_failed=True, dead_letters=0),
            "task fails, 4 good ones not stored",
        ),
        (
            Poisoned(10, 1, ended=False, task_failed=False, dead_letters=1),
            "goes on, 1 good ones not stored",
        ),
    ],
)
def test_what_became_of_a_bad_record_is_said(poison: Poisoned, verdict: str) -> None:
    assert poison.verdict == verdict


def test_a_death_after_the_work_proves_nothing() -> None:
    results = Results(
        kills={
            "quix": Killed(100, (100, 100), 0, 0),
            "connect-insert": Killed(100, (100, 100), 0, 100),
        }
    )
    table = {row[0]: row[5] for row in rows(results, CONTESTANTS)}
    assert table["Quix Streams, MongoDB sink"] == "died after all was stored: says nothing"
    assert table["Kafka Connect, MongoDB sink, insert"] == "0 lost, 100 doubled"


def test_a_promise_of_ours_that_does_not_hold_fails_the_run() -> None:
    results = Results()
    results.kills["connect-insert"] = Killed(100, (30, 60), 0, 50)
    assert not broken_promises(results), "a peer may do as it does"
    results.kills["ingest"] = Killed(100, (30, 60), 0, 1)
    results.kills["ledger"] = Killed(100, (30, 60), 0, 0, audit_holds=False)
    results.poisons["ledger"] = [
        (False, Poisoned(10, 0, ended=False, task_failed=False, dead_letters=0))
    ]
    assert len(broken_promises(results)) == 3


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(README.read_text())
    table = rows(Results(), CONTESTANTS)
    write_readme(table, WHEN, SAID, readme)
    once = readme.read_text()
    write_readme(table, WHEN, SAID, readme)
    assert readme.read_text() == once
    assert markdown(table) in once
    assert "`make peers` on 2026-11-29: 5 events; 2 cores. Kafka 4." in once
    assert once.partition("<!-- peers")[0] == README.read_text().partition("<!-- peers")[0]
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="no lines"):
        write_readme(table, WHEN, SAID, readme)


def test_only_the_limit_has_no_process() -> None:
    assert [one.key for one in CONTESTANTS if one.kind is Kind.LIMIT] == ["limit"]
