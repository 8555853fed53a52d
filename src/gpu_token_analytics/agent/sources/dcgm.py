"""Readings from dcgm-exporter's page (https://github.com/NVIDIA/dcgm-exporter; port 9400).

    DCGM_FI_DEV_GPU_UTIL %
    DCGM_FI_PROF_GR_ENGINE_ACTIVE 0-1, where there is no GPU_UTIL (MIG)
    DCGM_FI_DEV_FB_USED, _FB_FREE, _FB_RESERVED, _FB_TOTAL MiB
    DCGM_FI_DEV_POWER_USAGE W
    DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION mJ since the driver was loaded
    DCGM_FI_DEV_GPU_TEMP C

A card that several pods share in time has a row for each of them: it is one card. A card in MIG
mode has a row for each slice, under the card's UUID, and its power, energy and temperature stand in
all of them: they are the card's, once. What DCGM does not know it writes as a huge number
(dcgm_structs.h, DCGM_INT32_BLANK and the like): those are unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from gpu_token_analytics.agent.readings import GpuProblem, GpuReading, Problem, Reading, mig_profile
from gpu_token_analytics.agent.sources.exposition import Fetch, Row, fetch, index_of, of_host, rows
from gpu_token_analytics.errors import SourceUnavailable
from gpu_token_analytics.wire.fields import Source

DEFAULT_URL = "http://127.0.0.1:9400/metrics"

_UTIL, _ENGINE = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
_USED, _FREE, _RESERVED, _TOTAL = (
    f"DCGM_FI_DEV_FB_{part}" for part in ("USED", "FREE", "RESERVED", "TOTAL")
)
_POWER, _TEMPERATURE = "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_GPU_TEMP"
_ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
_NAMES = frozenset({_UTIL, _ENGINE, _USED, _FREE, _RESERVED, _TOTAL, _POWER, _TEMPERATURE, _ENERGY})
# of shared cards newer exporters say them for each process
_OF_PROCESSES = frozenset({_UTIL, _USED})

# Blank, not found, not supported, no permission: four numbers from each of these on.
_INT32_BLANK, _FP64_BLANK = 2_147_483_632, 140_737_488_355_328
_INT64_BLANK = 9.2e18  # as a float all four are 2**63

_Key = tuple[str, str]  # UUID of the card, id of the GPU instance ('': the card)
_Values = dict[str, float]


class DcgmSource:
    """All GPUs and MIG slices of one dcgm-exporter."""

    name: Source = "dcgm-exporter"

    def __init__(self, url: str, host: str, fetch: Fetch = fetch) -> None:
        """url: its page; '': DEFAULT_URL. host: this machine, for pages of several. fetch: how a
        page is got (tests)."""
        self._url, self._host, self._fetch = url or DEFAULT_URL, host, fetch

    def read(self) -> list[Reading]:
        """Every card, its slices after it. Raises SourceUnavailable with the fix."""
        known = [row for row in rows(self._fetch(self._url), self._url) if row.name in _NAMES]
        if not known:
            raise SourceUnavailable(
                f"{self._url} has no DCGM_FI_ metrics; set GPU_EXPORTER_URL to dcgm-exporter's page"
            )
        return list(_readings(of_host(known, self._host, self._url)))

    def close(self) -> None:
        """Nothing is open between reads."""


def _readings(known: Iterable[Row]) -> Iterable[Reading]:
    series: dict[_Key, dict[str, list[float]]] = {}
    labels: dict[_Key, Mapping[str, str]] = {}
    nameless: set[str] = set()
    for row in known:
        uuid = row.labels.get("UUID") or row.labels.get("uuid")
        if not uuid or index_of(row.labels.get("gpu")) is None:
            nameless.add(f"gpu={row.labels.get('gpu', '')} UUID={uuid or ''}")
            continue
        key = uuid, row.labels.get("GPU_I_ID", "")
        labels[key] = {**row.labels, **labels.get(key, {})}
        if not _is_blank(row):
            series.setdefault(key, {}).setdefault(row.name, []).append(row.value)
    values = {
        key: {name: _one(name, every) for name, every in series.get(key, {}).items()}
        for key in labels
    }
    for uuid in dict.fromkeys(uuid for uuid, _ in labels):
        slices = sorted(instance for card, instance in labels if card == uuid and instance)
        yield _card(uuid, labels, values, slices)
        for instance in slices:
            yield _slice(uuid, instance, labels[uuid, instance], values[uuid, instance])
    for name in sorted(nameless):
        yield GpuProblem(
            name,
            Problem.MALFORMED,
            "its rows name no UUID, or no index; see the exporter's own log",
        )


def _card(
    uuid: str,
    labels: Mapping[_Key, Mapping[str, str]],
    values: Mapping[_Key, _Values],
    slices: list[str],
) -> GpuReading:
    fields = values.get((uuid, ""), {})
    # In MIG mode the board's values stand in the rows of its slices, the same in each.
    board = {
        name: value
        for instance in reversed(slices)
        for name, value in values[uuid, instance].items()
    } | fields
    named = labels.get((uuid, "")) or labels[uuid, slices[0]]
    energy_mj = board.get(_ENERGY)
    return GpuReading(
        gpu_index=index_of(named["gpu"]) or 0,
        gpu_uuid=uuid,
        name=named.get("modelName") or named.get("model_name") or None,
        utilization=_utilization(fields),
        mem_used_mb=fields.get(_USED),
        mem_total_mb=_total_mb(fields),
        power_w=board.get(_POWER),
        temperature_c=board.get(_TEMPERATURE),
        energy_j=None if energy_mj is None else energy_mj / 1000,
    )


def _slice(uuid: str, instance: str, labels: Mapping[str, str], values: _Values) -> Reading:
    profile = mig_profile(labels.get("GPU_I_PROFILE", ""))
    # Only with dynamic resource allocation the exporter knows a slice's UUID; else it has a name
    # that is the same every time.
    name = labels.get("dra_mig_device_uuid") or f"MIG-{uuid.removeprefix('GPU-')}-gi{instance}"
    if profile is None:
        return GpuProblem(
            name,
            Problem.MALFORMED,
            f"GPU_I_PROFILE={labels.get('GPU_I_PROFILE', '')!r} is no profile of a slice",
        )
    return GpuReading(
        gpu_index=index_of(labels["gpu"]) or 0,
        gpu_uuid=name,
        name=labels.get("modelName") or labels.get("model_name") or None,
        utilization=values.get(_ENGINE),  # GPU_UTIL of a slice is absent, or 0 that nobody measured
        mem_used_mb=values.get(_USED),
        mem_total_mb=_total_mb(values),
        mig_profile=profile,
        parent_uuid=uuid,
    )


def _one(name: str, every: list[float]) -> float:
    """The value of a card whose rows are one for each pod: all say the same, or each says its
    processes' part."""
    if len(set(every)) == 1 or name not in _OF_PROCESSES:
        return every[0]
    return min(sum(every), 100.0) if name == _UTIL else sum(every)


def _utilization(values: _Values) -> float | None:
    percent = values.get(_UTIL)
    return values.get(_ENGINE) if percent is None else percent / 100


def _total_mb(values: _Values) -> float | None:
    """FB_TOTAL is off by default: it is what is used, free and reserved."""
    if _TOTAL in values:
        return values[_TOTAL]
    used, free = values.get(_USED), values.get(_FREE)
    return None if used is None or free is None else used + free + values.get(_RESERVED, 0.0)


def _is_blank(row: Row) -> bool:
    if math.isnan(row.value) or row.value >= _INT64_BLANK:
        return True
    if row.name == _ENERGY:  # a counter of 64 bits may well stand at what is blank in 32
        return False
    return any(blank <= row.value <= blank + 3 for blank in (_INT32_BLANK, _FP64_BLANK))
