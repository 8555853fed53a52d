"""Readings from AMD's device-metrics-exporter (https://github.com/ROCm/device-metrics-exporter;
port 5000).

    gpu_package_power W (MI300), gpu_average_package_power W (MI200)
    gpu_energy_consumed uJ since the driver was loaded
    gpu_gfx_activity 0-100
    gpu_used_vram, gpu_total_vram MiB

Names may have a prefix (`amd_`). A card is known by its serial number (`gpu_uuid` is optional). A
partitioned card has a row for each partition, of which only the first tells the board's power and
energy; memory and activity are each partition's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from gpu_token_analytics.agent.readings import GpuReading, Reading
from gpu_token_analytics.agent.sources.exposition import Fetch, Row, fetch, index_of, of_host, rows
from gpu_token_analytics.errors import SourceUnavailable
from gpu_token_analytics.wire.fields import Source

DEFAULT_URL = "http://127.0.0.1:5000/metrics"

_POWER, _ENERGY = ("gpu_package_power", "gpu_average_package_power"), ("gpu_energy_consumed",)
_ACTIVITY, _USED, _TOTAL = ("gpu_gfx_activity",), ("gpu_used_vram",), ("gpu_total_vram",)
_TEMPERATURE = ("gpu_junction_temperature", "gpu_edge_temperature")
_NAMES = [*_POWER, *_ENERGY, *_ACTIVITY, *_USED, *_TOTAL, *_TEMPERATURE]
_name = re.compile(rf"(?:[a-zA-Z0-9]+_)?({'|'.join(_NAMES)})").fullmatch

_BLANK = 2**63  # all ones: the driver does not know
_Values = dict[str, float]


class AmdSource:
    """All GPUs of one device-metrics-exporter."""

    name: Source = "amd-exporter"

    def __init__(self, url: str, host: str, fetch: Fetch = fetch) -> None:
        """url: its page; '': DEFAULT_URL. host: this machine, for pages of several. fetch: how a
        page is got (tests)."""
        self._url, self._host, self._fetch = url or DEFAULT_URL, host, fetch

    def read(self) -> list[Reading]:
        """Every card once. Raises SourceUnavailable with the fix."""
        named = ((row, _name(row.name)) for row in rows(self._fetch(self._url), self._url))
        known = [Row(name[1], row.labels, row.value) for row, name in named if name is not None]
        if not known:
            raise SourceUnavailable(
                f"{self._url} has no gpu_ metrics of AMD's exporter; set GPU_EXPORTER_URL to "
                "device-metrics-exporter's page"
            )
        return list(_readings(of_host(known, self._host, self._url)))

    def close(self) -> None:
        """Nothing is open between reads."""


def _readings(known: Iterable[Row]) -> Iterable[GpuReading]:
    cards: dict[str, dict[str, _Values]] = {}  # card -> partition -> values
    labels: dict[str, Mapping[str, str]] = {}
    for row in known:
        index = index_of(row.labels.get("gpu_id"))
        card = _uuid(row.labels) or ("" if index is None else str(index))
        if not card:
            continue
        partition = row.labels.get("gpu_partition_id", "0")
        if card not in labels or partition == "0":
            labels[card] = row.labels
        values = cards.setdefault(card, {}).setdefault(partition, {})
        if 0 <= row.value < _BLANK:  # a row for each pod that has the card says the same again
            values.setdefault(row.name, row.value)
    for card, partitions in cards.items():
        board = partitions.get("0") or next(iter(partitions.values()))
        energy_uj = _first(board, _ENERGY)
        activity = _all(partitions, _ACTIVITY)
        yield GpuReading(
            gpu_index=index_of(labels[card].get("gpu_id")) or 0,
            gpu_uuid=_uuid(labels[card]),
            name=labels[card].get("card_model") or None,
            utilization=None if activity is None else activity / len(partitions) / 100,
            mem_used_mb=_all(partitions, _USED),
            mem_total_mb=_all(partitions, _TOTAL),
            power_w=_first(board, _POWER),
            temperature_c=_first(board, _TEMPERATURE),
            energy_j=None if energy_uj is None else energy_uj / 1e6,
        )


def _uuid(labels: Mapping[str, str]) -> str | None:
    """Serial numbers are the key: the label of the UUID can be turned on at any time, and must not
    make another card of one."""
    text = (labels.get("serial_number") or labels.get("gpu_uuid") or "").strip().replace("/", "-")
    return text[:128] or None


def _first(values: _Values, names: tuple[str, ...]) -> float | None:
    return next((values[name] for name in names if name in values), None)


def _all(partitions: Mapping[str, _Values], names: tuple[str, ...]) -> float | None:
    """The sum over partitions, each of which has it; None where one does not say."""
    every = [_first(values, names) for values in partitions.values()]
    return sum(value for value in every if value is not None) if None not in every else None
