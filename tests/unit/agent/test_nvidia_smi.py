"""nvidia-smi: every spelling of "no value", columns that come and go, lost GPUs, MIG, and a tool
that fails or hangs."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_token_analytics.agent.readings import GpuProblem, GpuReading, Problem, Reading, tell_apart
from gpu_token_analytics.agent.sources.nvidia_smi import NvidiaSmiSource, Output
from gpu_token_analytics.agent.sources.smi_text import (
    FIELDS,
    parse_gpus,
    parse_lost,
    parse_slice_memory,
    parse_slices,
    short_bus_id,
)
from gpu_token_analytics.errors import SourceUnavailable
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import encode
from gpu_token_analytics.wire.names import canonical_gpu
from gpu_token_analytics.wire.sample import GpuSample

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SHARED = Path(
    os.environ.get("GPU_TOKENS_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data"
)
CAPTURES = SHARED / "nvidia-smi"

HEADER = (
    "index, uuid, pci.bus_id, mig.mode.current, utilization.gpu [%], memory.total [MiB], "
    "memory.used [MiB], "
    "power.draw [W], temperature.gpu, name"
)
UPPER_HEADER = HEADER.upper().replace("MIB", "MiB")
ROW_A = "0, GPU-a, 00000000:3B:00.0, [N/A], 57, 46068, 1235, 110.23, 54, NVIDIA L40S"
ROW_B = "1, GPU-b, 00000000:5E:00.0, [N/A], 0, 46068, 0, 38.50, 30, NVIDIA L40S"

MIG_LIST = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-a)
  MIG 3g.40gb     Device  0: (UUID: MIG-1)
  MIG 1c.2g.20gb  Device  1: (UUID: MIG-2)
  MIG ?           Device  2: (UUID: MIG-3)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-b)
"""
MIG_REPORT = """
==============NVSMI LOG==============

Attached GPUs                             : 1
GPU 00000000:3B:00.0
    Product Name                          : NVIDIA H100 80GB HBM3
    MIG Mode
        Current                           : Enabled
    MIG Device
        Index                             : 0
        GPU Instance ID                   : 2
        Shared FB Memory Usage
            Total                         : 40448 MiB
            Used                          : 26 MiB
        Shared BAR1 Memory
            Total                         : 24739 MiB
            Used                          : 5 MiB
    MIG Device
        Index                             : 1
        FB Memory Usage
            Total                         : 20096 MiB
            Used                          : N/A
    GPU UUID                              : GPU-a
    FB Memory Usage
        Total                             : 81559 MiB
        Used                              : 59 MiB
"""


def reading(text: str) -> GpuReading:
    (row,) = parse_gpus(text)
    assert isinstance(row.reading, GpuReading)
    return row.reading


def test_a_row_in_our_units() -> None:
    assert reading(f"{HEADER}\n{ROW_A}\n") == GpuReading(
        gpu_index=0,
        gpu_uuid="GPU-a",
        name="NVIDIA L40S",
        utilization=0.57,
        mem_used_mb=1235.0,
        mem_total_mb=46068.0,
        power_w=110.23,
        temperature_c=54.0,
    )


@pytest.mark.parametrize(
    "absent",
    [
        "",
        "N/A",
        "[N/A]",
        "[Not Supported]",
        "Not Supported",
        "[Insufficient Permissions]",
        "[Unknown Error]",
        "[Requested functionality has been deprecated]",
        "Requested functionality has been deprecated",
        "[Function Not Found]",
        "ERR!",
        "[some words of a later driver]",
        "nan",
        "-",
    ],
)
def test_every_spelling_of_no_value_is_unknown(absent: str) -> None:
    found = reading(
        f"{HEADER}\n0, GPU-a, {absent}, {absent}, {absent}, {absent}, {absent}, {absent}, "
        f"{absent}, X\n"
    )
    assert found == GpuReading(gpu_index=0, gpu_uuid="GPU-a", name="X")


