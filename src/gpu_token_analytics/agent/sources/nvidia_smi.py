"""Readings from the nvidia-smi command, for machines where the driver's library cannot be loaded.

    nvidia-smi --query-gpu=... --format=csv,nounits    one process per read
    nvidia-smi -L, nvidia-smi -q                       two more, only while a card has MIG slices

The tool's timestamp is local time without a zone and is not asked for: the agent stamps UTC itself.
It has no energy counter (that is NVML only).
"""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from gpu_token_analytics.agent.readings import (
    GpuProblem,
    GpuReading,
    Problem,
    Reading,
    is_no_identity,
)
from gpu_token_analytics.agent.sources.smi_text import (
    FIELDS,
    GpuRow,
    parse_cards,
    parse_gpus,
    parse_lost,
    parse_slice_memory,
    parse_slices,
    short_bus_id,
)
from gpu_token_analytics.errors import SourceUnavailable
from gpu_token_analytics.wire.fields import Source

_log = logging.getLogger(__name__)

# without persistence mode the tool loads the driver each time, which takes seconds per GPU
TIMEOUT_SECONDS = 20.0
# GPUs asked for by number where none is known by its UUID; the largest boards carry as many
_MOST_INDEXES = 16
_INVALID_FIELD = re.compile(r'Field "([^"]+)" is not a valid field to query')

# Text of the tool -> what to do. Its exit codes are not enough: some failures exit with 0.
_FIXES = (
    (
        "No devices were found",
        "no GPU is visible: check `lspci | grep -i nvidia`, or how the container gets its GPUs",
    ),
    (
        "couldn't communicate with the NVIDIA driver",
        "load the NVIDIA kernel module (`modprobe nvidia`) and look at `dmesg`",
    ),
    (
        "Driver/library version mismatch",
        "the driver was updated while loaded: reboot, or reload the kernel module",
    ),
    (
        "couldn't find libnvidia-ml.so",
        "install the NVIDIA driver, or run the container with `--gpus all`",
    ),
    ("Insufficient Permissions", "give this user access to /dev/nvidia*"),
    (
        "Failed to initialize NVML",
        "restart the container (it lost its devices), or look at `dmesg`",
    ),
)


class Output(NamedTuple):
    """What a finished command printed (both streams) and its exit code."""

    text: str
    code: int


