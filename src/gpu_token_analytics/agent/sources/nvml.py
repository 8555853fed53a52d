"""Readings from the driver's library, NVML (nvidia-ml-py).

Units: mW -> W, mJ -> J (a counter since driver load, Volta and newer), bytes -> MiB, percent ->
0..1. A field the driver does not support or permit is None; a GPU that cannot be read is a problem
of its own and does not stop the others. `memory.used` is the v2 call's, without the driver's
reserved memory, so that it agrees with nvidia-smi; drivers without v2 (before 510) count the
reserved part in.

Under MIG the driver gives board power, energy and temperature for the card, and memory for each
slice; utilization for neither: unknown, not 0.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from gpu_token_analytics.agent.readings import (
    MIB,
    GpuProblem,
    GpuReading,
    Problem,
    Reading,
    mig_profile,
)
from gpu_token_analytics.errors import SourceUnavailable
from gpu_token_analytics.wire.fields import Source
from gpu_token_analytics.wire.names import canonical_gpu

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# NVML sees a repaired GPU only after it is opened anew; doing so costs up to seconds
_REOPEN_AFTER_SECONDS = 60.0

_FIXES = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": (
        "install the NVIDIA driver, or run the container with `--gpus all`"
    ),
    "NVML_ERROR_DRIVER_NOT_LOADED": (
        "load the NVIDIA kernel module (`modprobe nvidia`) and look at `dmesg`"
    ),
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": (
        "the driver was updated while loaded: reboot, or reload the kernel module"
    ),
    "NVML_ERROR_NO_PERMISSION": "give this user access to /dev/nvidia*",
    "NVML_ERROR_UNKNOWN": (
        "a container that lost its devices must be restarted (systemd cgroup reload); else see "
        "`dmesg`"
    ),
}


class _Closed(Exception):
    """Internal: the driver went; NVML has to be opened again before anything else works."""


class NvmlSource:
    """All GPUs and MIG slices of this machine. NVML is opened at the first read, and again after a
    loss."""

    name: Source = "nvml"

    def __init__(
        self, library: Any = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """library: the pynvml module, or something that behaves like it (tests)."""
        self._library = library
        self._monotonic = monotonic
        self._open = False
        self._reopen_at: float | None = None
        # index -> UUID when it was last readable: names a GPU that is lost
        self._uuids: dict[int, str] = {}

    def read(self) -> list[Reading]:
        """Every GPU, its MIG slices after it. Raises SourceUnavailable when NVML cannot be opened
        or has gone."""
        if self._reopen_at is not None and self._monotonic() >= self._reopen_at:
            self.close()
        nvml = self._opened()
        readings: list[Reading] = []
        try:
            for index in range(nvml.nvmlDeviceGetCount()):
                readings.extend(self._read_gpu(nvml, index))
        except nvml.NVMLError as error:
            self.close()
            raise self._unavailable("NVML stopped answering", error) from None
        except _Closed as error:
            self.close()
            raise SourceUnavailable(
                f"the driver was unloaded or reloaded ({error}); it is opened again at the next "
                "read"
            ) from None
        if any(isinstance(reading, GpuProblem) for reading in readings):
            if self._reopen_at is None:
                self._reopen_at = self._monotonic() + _REOPEN_AFTER_SECONDS
        else:
            self._reopen_at = None
        return readings

    def close(self) -> None:
        """Let go of NVML; the next read opens it again."""
        self._reopen_at = None
        if not self._open:
            return
        self._open = False
        try:
            self._library.nvmlShutdown()
        except self._library.NVMLError as error:
            # nothing is left to release: the driver went first
            _log.debug("nvmlShutdown: %s", error)

    def _opened(self) -> Any:
        if self._library is None:
            import pynvml

            self._library = pynvml
        if not self._open:
            try:
                self._library.nvmlInit()
            except self._library.NVMLError as error:
                raise self._unavailable("NVML cannot be opened", error) from None
            self._open = True
        return self._library

    def _unavailable(self, what: str, error: Any) -> SourceUnavailable:
        fix = next(
            (
                fix
                for code, fix in _FIXES.items()
                if getattr(self._library, code, None) == error.value
            ),
            None,
        )
        return SourceUnavailable(
            f"{what}: {error} (NVML error {error.value})" + (f"; {fix}" if fix else "")
        )

    def _read_gpu(self, nvml: Any, index: int) -> list[Reading]:
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = self._field(nvml, lambda: _text(nvml.nvmlDeviceGetUUID(handle)))
            card = self._reading(nvml, handle, index, uuid or None)
        except nvml.NVMLError as error:
            return [self._problem(nvml, self._uuids.get(index) or f"index {index}", error)]
        if card.gpu_uuid is None and card.name is None and card.mem_total_mb is None:
            gpu = self._uuids.get(index) or f"index {index}"
            return [
                GpuProblem(
                    gpu, Problem.UNREADABLE, "the driver gives neither UUID nor name nor memory"
                )
            ]
        if card.gpu_uuid is not None:
            self._uuids[index] = card.gpu_uuid
        if not self._mig_enabled(nvml, handle):
            return [card]
        return [card, *self._slices(nvml, handle, index, card)]

    def _reading(self, nvml: Any, handle: Any, index: int, uuid: str | None) -> GpuReading:
        def field(call: Callable[[], _T]) -> _T | None:
            return self._field(nvml, call)

        percent = field(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        used_mb, total_mb = self._memory_mb(nvml, handle)
        milliwatts = field(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        millijoules = field(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        return GpuReading(
            gpu_index=index,
            gpu_uuid=uuid,
            name=field(lambda: _text(nvml.nvmlDeviceGetName(handle))),
            utilization=None if percent is None else percent / 100,
            mem_used_mb=used_mb,
            mem_total_mb=total_mb,
            power_w=None if milliwatts is None else milliwatts / 1000,
            temperature_c=self._temperature_c(nvml, handle),
            energy_j=None if millijoules is None else millijoules / 1000,
        )

    def _temperature_c(self, nvml: Any, handle: Any) -> float | None:
        """The new call first: the old one is deprecated since NVML 13 and will go."""
        sensor = nvml.NVML_TEMPERATURE_GPU
        celsius = self._field(nvml, lambda: nvml.nvmlDeviceGetTemperatureV(handle, sensor))
        if celsius is None:
            celsius = self._field(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, sensor))
        return None if celsius is None else float(celsius)

    def _memory_mb(self, nvml: Any, handle: Any) -> tuple[float | None, float | None]:
        memory = self._field(
            nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        )
        if memory is None:
            memory = self._field(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        return (None, None) if memory is None else (memory.used / MIB, memory.total / MIB)

    def _mig_enabled(self, nvml: Any, handle: Any) -> bool:
        modes = self._field(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle))
        return modes is not None and modes[0] == nvml.NVML_DEVICE_MIG_ENABLE

    def _slices(self, nvml: Any, handle: Any, index: int, card: GpuReading) -> list[Reading]:
        """The MIG slices of a card. Places without a slice say NOT_FOUND; a slice without UUID has
        no identity."""
        slices: list[Reading] = []
        for number in range(
            self._field(nvml, lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0
        ):
            try:
                mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                # of drivers before 470 it holds slashes
                uuid = canonical_gpu(_text(nvml.nvmlDeviceGetUUID(mig)))
                name = self._field(nvml, lambda mig=mig: _text(nvml.nvmlDeviceGetName(mig))) or ""  # type: ignore[misc]
                profile = mig_profile(name) or self._profile_by_size(nvml, mig)
                used_mb, total_mb = self._memory_mb(nvml, mig)
            except nvml.NVMLError as error:
                if error.value not in (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT):
                    slices.append(
                        self._problem(
                            nvml, f"{card.gpu_uuid or f'index {index}'} MIG {number}", error
                        )
                    )
                continue
            if profile is None or card.gpu_uuid is None:
                slices.append(
                    GpuProblem(
                        uuid,
                        Problem.UNREADABLE,
                        f"MIG slice {name!r} has no known profile or parent",
                    )
                )
                continue
            slices.append(
                GpuReading(
                    gpu_index=index,
                    gpu_uuid=uuid,
                    name=card.name,
                    mem_used_mb=used_mb,
                    mem_total_mb=total_mb,
                    mig_profile=profile,
                    parent_uuid=card.gpu_uuid,
                )
            )
        return slices

    def _profile_by_size(self, nvml: Any, mig: Any) -> str | None:
        """The profile put together from the slice's attributes, for drivers whose device name does
        not carry it."""
        attributes = self._field(nvml, lambda: nvml.nvmlDeviceGetAttributes(mig))
        if attributes is None:
            return None
        return mig_profile(
            f"{attributes.computeInstanceSliceCount}g.{-(-attributes.memorySizeMB // 1024)}gb"
        )

    def _field(self, nvml: Any, call: Callable[[], _T]) -> _T | None:
        """The value, or None where the driver has none. Errors that concern the whole GPU or all of
        NVML pass on."""
        try:
            return call()
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_UNINITIALIZED, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
                raise _Closed(str(error)) from None
            if error.value in (
                nvml.NVML_ERROR_GPU_IS_LOST,
                nvml.NVML_ERROR_RESET_REQUIRED,
                nvml.NVML_ERROR_TIMEOUT,
            ):
                raise
            return None
        except AttributeError:
            return None  # this nvidia-ml-py does not know the call

    def _problem(self, nvml: Any, gpu: str, error: Any) -> GpuProblem:
        if error.value in (nvml.NVML_ERROR_UNINITIALIZED, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
            raise _Closed(str(error)) from None
        problem = {
            nvml.NVML_ERROR_GPU_IS_LOST: Problem.LOST,
            nvml.NVML_ERROR_NOT_FOUND: Problem.LOST,
            nvml.NVML_ERROR_RESET_REQUIRED: Problem.RESET_REQUIRED,
        }.get(error.value, Problem.UNREADABLE)
        return GpuProblem(gpu, problem, f"{error} (NVML error {error.value})")


def _text(value: str | bytes) -> str:
    """Older bindings return bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
