"""AMD's device-metrics-exporter in the format it documents."""

from __future__ import annotations

from typing import Any

import pytest

from gpu_token_analytics.agent.readings import GpuReading
from gpu_token_analytics.agent.sources.amd import AmdSource
from gpu_token_analytics.errors import SourceUnavailable

CARD = {
    "gpu_package_power": "412",
    "gpu_energy_consumed": "8.123456789e+12",
    "gpu_gfx_activity": "83",
    "gpu_used_vram": "120000",
    "gpu_total_vram": "196592",
    "gpu_junction_temperature": "61",
}


def rows(values: dict[str, str] = CARD, prefix: str = "", **more: str) -> str:
    labels = {
        "gpu_id": "0", "serial_number": "PCB012345-0001", "card_model": "102-G30211-00",
        "hostname": "node1",
        "gpu_partition_id": "0", **more,
    }  # fmt: skip
    said = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return "".join(
        f"# TYPE {prefix}{name} gauge\n{prefix}{name}{{{said}}} {value}\n"
        for name, value in values.items()
    )


def read(text: str, host: str = "node1") -> list[Any]:
    return list(AmdSource("", host, lambda url: text).read())


@pytest.mark.parametrize("prefix", ["", "amd_"])
def test_a_card(prefix: str) -> None:
    assert read(rows(prefix=prefix)) == [
        GpuReading(
            gpu_index=0,
            gpu_uuid="PCB012345-0001",
            name="102-G30211-00",
            utilization=0.83,
            mem_used_mb=120000,
            mem_total_mb=196592,
            power_w=412,
            temperature_c=61,
            energy_j=8123456.789,
        )
    ]


def test_the_older_name_of_power_and_a_card_without_a_serial_number() -> None:
    (found,) = read(rows({"gpu_average_package_power": "300"}, serial_number="", gpu_id="3"))
    assert (found.power_w, found.gpu_uuid, found.gpu_index, found.utilization) == (
        300,
        None,
        3,
        None,
    )


def test_the_label_of_the_uuid_makes_no_other_card_and_pods_no_more_cards() -> None:
    assert read(rows(gpu_uuid="u") + rows(gpu_uuid="u", pod="vllm-1", namespace="chat")) == read(
        rows()
    )


def test_of_a_partitioned_card_the_board_is_the_first_partitions() -> None:
    first = {**CARD, "gpu_gfx_activity": "80", "gpu_used_vram": "100", "gpu_total_vram": "1000"}
    other = {
        "gpu_gfx_activity": "20",
        "gpu_used_vram": "50",
        "gpu_total_vram": "1000",
        "gpu_package_power": "0",
    }
    text = rows(other, gpu_partition_id="1", gpu_id="1") + rows(first)
    (found,) = read(text)
    assert (found.power_w, found.energy_j, found.gpu_index) == (412, 8123456.789, 0)
    assert (found.utilization, found.mem_used_mb, found.mem_total_mb) == (0.5, 150, 2000)
    del other["gpu_used_vram"]
    assert read(rows(other, gpu_partition_id="1") + rows(first))[0].mem_used_mb is None, (
        "unknown, not a part of it"
    )


def test_several_machines_and_what_is_no_page() -> None:
    two = rows() + rows(serial_number="B").replace('"node1"', '"node2"')
    assert [found.gpu_uuid for found in read(two, "node2")] == ["B"]
    with pytest.raises(SourceUnavailable, match="no gpu_ metrics"):
        read("up 1\n")
