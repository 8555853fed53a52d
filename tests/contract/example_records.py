"""The example records of examples/*.json, ready to use."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "examples"


@dataclass(frozen=True)
class Example:
    """One example; `case` is its row in the file."""

    name: str
    value: bytes | None
    case: dict[str, Any]


def load(name: str) -> list[Example]:
    """The examples of one file, "good" or "bad"."""
    cases = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return [Example(case["name"], _value(case), case) for case in cases]


def _value(case: dict[str, Any]) -> bytes | None:
    if case.get("null"):
        return None
    if "base64" in case:
        return base64.b64decode(case["base64"])
    text: str = case["text"] if "text" in case else json.dumps(case["record"])
    if "repeat" in case:
        part, times = case["repeat"]
        text = text.replace("%s", part * times)
    return text.encode()