@pytest.mark.parametrize("absent", ["", "N/A", "[N/A]", "[Insufficient Permissions]"])
def test_an_absent_uuid_or_index_is_not_an_identity(absent: str) -> None:
    rows = parse_gpus(f"{HEADER}\n{ROW_A}\n{absent}, {absent}, , , 1, 2, 1, 3, 4, {absent}\n")
    second = rows[1].reading
    assert isinstance(second, GpuReading)
    # the row's place is its index
    assert (second.gpu_uuid, second.gpu_index, second.name) == (None, 1, None)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (
            "uuid, utilization.gpu [%], memory.used [MiB], memory.total [MiB]",
            "GPU-a, 57 %, 1235 MiB, 46068 MiB",
        ),
        ("memory.total, memory.used, utilization.gpu, uuid", "46068,1235,57,GPU-a"),
        (
            "uuid, new.column [x], memory.used [KiB], memory.total [GiB], utilization.gpu",
            "GPU-a, ?, 1264640, 44.98828125, 57 %",
        ),
        (
            '"uuid","utilization.gpu [%]","memory.used [MiB]","memory.total [MiB]"',
            '"GPU-a","57","1235","46068"',
        ),
        (
            "uuid, utilization.gpu [%], memory.used [MiB], memory.total [MiB]\r",
            "GPU-a, 57, 1235, 46068\r",
        ),
    ],
    ids=["units", "no-units-other-order", "other-units-and-columns", "quoted", "crlf"],
)
def test_columns_are_found_by_name_with_or_without_units(header: str, row: str) -> None:
    found = reading(f"{header}\n{row}\n")
    assert (found.gpu_uuid, found.utilization, found.mem_used_mb) == ("GPU-a", 0.57, 1235.0)
    assert found.mem_total_mb == 46068.0
    assert found.power_w is None


def test_a_unit_that_is_not_known_is_unknown_not_a_wrong_number() -> None:
    assert reading("uuid, power.draw [mW]\nGPU-a, 5000\n").power_w == 5.0
    assert reading("uuid, power.draw [BTU]\nGPU-a, 5000\n").power_w is None
    assert reading("uuid, power.draw [W]\nGPU-a, 5 hp\n").power_w is None


def test_power_is_the_first_of_its_columns_that_has_a_value() -> None:
    header = "uuid, power.draw [W], power.draw.average [W], power.draw.instant [W]"
    assert reading(f"{header}\nGPU-a, [N/A], [N/A], 71.5\n").power_w == 71.5
    assert reading(f"{header}\nGPU-a, 70.0, [N/A], 71.5\n").power_w == 70.0


def test_a_name_with_a_comma_is_read_where_it_is_quoted() -> None:
    assert (
        reading('uuid, memory.total [MiB], name\nGPU-a, 10, "Board, rev. 2"\n').name
        == "Board, rev. 2"
    )


def case(name: str) -> str:
    """A small input that is kept beside the captures."""
    path = SHARED / "cases" / name
    if not path.exists():
        pytest.skip(f"{name} is not here (GPU_TOKENS_SHARED_DATA)")
    return path.read_text()


LOADER = (
    "ERROR: ld.so: object '/opt/vgpu/libvgpu.so' from /etc/ld.so.preload cannot be preloaded: "
    "ignored."
)
BANNER = (
    "Authorised use only, see the index of rules, uuid on request\n\nWarning: persistence mode is "
    "disabled, GPU 0, GPU 1"
)


def test_the_case_of_a_loader_line() -> None:
    assert names(
        [row.reading for row in parse_gpus(case("smi-loader-line-before-header.txt"))]
    ) == ["GPU-a", "GPU-b"]


