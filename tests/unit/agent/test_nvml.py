"""NVML: units, unknown fields, lost GPUs, driver reloads, MIG; on a library that fails the way the
real one does."""

from __future__ import annotations

from datetime import UTC, datetime

import pynvml
import pytest
from tests.unit.agent.fake_nvml import FakeGpu, FakeNvml, FakeSlice

from gpu_token_analytics.agent.readings import GpuProblem, GpuReading, Problem, Reading, mig_profile
from gpu_token_analytics.agent.sources.nvidia_smi import NvidiaSmiSource
from gpu_token_analytics.agent.sources.nvml import NvmlSource
from gpu_token_analytics.errors import SourceUnavailable
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import encode

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def only(readings: list[Reading]) -> GpuReading:
    assert len(readings) == 1
    assert isinstance(readings[0], GpuReading)
    return readings[0]


def test_units_are_ours() -> None:
    reading = only(NvmlSource(FakeNvml(FakeGpu("GPU-a"))).read())
    assert reading == GpuReading(
        gpu_index=0,
        gpu_uuid="GPU-a",
        name="NVIDIA H100 80GB HBM3",
        utilization=0.57,
        mem_used_mb=19818.0,
        mem_total_mb=81559.0,
        power_w=631.95,
        temperature_c=59.0,
        energy_j=123_456.789,
    )
    sample = reading.to_sample("vm1", NOW, "nvml")
    assert decode(encode(sample)) == sample


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ("nvmlDeviceGetUtilizationRates", "utilization"),
        ("nvmlDeviceGetPowerUsage", "power_w"),
        ("nvmlDeviceGetTotalEnergyConsumption", "energy_j"),
        ("nvmlDeviceGetName", "name"),
        ("nvmlDeviceGetUUID", "gpu_uuid"),
    ],
)
@pytest.mark.parametrize(
    "code",
    [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_UNKNOWN],
)
def test_a_field_without_a_value_is_unknown_and_the_others_stay(
    call: str, field: str, code: int
) -> None:
    whole = only(NvmlSource(FakeNvml(FakeGpu("GPU-a"))).read())
    reading = only(NvmlSource(FakeNvml(FakeGpu("GPU-a", missing={call: code}))).read())
    for name in GpuReading.__dataclass_fields__:
        assert getattr(reading, name) == (None if name == field else getattr(whole, name))


def test_memory_falls_back_to_the_older_call_and_then_to_unknown() -> None:
    function_not_found = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    gpu = FakeGpu("GPU-a", missing={"nvmlDeviceGetMemoryInfo_v2": function_not_found})
    # v1 counts the reserved part in
    assert only(NvmlSource(FakeNvml(gpu)).read()).mem_used_mb == 19818 + 479
    gpu.missing["nvmlDeviceGetMemoryInfo"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    reading = only(NvmlSource(FakeNvml(gpu)).read())
    assert (reading.mem_used_mb, reading.mem_total_mb) == (None, None)


def test_temperature_falls_back_to_the_older_call() -> None:
    gpu = FakeGpu(
        "GPU-a", missing={"nvmlDeviceGetTemperatureV": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}
    )
    assert only(NvmlSource(FakeNvml(gpu)).read()).temperature_c == 59


def test_names_may_be_bytes() -> None:
    assert (
        only(NvmlSource(FakeNvml(FakeGpu("GPU-a", name=b"NVIDIA L40S"))).read()).name
        == "NVIDIA L40S"
    )


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (pynvml.NVML_ERROR_GPU_IS_LOST, Problem.LOST),
        (pynvml.NVML_ERROR_RESET_REQUIRED, Problem.RESET_REQUIRED),
        (pynvml.NVML_ERROR_UNKNOWN, Problem.UNREADABLE),
        (pynvml.NVML_ERROR_TIMEOUT, Problem.UNREADABLE),
    ],
)
def test_a_lost_gpu_is_named_and_does_not_stop_the_others(code: int, problem: Problem) -> None:
    nvml = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b"), FakeGpu("GPU-c"))
    source = NvmlSource(nvml)
    source.read()
    nvml.gpus[1].error = code
    first, second, third = source.read()
    assert isinstance(first, GpuReading)
    assert isinstance(second, GpuProblem)
    assert isinstance(third, GpuReading)
    assert (second.gpu, second.problem) == ("GPU-b", problem)
    assert str(code) in second.message


