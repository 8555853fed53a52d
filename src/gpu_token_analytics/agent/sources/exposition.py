"""What an exporter of GPU metrics says: its page in Prometheus text format 0.0.4, fetched and
read."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from gpu_token_analytics.errors import SourceUnavailable
from gpu_token_analytics.wire.names import canonical_host, may_be_same

TIMEOUT_SECONDS = 10.0
MAX_BYTES = 32 * 1024 * 1024
_PIECE_BYTES = 64 * 1024
_ACCEPT = "text/plain;version=0.0.4"  # OpenMetrics would rename counters

Fetch = Callable[[str], str]


class Row(NamedTuple):
    """One series: its name, labels and value."""

    name: str
    labels: dict[str, str]
    value: float


def fetch(
    url: str,
    fix: str = "set GPU_EXPORTER_URL to the exporter's page of metrics",
    most_bytes: int = MAX_BYTES,
    seconds: float = TIMEOUT_SECONDS,
) -> str:
    """The page at `url`. fix: what its owner can do. Raises SourceUnavailable with the fix; takes
    no longer than about twice the given seconds, however slowly the page comes."""
    # Not through a proxy: an exporter is of this host, or of this network.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    body = bytearray()
    try:
        request = urllib.request.Request(url, headers={"Accept": _ACCEPT})
        with opener.open(request, timeout=seconds) as answer:
            while len(body) <= most_bytes and (piece := answer.read1(_PIECE_BYTES)):
                body += piece
                if time.monotonic() > deadline:
                    raise TimeoutError(f"it is not over after {seconds:g} s")
    except urllib.error.HTTPError as error:
        error.close()
        raise SourceUnavailable(f"{url} answers {error.code}; {fix}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        raise SourceUnavailable(
            f"{url} cannot be read ({why}); does it run, and is the address right? Else {fix}"
        ) from None
    if len(body) > most_bytes:
        raise SourceUnavailable(f"{url} answers more than {most_bytes:,} bytes; {fix}")
    return body.decode("utf-8", "replace")


def rows(text: str, url: str, fix: str = "set GPU_EXPORTER_URL") -> Iterator[Row]:
    """The series of a page, names without `_total` (the parser gives it to every counter). A value
    may be NaN.

    Raises SourceUnavailable where it is no such page.
    """
    try:
        for family in text_string_to_metric_families(text.removeprefix("\ufeff")):
            for sample in family.samples:
                yield Row(
                    sample.name.removesuffix("_total"), dict(sample.labels), float(sample.value)
                )
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise SourceUnavailable(
            f"{url} is no page of Prometheus metrics ({error}); {fix}"
        ) from None


def of_host(told: list[Row], host: str, url: str) -> list[Row]:
    """The rows of one machine. A page of one machine is taken as this host's, whatever that calls
    itself (a pod's name, localhost); of a page of several only the rows that bear this host's name.
    Raises SourceUnavailable where none does."""
    names = {name for row in told if (name := host_of(row))}
    if len(names) < 2:
        return told
    mine = [
        row
        for row in told
        if may_be_same(f"{canonical_host(host_of(row))}/0", f"{canonical_host(host)}/0")
    ]
    if not mine:
        shown = ", ".join(sorted(names)[:5])
        raise SourceUnavailable(
            f"{url} is of {len(names)} machines ({shown}), none of them {host!r}; set HOST_NAME to "
            "one of them"
        )
    return mine


def host_of(row: Row) -> str:
    """The machine a row is of; '' where it does not say. dcgm-exporter wrote `Hostname` up to
    4.8.2, since then `hostname`."""
    return row.labels.get("hostname") or row.labels.get("Hostname") or ""


def index_of(text: str | None) -> int | None:
    """A GPU's index on its host; None where it is no number."""
    return (
        int(text)
        if text is not None and text.isascii() and text.isdecimal() and len(text) <= 4
        else None
    )