@pytest.mark.parametrize(
    "text",
    [
        f"{LOADER}\n{HEADER}\n{ROW_A}\n{ROW_B}\n",
        f"{BANNER}\n{HEADER}\n{ROW_A}\n{ROW_B}\n",
        f"{HEADER}\n{LOADER}\n{ROW_A}\n{BANNER}\n{ROW_B}\n{LOADER}\n",
        f"\ufeff{UPPER_HEADER}\n{ROW_A}\n{UPPER_HEADER}\n{ROW_B}\n",
        f'{LOADER}\nan open " quote\n{HEADER}\n{ROW_A}\n{ROW_B}\n',
        f"We log: host, index, uuid\n{HEADER}\n{ROW_A}\n{ROW_B}\n",
        f"uuid\n{HEADER}\n{ROW_A}\n{ROW_B}\n",
    ],
    ids=[
        "loader",
        "banner",
        "between-the-rows",
        "capitals-and-header-twice",
        "quote",
        "names-in-a-banner",
        "one-name-before",
    ],
)
def test_what_stands_around_the_rows_costs_no_gpu(text: str) -> None:
    first, second = (row.reading for row in parse_gpus(text))
    assert isinstance(first, GpuReading)
    assert (first.gpu_uuid, first.power_w, first.gpu_index) == ("GPU-a", 110.23, 0)
    assert isinstance(second, GpuReading)
    assert (second.gpu_uuid, second.power_w, second.gpu_index) == ("GPU-b", 38.5, 1)


@pytest.mark.parametrize(
    "row",
    [
        "0, GPU-a, 00000000:3B:00.0, [N/A], 57, 46068, 1235, 110,23, 54, NVIDIA L40S",
        "0, GPU-a, 00000000:3B:00.0, [N/A], 57, 46,068, 1,235, 110.23, 54, NVIDIA L40S",
        "0, GPU-a, 00000000:3B:00.0, [N/A], 57, 46068, 1235, 110.23, 54, NVIDIA L40S, rev. 2",
        "0, GPU-a, 00000000:3B:00.0, [N/A], 57, 46068",
        "0, GPU-a, 00000000:3B:00.0, [N/A], 57, 46068, 1235, 110,23, 54",
        "0, GPU-a, 00000000:3B:00.0, [N/A], 57, 46068, 1235, 110,23, 54 C",
    ],
    ids=[
        "decimal-comma",
        "thousands",
        "name",
        "cut-off",
        "decimal-comma-and-cut-off",
        "with-a-unit",
    ],
)
def test_a_row_with_other_columns_than_the_header_is_malformed_and_named(row: str) -> None:
    first, second = (row.reading for row in parse_gpus(f"{HEADER}\n{row}\n{ROW_B}\n"))
    assert isinstance(first, GpuProblem)
    assert (first.gpu, first.problem) == ("GPU-a", Problem.MALFORMED)
    assert isinstance(second, GpuReading)
    assert second.gpu_uuid == "GPU-b"


def test_the_case_of_a_decimal_comma() -> None:
    (row,) = parse_gpus(case("smi-comma-decimal.txt"))
    assert isinstance(row.reading, GpuProblem)
    assert row.reading.problem == Problem.MALFORMED


@pytest.mark.parametrize("number", ['"110,23"', "110'230", "1 102"])
def test_a_number_with_a_separator_is_not_guessed(number: str) -> None:
    assert reading(f"uuid, power.draw [W]\nGPU-a, {number}\n").power_w is None


def test_the_case_of_two_cards_with_one_uuid_of_zeros() -> None:
    text = case("smi-zero-uuid-twice.txt")
    cards = tell_apart(NvidiaSmiSource(run=FakeTool(lambda _: text)).read(), "node1")
    assert names(cards) == ["node1/0: shared_uuid", None, "node1/1: shared_uuid", None]
    assert [
        (card.gpu("node1"), card.power_w) for card in cards if isinstance(card, GpuReading)
    ] == [
        ("node1/0", 110.23),
        ("node1/1", 38.5),
    ]


