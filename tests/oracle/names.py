"""What names mean, and which cards a shared UUID stands for: the oracle's part of the
specification."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.oracle.numbers import Doc


def meaning(name: str, known: Iterable[str]) -> str:
    """The GPU that a name means, of names that were sampled or declared; itself where none or more
    than one fits."""
    names = set(known)
    if name in names:
        return name
    fitting = [other for other in names if _is_spelling(name, other) or _is_spelling(other, name)]
    return fitting[0] if len(fitting) == 1 else name


def _is_spelling(short: str, long: str) -> bool:
    """Whether `short` is the host without its domain, or the beginning of the UUID, of `long`."""
    if "/" in short or "/" in long:
        if "/" not in short or "/" not in long:
            return False
        (host, index), (other, other_index) = short.rsplit("/", 1), long.rsplit("/", 1)
        is_address = other.split(".")[-1].isdigit()
        return (
            index == other_index
            and "." not in host
            and other.startswith(host + ".")
            and not is_address
        )
    bare, other = (
        short.removeprefix("GPU-").removeprefix("MIG-"),
        long.removeprefix("GPU-").removeprefix("MIG-"),
    )
    kinds = {name[:3] for name in (short, long) if name[:4] in ("GPU-", "MIG-")}
    is_hexadecimal = (
        all(digit in "0123456789abcdef-" for digit in bare + other) and "-" not in bare[:8]
    )
    return len(kinds) < 2 and len(bare) >= 8 and is_hexadecimal and other.startswith(bare)


def hosts_of_shared(samples: Iterable[Doc], gap_us: int) -> dict[str, set[str]]:
    """UUID -> its hosts, of UUIDs that were sampled on two hosts at once: one of another host
    within the gap limit after one of a host and before the next of that host. A host with its
    domain and without is one."""
    by_uuid: dict[str, list[Doc]] = {}
    for doc in samples:
        by_uuid.setdefault(doc["gpu"], []).append(doc)

    def other(host: str, second: str) -> bool:
        return not (
            host == second or host.startswith(second + ".") or second.startswith(host + ".")
        )

    return {
        uuid: {doc["host"] for doc in own}
        for uuid, own in by_uuid.items()
        if any(
            first["host"] == last["host"]
            and other(first["host"], middle["host"])
            and 0 < middle["ts_us"] - first["ts_us"] < gap_us
            and 0 < last["ts_us"] - middle["ts_us"] < gap_us
            for middle in own
            for first in own
            for last in own
        )
    }


def on_cards(docs: Iterable[Doc], hosts: Mapping[str, set[str]]) -> list[Doc]:
    """Requests with the card that they mean by a UUID that several cards have: the one on their own
    host, if there is one."""

    def card(name: str, host: str) -> str:
        return f"{host}/{name}" if host in hosts.get(name, ()) else name

    return [
        {**doc, "cards": {name: card(name, doc["host"]) for name in doc["gpus"]}} for doc in docs
    ]
