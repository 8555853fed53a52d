"""Tables that a run writes into a page, between two marks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def put_between(path: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Replace what stands between the marks. Raises ValueError where one is missing."""
    whole = path.read_text()
    if begin not in whole or end not in whole:
        raise ValueError(f"{path} has no lines {begin!r} and {end!r} to put the table between")
    body = "\n".join([begin, *lines, end])
    between = f"{re.escape(begin)}.*{re.escape(end)}"
    path.write_text(re.sub(between, lambda _: body, whole, flags=re.DOTALL))