@pytest.mark.parametrize(
    ("uuids", "identities"),
    [
        (["GPU-a", "GPU-a", "GPU-b"], ["h/0", "h/1", "GPU-b"]),
        (["GPU-00000000-0000-0000-0000-000000000000", "GPU-b"], ["h/0", "GPU-b"]),
        (["GPU-a", None], ["GPU-a", "h/1"]),
        (["GPU-a", "gpu-A", "GPU-b"], ["h/0", "h/1", "GPU-b"]),
        (["gpu-0000"], ["h/0"]),
        (["h2/0", "GPU-b"], ["h/0", "GPU-b"]),
    ],
)
def test_each_gpu_has_an_identity_of_its_own(
    uuids: list[str | None], identities: list[str]
) -> None:
    readings = [GpuReading(gpu_index=index, gpu_uuid=uuid) for index, uuid in enumerate(uuids)]
    told = tell_apart(readings, "h")
    assert [item.gpu("h") for item in told if isinstance(item, GpuReading)] == identities
    assert [item.gpu for item in told if isinstance(item, GpuProblem)] == [
        one for one, uuid in zip(identities, uuids, strict=True) if "/" in one and uuid
    ]


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n{ROW_A}\n{ROW_B}\n{HEADER}\n{ROW_A}\n{ROW_B}\n",
        f"{HEADER}\n{ROW_A}\n{ROW_A}\n{ROW_B}\n",
    ],
    ids=["all", "a-row"],
)
def test_a_card_that_is_printed_twice_keeps_its_identity(text: str) -> None:
    cards = tell_apart(NvidiaSmiSource(run=FakeTool(lambda _: text)).read(), "node1")
    assert [card.gpu("node1") for card in cards if isinstance(card, GpuReading)] == [
        "GPU-a",
        "GPU-b",
    ]
    assert len(cards) == 2, "no problem"


def test_a_slice_that_is_printed_twice_keeps_its_identity() -> None:
    one = GpuReading(gpu_index=0, gpu_uuid="MIG-1", mig_profile="1g.5gb", parent_uuid="GPU-a")
    assert tell_apart([one, one], "h") == [one]


ZEROS = "GPU-00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    "uuids", [[ZEROS, ZEROS], [ZEROS, "GPU-b"], ["GPU-a", "gpu-A"], ["h2/0", "GPU-b"]]
)
def test_a_slice_is_one_of_its_card_whatever_that_goes_by(uuids: list[str]) -> None:
    """Else the UUID that is none would be a third card, and paid."""
    cards = [GpuReading(gpu_index=index, gpu_uuid=uuid) for index, uuid in enumerate(uuids)]
    slices = [
        GpuReading(
            gpu_index=index, gpu_uuid=f"MIG-{index + 1}", mig_profile="3g.40gb", parent_uuid=uuid
        )
        for index, uuid in enumerate(uuids)
    ]
    read = [item for item in tell_apart([*cards, *slices], "h") if isinstance(item, GpuReading)]
    samples = [decode(encode(reading.to_sample("h", NOW, "nvml"))) for reading in read]
    named = [(sample.gpu, sample.card) for sample in samples if isinstance(sample, GpuSample)]
    (first, _), (second, _) = named[:2]
    assert first == "h/0"
    assert second in ("h/1", "GPU-b")
    assert named[2:] == [("MIG-1", first), ("MIG-2", second)]


@pytest.mark.parametrize("uuid", [None, "MIG-00000000-0000-0000-0000-000000000000", "MIG-1"])
def test_a_slice_without_an_identity_is_left_to_its_card_and_told(uuid: str | None) -> None:
    cards = [GpuReading(gpu_index=index, gpu_uuid=f"GPU-{index + 1}") for index in range(2)]
    slices = [
        replace(card, gpu_uuid=uuid, mig_profile="3g.40gb", parent_uuid=card.gpu_uuid)
        for card in cards
    ]
    told = tell_apart([*cards, *slices], "h")
    assert told[:2] == cards
    assert [
        (item.problem, "its card's" in item.message)
        for item in told[2:]
        if isinstance(item, GpuProblem)
    ] == [(Problem.SHARED_UUID, True)] * 2


def test_the_name_of_a_slice_of_an_old_driver_is_an_identity() -> None:
    (part,) = parse_slices(
        "GPU 0: A100 (UUID: GPU-1f)\n  MIG 3g.20gb Device 0: (UUID: MIG-GPU-1f/2/0)\n"
    )
    reading = GpuReading(
        gpu_index=0, gpu_uuid=part.uuid, mig_profile=part.profile, parent_uuid=part.parent_uuid
    )
    sample = decode(encode(reading.to_sample("n1", NOW, "nvidia-smi")))
    assert isinstance(sample, GpuSample)
    assert sample.gpu == canonical_gpu("MIG-GPU-1f/2/0") == "MIG-gpu-1f-2-0"


