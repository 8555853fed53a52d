"""A pynvml that behaves: real error codes, real error class, GPUs whose state a test changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

MIB = 1024 * 1024


@dataclass
class FakeSlice:
    uuid: str
    name: str = "NVIDIA H100 80GB HBM3 MIG 3g.40gb"
    used: int = 26 * MIB
    total: int = 40448 * MIB
    slices: int = 3


@dataclass
class FakeGpu:
    uuid: str
    name: str | bytes = "NVIDIA H100 80GB HBM3"
    utilization: int = 57
    used: int = 19818 * MIB
    reserved: int = 479 * MIB
    total: int = 81559 * MIB
    milliwatts: int = 631_950
    millijoules: int = 123_456_789
    celsius: int = 59
    error: int | None = None  # every call on it fails with this
    missing: dict[str, int] = field(default_factory=dict)  # call name -> error code
    mig: list[FakeSlice] | None = None


class FakeNvml:
    """The part of pynvml the source uses. `state` is an error code for the library as a whole, or
    None."""

    def __init__(self, *gpus: FakeGpu) -> None:
        self.gpus = list(gpus)
        self.state: int | None = None
        self.init_error: int | None = None
        self.initialised = 0
        self.shutdowns = 0

    def __getattr__(self, name: str) -> Any:
        """Constants and the error class are the real ones."""
        if name.startswith("NVML_") or name in {"NVMLError", "nvmlMemory_v2"}:
            return getattr(pynvml, name)
        raise AttributeError(name)

    def _call(self, name: str, device: FakeGpu | FakeSlice | None = None) -> None:
        if not self.initialised:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        if self.state is not None:
            raise pynvml.NVMLError(self.state)
        if isinstance(device, FakeGpu):
            code = device.error if device.error is not None else device.missing.get(name)
            if code is not None:
                raise pynvml.NVMLError(code)

    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise pynvml.NVMLError(self.init_error)
        self.state = None
        self.initialised += 1

    def nvmlShutdown(self) -> None:
        self.shutdowns += 1
        self._call("nvmlShutdown")
        self.initialised -= 1

    def nvmlDeviceGetCount(self) -> int:
        self._call("nvmlDeviceGetCount")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        self._call("nvmlDeviceGetHandleByIndex", self.gpus[index])
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, device: FakeGpu | FakeSlice) -> str:
        self._call("nvmlDeviceGetUUID", device)
        return device.uuid

    def nvmlDeviceGetName(self, device: FakeGpu | FakeSlice) -> str | bytes:
        self._call("nvmlDeviceGetName", device)
        return device.name

    def nvmlDeviceGetUtilizationRates(self, device: FakeGpu) -> Any:
        self._call("nvmlDeviceGetUtilizationRates", device)
        return SimpleNamespace(gpu=device.utilization, memory=3)

    def nvmlDeviceGetMemoryInfo(
        self, device: FakeGpu | FakeSlice, version: int | None = None
    ) -> Any:
        self._call("nvmlDeviceGetMemoryInfo_v2" if version else "nvmlDeviceGetMemoryInfo", device)
        reserved = device.reserved if isinstance(device, FakeGpu) and not version else 0
        return SimpleNamespace(used=device.used + reserved, total=device.total)

    def nvmlDeviceGetPowerUsage(self, device: FakeGpu) -> int:
        self._call("nvmlDeviceGetPowerUsage", device)
        return device.milliwatts

    def nvmlDeviceGetTotalEnergyConsumption(self, device: FakeGpu) -> int:
        self._call("nvmlDeviceGetTotalEnergyConsumption", device)
        return device.millijoules

    def nvmlDeviceGetTemperatureV(self, device: FakeGpu, sensor: int) -> int:
        self._call("nvmlDeviceGetTemperatureV", device)
        return device.celsius

    def nvmlDeviceGetTemperature(self, device: FakeGpu, sensor: int) -> int:
        self._call("nvmlDeviceGetTemperature", device)
        return device.celsius

    def nvmlDeviceGetMigMode(self, device: FakeGpu) -> list[int]:
        self._call("nvmlDeviceGetMigMode", device)
        if device.mig is None:
            return [0, 0]
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: FakeGpu) -> int:
        self._call("nvmlDeviceGetMaxMigDeviceCount", device)
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: FakeGpu, place: int) -> FakeSlice:
        self._call("nvmlDeviceGetMigDeviceHandleByIndex", device)
        if device.mig is None or place >= len(device.mig):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return device.mig[place]

    def nvmlDeviceGetAttributes(self, device: FakeSlice) -> Any:
        self._call("nvmlDeviceGetAttributes", device)
        return SimpleNamespace(
            computeInstanceSliceCount=device.slices, memorySizeMB=device.total // MIB
        )
