"""dcgm-exporter's page in the format it documents, with everything it is known to repeat, leave out
and rename."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.unit.agent.test_amd import rows as amd_rows
from typer.testing import CliRunner

from gpu_token_analytics.agent.readings import GpuProblem, GpuReading, Problem, tell_apart
from gpu_token_analytics.agent.sources.dcgm import DcgmSource
from gpu_token_analytics.cli import app
from gpu_token_analytics.errors import SourceUnavailable
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.fields import Source
from gpu_token_analytics.wire.sample import GpuSample

UUID = "GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e52"
OTHER = "GPU-7c2f1e0a-0f3d-4d4f-8d8e-2a1b3c4d5e6f"
CARD = {
    "DCGM_FI_DEV_GPU_UTIL": "57",
    "DCGM_FI_DEV_FB_USED": "19818",
    "DCGM_FI_DEV_FB_FREE": "61262",
    "DCGM_FI_DEV_FB_RESERVED": "479",
    "DCGM_FI_DEV_POWER_USAGE": "631.95",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": "123456789",
    "DCGM_FI_DEV_GPU_TEMP": "59",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": "0.412345",
    "DCGM_FI_DEV_XID_ERRORS": "0",
}


def rows(
    values: dict[str, str] = CARD,
    uuid: str = UUID,
    host: str = "Hostname",
    gpu: int = 0,
    **more: str,
) -> str:
    """What one card, slice or pod's share of a card has on the page."""
    labels = {
        "gpu": str(gpu), "UUID": uuid, "pci_bus_id": "00000000:0F:00.0", "device": f"nvidia{gpu}",
        "modelName": "NVIDIA H100 80GB HBM3", host: "node1", "DCGM_FI_DRIVER_VERSION": "570.86.15",
        **more,
    }  # fmt: skip
    said = ",".join(f'{name}="{value}"' for name, value in labels.items())
    lines = []
    for name, value in values.items():
        kind = "counter" if "TOTAL_ENERGY" in name else "gauge"
        lines += [
            f"# HELP {name} As the exporter says.",
            f"# TYPE {name} {kind}",
            f"{name}{{{said}}} {value}",
        ]
    return "\n".join(lines) + "\n"


def read(text: str, host: str = "node1") -> list[Any]:
    return list(DcgmSource("http://exporter/metrics", host, lambda url: text).read())


def card(text: str) -> GpuReading:
    (found,) = read(text)
    assert isinstance(found, GpuReading)
    return found


@pytest.mark.parametrize("host", ["Hostname", "hostname"])
def test_a_card(host: str) -> None:
    assert card(rows(host=host)) == GpuReading(
        gpu_index=0,
        gpu_uuid=UUID,
        name="NVIDIA H100 80GB HBM3",
        utilization=0.57,
        mem_used_mb=19818,
        mem_total_mb=81559,
        power_w=631.95,
        temperature_c=59,
        energy_j=123456.789,
    )


def test_the_total_is_taken_where_it_is_told_and_unknown_where_parts_are_missing() -> None:
    assert card(rows({**CARD, "DCGM_FI_DEV_FB_TOTAL": "81600"})).mem_total_mb == 81600
    assert card(rows({"DCGM_FI_DEV_FB_USED": "5"})).mem_total_mb is None
    old = {name: value for name, value in CARD.items() if "RESERVED" not in name}
    assert card(rows(old)).mem_total_mb == 81080


@pytest.mark.parametrize(
    "blank",
    [2147483632, 2147483635, 9223372036854775792, 9.223372036854776e18, 140737488355329, "NaN"],
)
def test_what_dcgm_does_not_know_is_unknown(blank: Any) -> None:
    found = card(
        rows(
            dict.fromkeys(CARD, str(blank))
            | {"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": "9.223372036854775e18"}
        )
    )
    assert found == GpuReading(gpu_index=0, gpu_uuid=UUID, name="NVIDIA H100 80GB HBM3")
    assert (
        found.utilization,
        found.power_w,
        found.mem_used_mb,
        found.mem_total_mb,
        found.energy_j,
    ) == (None,) * 5