def test_a_row_that_cannot_be_aligned_is_a_problem_and_costs_no_other() -> None:
    first, second = parse_gpus(
        "uuid, name, memory.total [MiB]\nGPU-a, Board, rev. 2, 10\nGPU-b, X, 10\n"
    )
    assert isinstance(first.reading, GpuProblem)
    assert first.reading.problem == Problem.MALFORMED
    assert isinstance(second.reading, GpuReading)


@pytest.mark.parametrize(
    ("word", "problem"),
    [("[GPU is lost]", Problem.LOST), ("[GPU requires reset]", Problem.RESET_REQUIRED)],
)
def test_a_row_of_a_broken_gpu_is_a_problem(word: str, problem: Problem) -> None:
    (row,) = parse_gpus(
        f"{HEADER}\n1, GPU-b, {word}, {word}, {word}, {word}, {word}, {word}, {word}, NVIDIA L40S\n"
    )
    assert isinstance(row.reading, GpuProblem)
    assert (row.reading.gpu, row.reading.problem) == ("GPU-b", problem)
    (row,) = parse_gpus(f"{HEADER}\n1{f', {word}' * 9}\n")
    assert isinstance(row.reading, GpuProblem)
    assert (row.reading.gpu, row.reading.problem) == ("index 1", problem), (
        "what stands in its UUID's place is none"
    )


@pytest.mark.parametrize("text", ["", "\n\n", "No devices were found\n", "garbage, more\n1, 2\n"])
def test_text_without_a_header_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no header"):
        parse_gpus(text)


@given(
    st.lists(
        st.lists(
            st.one_of(
                st.sampled_from([*FIELDS, "[N/A]", "GPU-a", "57 %", '"', "\0", "0"]),
                st.text(max_size=8),
            ),
            max_size=12,
        )
    )
)
def test_any_text_gives_valid_samples_or_a_refusal(table: list[list[str]]) -> None:
    text = "\n".join(", ".join(cells) for cells in [["index", "uuid", *FIELDS[4:]], *table])
    try:
        rows = parse_gpus(text)
    except ValueError:
        return
    for row in rows:
        if isinstance(row.reading, GpuReading):
            sample = row.reading.to_sample("vm1", NOW, "nvidia-smi")
            assert decode(encode(sample)) == sample


def test_lost_devices_are_named_in_every_wording() -> None:
    start = "Unable to determine the device handle for GPU"
    lines = [
        f"{start}1: 0000:34:00.0: Unknown Error",
        f"{start} 0000:0B:00.0: GPU is lost.  Reboot the system to recover this GPU",
        f"{start}0000:20:00.0: Unknown Error",
        f"{start} 2: GPU requires reset",
        f"[12:00:01] {start} 0000:21:00.0: Unknown Error",
    ]
    found = parse_lost("\n".join([*lines, HEADER, ROW_A]))
    assert [(problem.gpu, problem.problem) for problem in found] == [
        ("0000:34:00.0", Problem.LOST),
        ("0000:0B:00.0", Problem.LOST),
        ("0000:20:00.0", Problem.LOST),
        ("index 2", Problem.RESET_REQUIRED),
        ("0000:21:00.0", Problem.LOST),
    ]
    assert parse_lost(f"{HEADER}\n{ROW_A}") == []


def test_bus_ids_of_either_length_are_one() -> None:
    assert short_bus_id("00000000:3B:00.0") == short_bus_id("0000:3b:00.0") == "0:3b:00.0"
    assert short_bus_id("[N/A]") is None


def test_mig_lists_and_memory() -> None:
    assert [tuple(part) for part in parse_slices(MIG_LIST)] == [
        ("GPU-a", 0, "MIG-1", "3g.40gb"),
        ("GPU-a", 1, "MIG-2", "1g.20gb"),
        ("GPU-a", 2, "MIG-3", None),
    ]
    assert parse_slice_memory(MIG_REPORT) == {
        ("GPU-a", 0): (26.0, 40448.0),
        ("GPU-a", 1): (None, 20096.0),
    }


