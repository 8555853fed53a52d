"""The seed file: what is declared is repeated, what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpu_token_analytics.agent.readings import GpuReading
from gpu_token_analytics.agent.sources.seed import SeedSource, load_seed
from gpu_token_analytics.errors import SourceUnavailable

GPU = {
    "gpu_index": 0,
    "name": "NVIDIA L40S",
    "utilization": 0.42,
    "mem_used_mb": 17000,
    "mem_total_mb": 46068,
    "power_w": 180.0,
    "price_per_hour_usd": 0.86,
}


def write(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "gpu_seed.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def readings(source: SeedSource) -> list[GpuReading]:
    found = source.read()
    assert all(isinstance(reading, GpuReading) for reading in found)
    return [reading for reading in found if isinstance(reading, GpuReading)]


def test_a_gpu_reads_as_declared(tmp_path: Path) -> None:
    (reading,) = readings(SeedSource(write(tmp_path, [GPU]), "vm1"))
    assert {name: getattr(reading, name) for name in GPU} == GPU
    assert reading.energy_j is None


def test_uuid_is_stable_and_belongs_to_host_and_index(tmp_path: Path) -> None:
    path = write(tmp_path, [GPU, GPU | {"gpu_index": 1}])
    first, second = readings(SeedSource(path, "vm1"))
    assert first.gpu_uuid is not None
    assert first.gpu_uuid.startswith("GPU-")
    assert [reading.gpu_uuid for reading in readings(SeedSource(path, "vm1"))] == [
        first.gpu_uuid,
        second.gpu_uuid,
    ]
    other = readings(SeedSource(path, "vm2"))[0]
    assert len({first.gpu_uuid, second.gpu_uuid, other.gpu_uuid}) == 3


def test_what_is_left_out_or_null_is_unknown(tmp_path: Path) -> None:
    (reading,) = readings(
        SeedSource(write(tmp_path, [{"gpu_index": 3, "name": "X", "utilization": None}]), "vm1")
    )
    assert (
        reading.utilization,
        reading.mem_used_mb,
        reading.power_w,
        reading.price_per_hour_usd,
    ) == (None, None, None, None)


def test_an_edit_shows_at_the_next_read_and_a_missing_file_is_survived(tmp_path: Path) -> None:
    path = write(tmp_path, [GPU])
    source = SeedSource(path, "vm1")
    source.read()
    path.unlink()
    with pytest.raises(SourceUnavailable, match="GPU_SEED_FILE"):
        source.read()
    write(tmp_path, [GPU | {"utilization": 0.9}])
    assert readings(source)[0].utilization == 0.9


def test_variation_is_off_by_default_and_reproducible_when_on(tmp_path: Path) -> None:
    path = write(tmp_path, [GPU])
    still, moving, again = (
        SeedSource(path, "vm1"),
        SeedSource(path, "vm1", 0.1),
        SeedSource(path, "vm1", 0.1),
    )
    assert {readings(still)[0].utilization for _ in range(5)} == {0.42}
    sequence = [readings(moving)[0].utilization for _ in range(20)]
    assert sequence == [readings(again)[0].utilization for _ in range(20)]
    assert len(set(sequence)) > 10
    assert all(value is not None and 0.42 * 0.9 <= value <= 0.42 * 1.1 for value in sequence)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([GPU, GPU | {"gpu_index": 1, "utilization": 82}], r"entry 1: utilization=82: .*<= 1"),
        ([GPU | {"power_w": "high"}], r'entry 0: power_w="high": .*float'),
        ([GPU | {"gpu_index": -1}], r"entry 0: gpu_index=-1"),
        ([{"gpu_index": 0}], r"entry 0: .*`name`"),
        ([GPU | {"memory": 1}], r"entry 0: .*unknown field `memory`"),
        ([GPU, GPU], r"entry 1: gpu_index=0 is also entry 0"),
        (
            [GPU | {"mem_used_mb": 50000}],
            r"entry 0: mem_used_mb=50000 is more than mem_total_mb=46068",
        ),
        ([], "not a list of GPUs"),
        ({"gpus": [GPU]}, "not a list of GPUs"),
        ("[{", "not a list of GPUs"),
        ("[" * 100_000, "not a list of GPUs"),
        ("[NaN]", "not a list of GPUs"),
        ("[null]", "entry 0"),
        # every sample of it would be a dead letter
        ([GPU | {"name": "a\0"}], "entry 0: a NUL character"),
        ('[{"gpu_index": 0, "name": "x", "name": "y"}]', "entry 0: key name is given twice"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: Any, named: str) -> None:
    with pytest.raises(SourceUnavailable, match=named):
        SeedSource(write(tmp_path, content), "vm1").read()


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert load_seed(write(tmp_path, "\ufeff" + json.dumps([GPU]))) == load_seed(
        write(tmp_path, [GPU])
    )


def test_a_huge_file_is_not_read_into_the_agent(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="at most"):
        load_seed(write(tmp_path, " " * 1_000_001))


def test_the_example_of_the_repository_is_valid() -> None:
    assert len(load_seed(Path(__file__).parents[3] / "gpu_seed.json")) == 4