def test_a_gpu_that_is_lost_in_the_middle_of_a_read_is_not_half_a_reading() -> None:
    """Half of its fields would be old, the others null: a sample that looks like an idle GPU."""
    gpu = FakeGpu("GPU-a", missing={"nvmlDeviceGetPowerUsage": pynvml.NVML_ERROR_GPU_IS_LOST})
    (reading,) = NvmlSource(FakeNvml(gpu)).read()
    assert isinstance(reading, GpuProblem)
    assert reading.problem == Problem.LOST


def test_a_gpu_that_answers_nothing_is_a_problem_not_an_empty_reading() -> None:
    calls = ["UUID", "Name", "MemoryInfo", "MemoryInfo_v2"]
    gpu = FakeGpu(
        "GPU-a", missing={f"nvmlDeviceGet{call}": pynvml.NVML_ERROR_UNKNOWN for call in calls}
    )
    (reading,) = NvmlSource(FakeNvml(gpu)).read()
    assert isinstance(reading, GpuProblem)
    assert reading.problem == Problem.UNREADABLE


def test_a_lost_gpu_comes_back_after_nvml_is_opened_again() -> None:
    now = 0.0
    nvml = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    source = NvmlSource(nvml, monotonic=lambda: now)
    nvml.gpus[1].error = pynvml.NVML_ERROR_GPU_IS_LOST
    source.read()
    now = 59.0
    source.read()
    assert nvml.shutdowns == 0  # opening costs seconds: not at every read
    now = 61.0
    source.read()
    assert nvml.shutdowns == 1
    nvml.gpus[1].error = None
    assert all(isinstance(reading, GpuReading) for reading in source.read())
    now = 1000.0
    source.read()
    assert nvml.shutdowns == 1  # all is well: it stays open


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "install the NVIDIA driver"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "modprobe nvidia"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "reboot"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "/dev/nvidia"),
    ],
)
def test_a_missing_driver_says_what_to_do_and_is_survived(code: int, fix: str) -> None:
    nvml = FakeNvml(FakeGpu("GPU-a"))
    nvml.init_error = code
    source = NvmlSource(nvml)
    with pytest.raises(SourceUnavailable, match=fix):
        source.read()
    nvml.init_error = None
    assert only(source.read()).gpu_uuid == "GPU-a"


@pytest.mark.parametrize(
    "code",
    [
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_UNKNOWN,
    ],
)
def test_a_driver_reload_is_survived(code: int) -> None:
    nvml = FakeNvml(FakeGpu("GPU-a"))
    source = NvmlSource(nvml)
    source.read()
    nvml.state = code  # the module was unloaded: every call fails until NVML is opened anew
    with pytest.raises(SourceUnavailable):
        source.read()
    assert only(source.read()).gpu_uuid == "GPU-a"
    assert nvml.shutdowns == 1


def test_a_driver_that_goes_in_the_middle_of_a_read_is_not_a_lost_gpu() -> None:
    nvml = FakeNvml(
        FakeGpu("GPU-a"),
        FakeGpu("GPU-b", missing={"nvmlDeviceGetPowerUsage": pynvml.NVML_ERROR_UNINITIALIZED}),
    )
    with pytest.raises(SourceUnavailable, match="reloaded"):
        NvmlSource(nvml).read()