class FakeTool:
    """nvidia-smi as a table of answers; `answer` gets the arguments. Keeps the calls."""

    def __init__(self, answer: Callable[[list[str]], str | Output]) -> None:
        self.answer = answer
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str]) -> Output:
        self.calls.append(command[1:])
        found = self.answer(command[1:])
        return found if isinstance(found, Output) else Output(found, 0)


def names(readings: list[Reading]) -> list[str | None]:
    return [
        item.gpu_uuid if isinstance(item, GpuReading) else f"{item.gpu}: {item.problem}"
        for item in readings
    ]


def test_one_query_reads_all_gpus() -> None:
    tool = FakeTool(lambda _: f"{HEADER}\n{ROW_A}\n{ROW_B}\n")
    assert names(NvidiaSmiSource(run=tool).read()) == ["GPU-a", "GPU-b"]
    assert tool.calls == [[f"--query-gpu={','.join(FIELDS)}", "--format=csv,nounits"]]


def test_a_field_the_driver_does_not_know_is_left_out_from_then_on() -> None:
    def old_driver(arguments: list[str]) -> str:
        fields = arguments[0].removeprefix("--query-gpu=").split(",")
        for unknown in ("mig.mode.current", "temperature.gpu"):
            if unknown in fields:
                return f'Field "{unknown}" is not a valid field to query.\n'
        values = {"index": "0", "uuid": "GPU-a", "power.draw": "10", "name": "X"}
        return ", ".join(fields) + "\n" + ", ".join(values.get(field, "1") for field in fields)

    tool = FakeTool(old_driver)
    source = NvidiaSmiSource(run=tool)
    (first,) = source.read()
    assert isinstance(first, GpuReading)
    assert (first.gpu_uuid, first.power_w, first.temperature_c) == ("GPU-a", 10.0, None)
    assert len(tool.calls) == 3
    source.read()
    assert len(tool.calls) == 4


@pytest.mark.parametrize(
    ("text", "code", "fix"),
    [
        ("No devices were found\n", 0, "lspci"),
        ("No devices were found\n", 6, "lspci"),
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make "
            "sure that the latest "
            "NVIDIA driver is installed and running.\n",
            9,
            "modprobe",
        ),
        (
            (
                "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: "
                "535.161\n"
            ),
            18,
            "reboot",
        ),
        ("Failed to initialize NVML: Unknown Error\n", 255, "restart the container"),
        (
            "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.\n",
            12,
            "install the NVIDIA driver",
        ),
        ("Segmentation fault\n", -11, "code -11"),
        ("", 1, "code 1"),
        (f"{HEADER}\n", 15, "code 15"),
    ],
)
def test_a_failing_tool_says_what_to_do(text: str, code: int, fix: str) -> None:
    with pytest.raises(SourceUnavailable, match=fix):
        NvidiaSmiSource(run=FakeTool(lambda _: Output(text, code))).read()


def test_a_lost_gpu_beside_readable_ones() -> None:
    tool = FakeTool(lambda _: f"{HEADER}\n{ROW_A}\n{ROW_B}\n")
    source = NvidiaSmiSource(run=tool)
    source.read()
    lost = "Unable to determine the device handle for GPU1: 0000:5E:00.0: Unknown Error"
    tool.answer = lambda _: Output(
        f"{lost}\n{HEADER}\n{ROW_A}\nWARNING: infoROM is corrupted at gpu 0000:3B:00.0\n", 15
    )
    assert names(source.read()) == ["GPU-a", "GPU-b: lost"]


def test_a_lost_gpu_that_silences_the_tool_does_not_silence_the_others() -> None:
    tool = FakeTool(lambda _: f"{HEADER}\n{ROW_A}\n{ROW_B}\n")
    source = NvidiaSmiSource(run=tool)
    source.read()
    lost = (
        "Unable to determine the device handle for GPU 0000:5E:00.0: GPU is lost.  Reboot the "
        "system to recover this GPU\n"
    )

    def answer(arguments: list[str]) -> Output:
        if arguments[-2:] == ["-i", "GPU-a"]:
            return Output(f"{HEADER}\n{ROW_A}\n", 0)
        return Output(lost, 15)

    tool.answer = answer
    assert names(source.read()) == ["GPU-a", "GPU-b: lost"]


