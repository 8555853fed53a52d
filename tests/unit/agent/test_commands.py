"""`gpu-tokens agent` as a user runs it, without Kafka."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gpu_token_analytics.cli import app
from gpu_token_analytics.errors import SettingsError, SourceUnavailable
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.sample import GpuSample

EXAMPLE = Path(__file__).parents[3] / "gpu_seed.json"


def test_once_prints_a_sample_of_each_gpu() -> None:
    result = CliRunner().invoke(
        app, ["agent", "--source", "seed", "--seed-file", str(EXAMPLE), "--host", "vm4", "--once"]
    )
    assert result.exit_code == 0, result.output
    found = [decode(line) for line in result.stdout_bytes.splitlines()]
    assert [event.gpu_index for event in found if isinstance(event, GpuSample)] == [0, 1, 2, 3]
    assert {(event.host, event.source) for event in found if isinstance(event, GpuSample)} == {
        ("vm4", "seed")
    }


def test_once_says_which_gpu_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\nprintf 'uuid, memory.total [MiB]\\nGPU-a, 10\\nGPU-b, [GPU is lost]\\n'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("NVIDIA_SMI_PATH", str(tool))
    result = CliRunner().invoke(app, ["agent", "--source", "nvidia-smi", "--once"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["gpu_uuid"] == "GPU-a"
    assert "GPU-b cannot be read (lost)" in result.stderr


def test_once_prints_what_would_be_sent_of_two_cards_with_one_uuid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, zeros = tmp_path / "nvidia-smi", "GPU-00000000-0000-0000-0000-000000000000"
    tool.write_text(
        f"#!/bin/sh\nprintf 'index, uuid, memory.total [MiB]\\n0, {zeros}, 10\\n1, {zeros}, "
        "20\\n'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("NVIDIA_SMI_PATH", str(tool))
    result = CliRunner().invoke(app, ["agent", "--source", "nvidia-smi", "--host", "vm4", "--once"])
    found = [decode(line) for line in result.stdout_bytes.splitlines()]
    assert [(event.gpu, event.mem_total_mb) for event in found if isinstance(event, GpuSample)] == [
        ("vm4/0", 10),
        ("vm4/1", 20),
    ]
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == [
        "GPU vm4/0 has no identity",
        "GPU vm4/1 has no identity",
    ]


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ([], SettingsError, "GPU_METRICS_SOURCE"),
        (["--source", "rocm"], SettingsError, "GPU_METRICS_SOURCE='rocm'"),
        (["--source", "seed", "--interval", "100"], SettingsError, "SAMPLE_INTERVAL_SECONDS"),
        (["--source", "seed", "--seed-file", "no-such.json"], SourceUnavailable, r"no-such\.json"),
    ],
)
def test_what_cannot_be_used_is_named(
    arguments: list[str], error: type[Exception], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GPU_METRICS_SOURCE", raising=False)
    result = CliRunner().invoke(app, ["agent", "--once", *arguments])
    assert isinstance(result.exception, error)
    with pytest.raises(error, match=named):
        raise result.exception
