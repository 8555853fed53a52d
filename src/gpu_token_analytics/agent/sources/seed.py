"""Readings from `gpu_seed.json`: declared, not measured; for machines without a GPU, demos and
tests.

The file is a list of objects:

    {"gpu_index": 0, "name": "NVIDIA L40S", "utilization": 0.42, "mem_used_mb": 17000,
     "mem_total_mb": 46068, "power_w": 180.0, "price_per_hour_usd": 0.86}

`gpu_index` and `name` must be there; every other value may be null or left out: unknown. Read again
for every sample, so an edit shows at once.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from gpu_token_analytics.agent.readings import GpuReading, Reading
from gpu_token_analytics.errors import InvalidRecord, SourceUnavailable
from gpu_token_analytics.wire.fields import (
    GpuIndex,
    Label,
    Megabytes,
    Ratio,
    Source,
    UsdPerHour,
    Watts,
)
from gpu_token_analytics.wire.sinks import declared_gpu_uuid
from gpu_token_analytics.wire.strict_json import read_strictly

_MAX_BYTES = 1_000_000


class SeedGpu(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One GPU of the file."""

    gpu_index: GpuIndex
    name: Label
    utilization: Ratio | None = None
    mem_used_mb: Megabytes | None = None
    mem_total_mb: Megabytes | None = None
    power_w: Watts | None = None
    price_per_hour_usd: UsdPerHour | None = None


_entries = msgspec.json.Decoder(Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=4096)])
_entry = msgspec.json.Decoder(SeedGpu)


class SeedSource:
    """GPUs of a seed file; their UUIDs are derived from host and index, so they are the same in
    every run.

    variation: share by which utilization and power move around their declared value (0.1: +-10 %),
    in a fixed sequence that depends on GPU and number of reads; 0, the default, repeats the file.
    """

    name: Source = "seed"

    def __init__(self, path: str | Path, host: str, variation: float = 0.0) -> None:
        self._path = Path(path)
        self._host = host
        self._variation = variation
        self._reads = 0

    def read(self) -> list[Reading]:
        """Every GPU of the file. Raises SourceUnavailable naming entry, field and value."""
        gpus = load_seed(self._path)
        self._reads += 1
        return [self._reading(gpu) for gpu in gpus]

    def close(self) -> None:
        """Nothing is open between reads."""

    def _reading(self, gpu: SeedGpu) -> GpuReading:
        uuid = declared_gpu_uuid(self._host, gpu.gpu_index)
        factor = 1.0
        if self._variation:
            digest = hashlib.blake2b(f"{uuid}/{self._reads}".encode(), digest_size=4).digest()
            factor += self._variation * (int.from_bytes(digest, "big") / 2**31 - 1)
        return GpuReading(
            gpu_index=gpu.gpu_index,
            gpu_uuid=uuid,
            name=gpu.name,
            utilization=None
            if gpu.utilization is None
            else min(1.0, max(0.0, round(gpu.utilization * factor, 4))),
            mem_used_mb=gpu.mem_used_mb,
            mem_total_mb=gpu.mem_total_mb,
            power_w=None if gpu.power_w is None else max(0.0, round(gpu.power_w * factor, 2)),
            price_per_hour_usd=gpu.price_per_hour_usd,
        )


def load_seed(path: Path) -> list[SeedGpu]:
    """The GPUs of a seed file. Raises SourceUnavailable naming file, entry, field, value and
    rule."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceUnavailable(
            f"{path} cannot be read ({error.strerror}); set GPU_SEED_FILE to a seed file, such as "
            "the example gpu_seed.json"
        ) from None
    if len(content) > _MAX_BYTES:
        raise SourceUnavailable(
            f"{path} has {len(content):,} bytes; a seed file has at most {_MAX_BYTES:,}"
        )
    try:
        # a byte-order mark, as editors write it
        entries = _entries.decode(content.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SourceUnavailable(
            f"{path} is not a list of GPUs: {error}; see the example gpu_seed.json"
        ) from None
    gpus = [_load_entry(path, number, raw) for number, raw in enumerate(entries)]
    seen: dict[int, int] = {}
    for number, gpu in enumerate(gpus):
        if gpu.gpu_index in seen:
            raise SourceUnavailable(
                f"{path}: entry {number}: gpu_index={gpu.gpu_index} is also entry "
                f"{seen[gpu.gpu_index]}; each GPU has its own"
            )
        seen[gpu.gpu_index] = number
    return gpus


def _load_entry(path: Path, number: int, raw: msgspec.Raw) -> SeedGpu:
    try:
        gpu = _entry.decode(raw)
        # what ingest would refuse of every sample: NUL, a field that is given twice
        read_strictly(bytes(raw))
    except InvalidRecord as error:
        raise SourceUnavailable(f"{path}: entry {number}: {error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = str(error)
        field = message.rsplit("`$.", 1)[1].split("`", maxsplit=1)[0] if "`$." in message else None
        shown = f"{field}={_value(raw, field)}: " if field else ""
        raise SourceUnavailable(f"{path}: entry {number}: {shown}{message}") from None
    if (
        gpu.mem_used_mb is not None
        and gpu.mem_total_mb is not None
        and gpu.mem_used_mb > gpu.mem_total_mb
    ):
        raise SourceUnavailable(
            f"{path}: entry {number}: mem_used_mb={gpu.mem_used_mb:g} is more than "
            f"mem_total_mb={gpu.mem_total_mb:g}"
        )
    return gpu


def _value(raw: msgspec.Raw, field: str) -> str:
    """The value of `field` in an entry that is JSON but not a GPU, as it stands in the file, cut to
    80 characters."""
    return msgspec.json.encode(msgspec.json.decode(raw).get(field)).decode()[:80]