@pytest.mark.parametrize(
    "lost",
    [
        "Unable to determine the device handle for gpu 0000:5E:00.0: Not Found\n",
        f"{LOADER}\nunable to determine the device handle for GPU1: 0000:5E:00.0: Unknown Error\n",
        f"Unable to determine the device handle for gpu 0000:5E:00.0: GPU is lost.\n{BANNER}\n",
    ],
)
@pytest.mark.parametrize("known", [True, False], ids=["seen-before", "just-started"])
@pytest.mark.parametrize("lists", [True, False], ids=["lists", "lists-nothing"])
def test_a_lost_gpu_in_lower_case_does_not_silence_the_others(
    lost: str, known: bool, lists: bool
) -> None:
    tool = FakeTool(lambda _: f"{HEADER}\n{ROW_A}\n{ROW_B}\n")
    source = NvidiaSmiSource(run=tool)
    if known:
        source.read()

    def answer(arguments: list[str]) -> Output:
        if arguments == ["-L"]:
            return Output(f"GPU 0: NVIDIA L40S (UUID: GPU-a)\n{lost}" if lists else lost, 15)
        if arguments[-2:] == ["-i", "GPU-a"] or (arguments[-2:] == ["-i", "0"] and not lists):
            return Output(f"{HEADER}\n{ROW_A}\n", 0)
        return Output(
            lost
            if arguments[-1] in ("1", "GPU-b") or "-i" not in arguments
            else "No devices were found\n",
            15,
        )

    tool.answer = answer
    assert names(source.read()) == ["GPU-a", "GPU-b: lost" if known else "0000:5E:00.0: lost"]


def test_the_case_of_a_lost_gpu_in_lower_case() -> None:
    (problem,) = parse_lost(case("smi-lower-case-gpu-only.txt"))
    assert (problem.gpu, problem.problem) == ("0000:5E:00.0", Problem.LOST)


def test_a_cell_without_permission_is_no_failure_of_the_tool() -> None:
    row = ROW_A.replace("110.23", "[Insufficient Permissions]")
    (item,) = NvidiaSmiSource(run=FakeTool(lambda _: f"{HEADER}\n{row}\n")).read()
    assert isinstance(item, GpuReading)
    assert (item.gpu_uuid, item.power_w) == ("GPU-a", None)


def test_mig_slices_follow_with_their_memory_and_no_utilization() -> None:
    row = "0, GPU-a, 00000000:3B:00.0, Enabled, [N/A], 81559, 59, 71.15, 42, NVIDIA H100 80GB HBM3"
    answers = {"-L": MIG_LIST, "-q": MIG_REPORT}
    tool = FakeTool(lambda arguments: answers.get(arguments[0], f"{HEADER}\n{row}\n"))
    card, first, second, third = NvidiaSmiSource(run=tool).read()
    assert isinstance(card, GpuReading)
    assert isinstance(first, GpuReading)
    assert isinstance(second, GpuReading)
    assert (card.utilization, card.power_w) == (None, 71.15)
    assert first == GpuReading(
        gpu_index=0,
        gpu_uuid="MIG-1",
        name="NVIDIA H100 80GB HBM3",
        mem_used_mb=26.0,
        mem_total_mb=40448.0,
        mig_profile="3g.40gb",
        parent_uuid="GPU-a",
    )
    assert (second.mig_profile, second.mem_used_mb) == ("1g.20gb", None)
    assert third == GpuProblem(
        "MIG-3", Problem.MALFORMED, "the MIG profile in `nvidia-smi -L` is not known"
    )


def script(tmp_path: Path, body: str) -> str:
    path = tmp_path / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_real_command_is_run(tmp_path: Path) -> None:
    path = script(tmp_path, f"echo '{HEADER}'\necho '{ROW_A}'")
    assert names(NvidiaSmiSource(path).read()) == ["GPU-a"]