class NvidiaSmiSource:
    """All GPUs and MIG slices that the command lists."""

    name: Source = "nvidia-smi"

    def __init__(
        self,
        path: str = "nvidia-smi",
        run: Callable[[list[str]], Output] | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """run: runs a command line and returns its output (tests); it may raise
        SourceUnavailable."""
        self._path = path
        self._run = run or CommandRunner(timeout_seconds)
        self._fields = list(FIELDS)
        self._bus_ids: dict[str, str | None] = {}  # of every GPU seen so far: UUID -> PCI bus id

    def read(self) -> list[Reading]:
        """Every GPU, its MIG slices after it. Raises SourceUnavailable with the fix."""
        output = self._query([])
        problems = [self._named(problem) for problem in parse_lost(output.text)]
        rows = self._rows(output, tolerate=bool(problems))
        if problems and not rows:
            rows = self._one_by_one()
        self._remember(rows)
        readings: list[Reading] = [row.reading for row in rows]
        if any(row.mig_enabled for row in rows):
            readings.extend(self._slices(readings))
        return [*readings, *problems]

    def close(self) -> None:
        """Nothing is open between reads."""

    def _remember(self, rows: list[GpuRow]) -> None:
        """Who is there, to name a GPU by its UUID when the tool later only tells its bus id."""
        for row in rows:
            if (
                isinstance(row.reading, GpuReading)
                and row.reading.gpu_uuid
                and not is_no_identity(row.reading.gpu_uuid)
            ):
                self._bus_ids[row.reading.gpu_uuid] = row.bus_id

    def _named(self, problem: GpuProblem) -> GpuProblem:
        bus_id = short_bus_id(problem.gpu)
        known = (uuid for uuid, its in self._bus_ids.items() if its is not None and its == bus_id)
        return replace(problem, gpu=next(known, problem.gpu))

    def _query(self, more: list[str]) -> Output:
        """Run the query; a field this driver does not know is left out from then on."""
        while True:
            output = self._run(
                [self._path, f"--query-gpu={','.join(self._fields)}", "--format=csv,nounits", *more]
            )
            unknown = _INVALID_FIELD.search(output.text)
            if unknown is None or unknown[1] not in self._fields or len(self._fields) == 1:
                return output
            _log.warning(
                "nvidia-smi does not know the field %s: it is left out, its values stay unknown",
                unknown[1],
            )
            self._fields.remove(unknown[1])

    def _rows(self, output: Output, tolerate: bool) -> list[GpuRow]:
        try:
            rows, why = parse_gpus(output.text), "no GPU"
        except ValueError:
            rows, why = [], f"said {self._said(output)!r}"
        if rows or tolerate:
            return rows
        for words, fix in _FIXES:
            if words.lower() in output.text.lower():
                raise SourceUnavailable(f"nvidia-smi says {self._said(output)!r}; {fix}")
        if output.code != 0 or why != "no GPU":
            raise SourceUnavailable(
                f"nvidia-smi ended with code {output.code} and {why}; run `{self._path}` by hand "
                "to see why"
            )
        return rows

    @staticmethod
    def _said(output: Output) -> str:
        return " ".join(output.text.split())[:200]

    def _one_by_one(self) -> list[GpuRow]:
        """One lost GPU can make the tool say nothing about the others: ask for each that was there
        before.

        Just started, nobody was: `-L` names those that answer, and where it is silent, too, each
        index is tried.
        """
        uuids = list(self._bus_ids) or parse_cards(self._run([self._path, "-L"]).text)
        # With `-i` a missing index column cannot be counted, so a row must say who it is.
        if uuids:
            return [
                row
                for uuid in uuids
                for row in self._asked(uuid)
                if _reading_of(row).gpu_uuid == uuid
            ]
        return [
            row
            for index in range(_MOST_INDEXES)
            for row in self._asked(str(index))
            if _reading_of(row).gpu_index == index and _reading_of(row).gpu_uuid
        ]

    def _asked(self, gpu: str) -> list[GpuRow]:
        output = self._query(["-i", gpu])
        return [
            row for row in self._rows(output, tolerate=True) if isinstance(row.reading, GpuReading)
        ]

    def _slices(self, cards: list[Reading]) -> list[Reading]:
        """The MIG slices. Utilization, power and energy of a slice are not reported by the driver:
        unknown."""
        by_uuid = {card.gpu_uuid: card for card in cards if isinstance(card, GpuReading)}
        memory = parse_slice_memory(self._run([self._path, "-q"]).text)
        readings: list[Reading] = []
        for part in parse_slices(self._run([self._path, "-L"]).text):
            card = by_uuid.get(part.parent_uuid)
            if card is None:
                continue
            if part.profile is None:
                readings.append(
                    GpuProblem(
                        part.uuid,
                        Problem.MALFORMED,
                        "the MIG profile in `nvidia-smi -L` is not known",
                    )
                )
                continue
            used_mb, total_mb = memory.get((part.parent_uuid, part.place), (None, None))
            readings.append(
                GpuReading(
                    gpu_index=card.gpu_index,
                    gpu_uuid=part.uuid,
                    name=card.name,
                    mem_used_mb=used_mb,
                    mem_total_mb=total_mb,
                    mig_profile=part.profile,
                    parent_uuid=part.parent_uuid,
                )
            )
        return readings


def _reading_of(row: GpuRow) -> GpuReading:
    assert isinstance(row.reading, GpuReading)  # _asked() hands on no other
    return row.reading


class CommandRunner:
    """Runs a command with a time limit. A command that cannot even be killed is not started a
    second time."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._stuck: subprocess.Popen[str] | None = None

    def __call__(self, command: list[str]) -> Output:
        """Its output. Raises SourceUnavailable when it cannot be started or does not end in
        time."""
        if self._stuck is not None:
            if self._stuck.poll() is None:
                raise SourceUnavailable(
                    f"{command[0]} (pid {self._stuck.pid}) hangs in the driver and cannot be "
                    "killed; see `dmesg`, reboot"
                )
            self._stuck = None
        try:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except FileNotFoundError:
            raise SourceUnavailable(
                f"{command[0]} is not installed; install the NVIDIA driver or set NVIDIA_SMI_PATH "
                "to the executable"
            ) from None
        except OSError as error:
            raise SourceUnavailable(
                f"{command[0]} cannot be run ({error.strerror}); check NVIDIA_SMI_PATH"
            ) from None
        try:
            text, _ = process.communicate(timeout=self._timeout_seconds)
        except subprocess.TimeoutExpired:
            self._kill(process)
            raise SourceUnavailable(
                f"{command[0]} did not answer within {self._timeout_seconds:g} s; turn on "
                "persistence mode "
                "(nvidia-persistenced) or look at `dmesg` for a hanging driver"
            ) from None
        return Output(text, process.returncode)

    def _kill(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        if process.stdout is not None:
            process.stdout.close()
        try:
            process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._stuck = process  # in uninterruptible sleep inside the driver