def test_a_counter_of_64_bits_may_stand_at_what_is_blank_in_32() -> None:
    assert (
        card(rows({**CARD, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": "2147483632"})).energy_j
        == 2147483.632
    )


def test_a_card_that_pods_share_in_time_is_one_card() -> None:
    shared = "".join(
        rows(namespace="chat", pod=f"vllm-{number}", container="vllm") for number in range(4)
    )
    assert card(shared) == card(rows())
    parts = [
        {**CARD, "DCGM_FI_DEV_GPU_UTIL": util, "DCGM_FI_DEV_FB_USED": used}
        for util, used in (("40", "9000"), ("17", "10818"))
    ]
    of_processes = "".join(rows(part, pod=f"vllm-{number}") for number, part in enumerate(parts))
    found = card(of_processes)
    assert (found.utilization, found.mem_used_mb, found.power_w) == (0.57, 19818, 631.95)


SLICE = {name: value for name, value in CARD.items() if name != "DCGM_FI_DEV_GPU_UTIL"}


def slices(**more: Any) -> str:
    first = {
        **SLICE,
        "DCGM_FI_DEV_FB_USED": "26",
        "DCGM_FI_DEV_FB_FREE": "40000",
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE": "0.25",
    }
    second = {**first, "DCGM_FI_PROF_GR_ENGINE_ACTIVE": "0.75"}
    return rows(first, GPU_I_PROFILE="3g.40gb", GPU_I_ID="1", **more) + rows(
        second, GPU_I_PROFILE="3g.40gb", GPU_I_ID="2"
    )


def test_power_and_energy_in_every_slices_row_are_the_cards_once() -> None:
    board, *parts = read(slices() + slices(pod="vllm-0"))  # and once more for a pod
    assert (board.gpu_uuid, board.power_w, board.energy_j, board.temperature_c) == (
        UUID,
        631.95,
        123456.789,
        59,
    )
    assert (board.utilization, board.mem_used_mb, board.parent_uuid) == (None, None, None)
    assert [(part.power_w, part.energy_j) for part in parts] == [(None, None)] * 2
    assert [(part.utilization, part.mem_used_mb, part.mem_total_mb) for part in parts] == [
        (0.25, 26, 40505),
        (0.75, 26, 40505),
    ]
    assert {(part.mig_profile, part.parent_uuid) for part in parts} == {("3g.40gb", UUID)}
    assert len({part.gpu_uuid for part in parts}) == 2
    for part in parts:  # a contract's event, each with an identity that stays
        sample = part.to_sample("node1", now(), "dcgm-exporter")
        assert (
            sample.gpu
            == part.gpu_uuid
            == f"MIG-{UUID.removeprefix('GPU-')}-gi{1 + parts.index(part)}"
        )


def now() -> datetime:
    return datetime(2026, 1, 31, tzinfo=UTC)


def test_a_slices_own_uuid_where_the_exporter_knows_it() -> None:
    mig = "MIG-a1a1a1a1-2222-3333-4444-555555555555"
    assert read(slices(dra_mig_device_uuid=mig))[1].gpu_uuid == mig
    (_, problem) = read(rows(SLICE, GPU_I_PROFILE="", GPU_I_ID="1"))
    assert isinstance(problem, GpuProblem)
    assert problem.problem is Problem.MALFORMED


def test_a_page_of_one_machine_is_this_hosts_and_of_several_only_its_own() -> None:
    two = rows() + rows(uuid=OTHER).replace('"node1"', '"node2.example.org"')
    assert [found.gpu_uuid for found in read(two, "NODE2")] == [OTHER]
    assert [
        found.gpu_uuid for found in read(rows().replace('"node1"', '"dcgm-exporter-x7f2"'), "node1")
    ] == [UUID]
    with pytest.raises(
        SourceUnavailable, match=r"2 machines \(node1, node2.example.org\), none of them 'node3'"
    ):
        read(two, "node3")


def test_two_agents_on_one_host_tell_of_the_same_gpu() -> None:
    """Each under its own event ids, but of one GPU: its money is counted once (the ledger has one
    timeline for a GPU)."""
    of_driver = GpuReading(
        gpu_index=0, gpu_uuid=UUID.upper().replace("GPU-", "gpu-"), power_w=630.0
    )
    of_agents: list[tuple[Source, list[Any]]] = [
        ("nvml", [of_driver]),
        ("dcgm-exporter", read(rows())),
    ]
    samples = [
        reading.to_sample("node1", now(), source)
        for source, found in of_agents
        for reading in tell_apart(found, "node1")
        if isinstance(reading, GpuReading)
    ]
    assert len({sample.event_id for sample in samples}) == 2
    assert {sample.gpu for sample in samples} == {UUID}


def test_what_is_no_page_of_dcgm_says_what_to_do() -> None:
    for text, said in (
        ("<html>", "no page of Prometheus metrics"),
        ("up 1\n", "no DCGM_FI_ metrics"),
        ("", "no DCGM_FI_ metrics"),
        ('DCGM_FI_DEV_GPU_UTIL{gpu="0" 1\n', "no page of Prometheus metrics"),
    ):
        with pytest.raises(SourceUnavailable, match=said):
            read(text)
    (problem,) = read('DCGM_FI_DEV_GPU_UTIL{gpu="0"} 1\n')
    assert isinstance(problem, GpuProblem)


class _Page(BaseHTTPRequestHandler):
    status, text = 200, rows()

    def do_GET(self) -> None:
        assert self.headers["Accept"].startswith("text/plain")
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def page() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_commands_of_the_page_run_as_written(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[3] / "docs" / "sources" / "gpu-exporters.md").read_text()
    commands = [
        line.removeprefix("gpu-tokens ")
        for line in text.splitlines()
        if line.startswith("gpu-tokens ")
    ]
    assert len(commands) == 2
    monkeypatch.setattr(_Page, "text", rows() + amd_rows())
    for command, source in zip(commands, ("dcgm-exporter", "amd-exporter"), strict=True):
        done = CliRunner().invoke(
            app, shlex.split(re.sub(r"http://127\.0\.0\.1:\d+/metrics", page, command))
        )
        assert done.exit_code == 0, done.output
        event = decode(done.stdout_bytes.strip())
        assert isinstance(event, GpuSample)
        assert (event.source, event.power_w is not None) == (source, True)


def test_the_agent_reads_a_real_page(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(
        app, ["agent", "--source", "dcgm-exporter", "--url", page, "--host", "node1", "--once"]
    )
    assert done.exit_code == 0, done.output
    event = decode(done.stdout_bytes.strip())
    assert isinstance(event, GpuSample)
    assert (event.gpu_uuid, event.source, event.energy_j, event.host) == (
        UUID,
        "dcgm-exporter",
        123456.789,
        "node1",
    )
    monkeypatch.setattr(_Page, "status", 503)
    with pytest.raises(SourceUnavailable, match="answers 503"):
        DcgmSource(page, "node1").read()
    with pytest.raises(SourceUnavailable, match="does it run, and is the address right"):
        DcgmSource("http://127.0.0.1:9/metrics", "node1").read()


@pytest.mark.parametrize(
    "text", ["\ufeff" + rows(), rows().replace("\n", "\r\n"), "\ufeff" + rows().partition("\n")[2]]
)
def test_a_mark_of_byte_order_and_ends_of_lines_cost_no_value(text: str) -> None:
    assert card(text) == card(rows())