def test_a_missing_or_unusable_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="NVIDIA_SMI_PATH"):
        NvidiaSmiSource(str(tmp_path / "none")).read()
    (tmp_path / "plain").write_text("")
    with pytest.raises(SourceUnavailable, match="cannot be run"):
        NvidiaSmiSource(str(tmp_path / "plain")).read()


def test_a_hanging_command_is_ended_and_survived(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    path = script(tmp_path, f"echo $$ > {pid_file}\nexec sleep 60")
    source = NvidiaSmiSource(path, timeout_seconds=0.5)
    with pytest.raises(SourceUnavailable, match=r"did not answer within 0\.5 s"):
        source.read()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    script(tmp_path, f"echo '{HEADER}'\necho '{ROW_A}'")
    assert names(source.read()) == ["GPU-a"]


def sections(path: Path) -> dict[str, str]:
    """Title -> text of a capture file."""
    parts = re.split(r"#{20,}\n# (.+?)\n(?:# .*\n)*#{20,}\n", path.read_text(encoding="utf-8"))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


capture_files = sorted(CAPTURES.glob("*.txt"))


@pytest.mark.skipif(
    not capture_files, reason="no nvidia-smi captures here (GPU_TOKENS_SHARED_DATA)"
)
@pytest.mark.parametrize("path", capture_files, ids=lambda path: path.stem)
@pytest.mark.parametrize("phase", ["idle", "load"])
def test_real_captures(path: Path, phase: str) -> None:
    """All 200 and more columns of each driver, with the real values of the columns that are
    used."""
    texts = sections(path)
    found = reading(texts[f"{phase} :: query-gpu (csv, what the exporter parses)"])
    expected = {
        ("geforce-rtx-4080-super", "idle"): (0.0, 596.0, 16376.0, 26.2, 43.0),
        ("geforce-rtx-4080-super", "load"): (0.07, 1474.0, 16376.0, 84.24, 46.0),
        ("h100-80gb-hbm3", "idle"): (0.0, 0.0, 81559.0, 69.85, 41.0),
        ("h100-80gb-hbm3", "load"): (1.0, 19818.0, 81559.0, 631.95, 59.0),
        ("h100-mig", "idle"): (None, 59.0, 81559.0, 71.15, 42.0),
        ("h100-mig", "load"): (None, 11125.0, 81559.0, 433.78, 53.0),
        ("l40s", "idle"): (1.0, 0.0, 46068.0, 144.97, 63.0),
        ("l40s", "load"): (0.09, 1235.0, 46068.0, 110.23, 54.0),
    }[path.stem.split("__")[1].removeprefix("nvidia-"), phase]
    assert (
        found.utilization,
        found.mem_used_mb,
        found.mem_total_mb,
        found.power_w,
        found.temperature_c,
    ) == expected
    sample = found.to_sample("vm1", NOW, "nvidia-smi")
    assert decode(encode(sample)) == sample


@pytest.mark.skipif(
    not capture_files, reason="no nvidia-smi captures here (GPU_TOKENS_SHARED_DATA)"
)
def test_real_mig_capture_through_the_source() -> None:
    texts = sections(next(path for path in capture_files if "h100-mig" in path.name))
    answers = {"-L": texts["capabilities :: list (-L)"], "-q": texts["load :: query (-q)"]}
    query = texts["load :: query-gpu (csv, what the exporter parses)"]
    card, *slices = NvidiaSmiSource(
        run=FakeTool(lambda arguments: answers.get(arguments[0], query))
    ).read()
    assert isinstance(card, GpuReading)
    assert card.utilization is None
    found = [
        (item.mig_profile, item.mem_used_mb, item.mem_total_mb)
        for item in slices
        if isinstance(item, GpuReading)
    ]
    assert found == [
        ("3g.40gb", 11091.0, 40448.0),
        ("2g.20gb", 17.0, 20096.0),
        ("1g.10gb", 9.0, 9984.0),
        ("1g.10gb", 9.0, 9984.0),
    ]
    assert all(item.parent_uuid == card.gpu_uuid for item in slices if isinstance(item, GpuReading))