def test_mig_slices_follow_their_card() -> None:
    slices = [
        FakeSlice("MIG-1"),
        FakeSlice("MIG-2", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", total=9984 * 1024 * 1024, slices=1),
    ]
    gpu = FakeGpu(
        "GPU-a",
        mig=slices,
        missing={"nvmlDeviceGetUtilizationRates": pynvml.NVML_ERROR_NOT_SUPPORTED},
    )
    card, first, second = NvmlSource(FakeNvml(gpu, FakeGpu("GPU-b"))).read()[:3]
    assert isinstance(card, GpuReading)
    assert isinstance(first, GpuReading)
    assert isinstance(second, GpuReading)
    assert card.utilization is None  # not 0: under MIG the driver does not say
    assert card.power_w == 631.95
    assert (first.gpu_uuid, first.parent_uuid, first.mig_profile, first.gpu_index) == (
        "MIG-1",
        "GPU-a",
        "3g.40gb",
        0,
    )
    assert (first.mem_used_mb, first.mem_total_mb) == (26.0, 40448.0)
    assert (first.utilization, first.power_w, first.energy_j) == (None, None, None)
    assert second.mig_profile == "1g.10gb"
    for reading in (card, first, second):
        sample = reading.to_sample("vm1", NOW, "nvml")
        assert decode(encode(sample)) == sample


def test_a_slice_of_a_driver_before_470_has_a_name_that_is_taken() -> None:
    reading = NvmlSource(FakeNvml(FakeGpu("GPU-1f", mig=[FakeSlice("MIG-GPU-1f/2/0")]))).read()[1]
    assert isinstance(reading, GpuReading)
    sample = reading.to_sample("vm1", NOW, "nvml")
    assert decode(encode(sample)) == sample
    assert sample.gpu == "MIG-gpu-1f-2-0"


def test_a_slice_whose_name_has_no_profile_is_measured() -> None:
    gpu = FakeGpu(
        "GPU-a",
        mig=[FakeSlice("MIG-1", "NVIDIA H100 80GB HBM3", total=20096 * 1024 * 1024, slices=2)],
    )
    reading = NvmlSource(FakeNvml(gpu)).read()[1]
    assert isinstance(reading, GpuReading)
    assert reading.mig_profile == "2g.20gb"


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "3g.40gb"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb+me", "1g.5gb+me"),
        # one of three compute slices of the instance: a seventh, not three
        ("1c.3g.40gb", "1g.40gb"),
        ("NVIDIA H100 80GB HBM3", None),
        ("", None),
    ],
)
def test_profiles(text: str, profile: str | None) -> None:
    assert mig_profile(text) == profile


def test_values_outside_the_contract_become_unknown() -> None:
    gpu = FakeGpu(
        "GPU-a", utilization=255, milliwatts=4_294_967_295, used=90_000 * 1024 * 1024, celsius=-128
    )
    sample = only(NvmlSource(FakeNvml(gpu)).read()).to_sample("vm1", NOW, "nvml")
    assert (sample.utilization, sample.power_w, sample.mem_used_mb, sample.temperature_c) == (
        None,
        None,
        None,
        None,
    )
    assert sample.mem_total_mb == 81559
    assert decode(encode(sample)) == sample


def test_close_and_read_again() -> None:
    nvml = FakeNvml(FakeGpu("GPU-a"))
    source = NvmlSource(nvml)
    source.close()
    source.read()
    source.close()
    source.close()
    assert nvml.shutdowns == 1
    assert only(source.read()).gpu_uuid == "GPU-a"


def _driver_is_loaded() -> bool:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    pynvml.nvmlShutdown()
    return True


@pytest.mark.skipif(_driver_is_loaded(), reason="this machine has an NVIDIA driver")
def test_the_real_library_without_a_driver_says_so() -> None:
    with pytest.raises(SourceUnavailable, match="NVML"):
        NvmlSource().read()


@pytest.mark.skipif(not _driver_is_loaded(), reason="no NVIDIA driver on this machine")
def test_the_real_library_and_nvidia_smi_agree() -> None:
    source = NvmlSource()
    ours = {item.gpu_uuid: item for item in source.read() if isinstance(item, GpuReading)}
    source.close()
    theirs = {
        item.gpu_uuid: item for item in NvidiaSmiSource().read() if isinstance(item, GpuReading)
    }
    assert ours.keys() == theirs.keys()
    for uuid, item in ours.items():
        other = theirs[uuid]
        assert (item.name, item.mig_profile, item.parent_uuid) == (
            other.name,
            other.mig_profile,
            other.parent_uuid,
        )
        assert item.mem_total_mb == pytest.approx(other.mem_total_mb, abs=1)
        assert (item.power_w is None) == (other.power_w is None)
