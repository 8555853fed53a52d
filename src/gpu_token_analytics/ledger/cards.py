"""The inventory with a row for each card of a UUID that several have (shared.py): what is asked for
GPUs asks for cards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from gpu_token_analytics.documents import GpuId
from gpu_token_analytics.ledger.placements import Placement
from gpu_token_analytics.ledger.shared import NOTHING_SHARED, SharedUuids, card_name

Row: TypeAlias = Mapping[str, Any]  # a document of `inventory`


def shared_uuids(
    inventory: Mapping[GpuId, Row], placements: Iterable[Placement], stays: Iterable[Row]
) -> SharedUuids:
    """Those that the inventory calls shared, and the cards of MIG slices that it does. stays: on
    which hosts slices were."""
    marked = {gpu for gpu, row in inventory.items() if row.get("shared")}
    if not marked:
        return NOTHING_SHARED
    hosts: dict[GpuId, set[str]] = {gpu: set() for gpu in marked}
    for placement in placements:
        if placement.gpu in hosts:
            hosts[placement.gpu].add(_host_of(placement))
    for stay in stays:
        if stay["gpu"] in hosts:
            hosts[stay["gpu"]].add(stay["host"])
    for gpu in marked:
        if parent := inventory[gpu].get("parent_uuid"):
            hosts[parent] = hosts.get(parent, set()) | hosts[gpu]
    return SharedUuids(hosts)


def placements_of_cards(placements: Iterable[Placement], shared: SharedUuids) -> list[Placement]:
    """Labels with the cards that they carried."""
    return [
        replace(placement, gpu=shared.card(placement.gpu, _host_of(placement)))
        for placement in placements
    ]


def rows_of_cards(
    inventory: Mapping[GpuId, Row],
    placements: Iterable[Placement],
    stays: Iterable[Row],
    shared: SharedUuids,
) -> dict[GpuId, Row]:
    """The inventory with a row for each card, and none for the UUIDs that they share."""
    if not shared:
        return dict(inventory)
    seen: dict[GpuId, list[tuple[int, int]]] = {}
    for placement in placements_of_cards(placements, shared):
        seen.setdefault(placement.gpu, []).append((placement.first_us, placement.last_us))
    for stay in stays:
        seen.setdefault(shared.card(stay["gpu"], stay["host"]), []).append(
            (stay["first_us"], stay["last_us"])
        )
    rows: dict[GpuId, Row] = {}
    for gpu, row in inventory.items():
        if gpu not in shared:
            rows[gpu] = _on_host(row, row.get("host"), shared)
            continue
        for host in shared.hosts[gpu]:
            card = card_name(gpu, host)
            # only its slices told of it there
            times = seen.get(card, [(row["first_us"], row["last_us"])])
            of_card: dict[str, Any] = {"_id": card, "gpu": card, "host": host}
            of_card |= {
                "first_us": min(first for first, _ in times),
                "last_us": max(last for _, last in times),
            }
            rows[card] = _on_host({**row, **of_card}, host, shared)
    return rows


def _on_host(row: Row, host: str | None, shared: SharedUuids) -> Row:
    """With the card there that it is a slice of."""
    parent = row.get("parent_uuid")
    return {**row, "parent_uuid": shared.card(parent, host)} if parent and host else row


def _host_of(placement: Placement) -> str:
    return placement.label.rpartition("/")[0]
