"""What a route is: its path, who may call it, the function that answers, how OpenAPI describes
it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, get_type_hints

from msgspec import Struct


class Access(StrEnum):
    """What a caller needs. PUBLIC: nothing (no data behind it)."""

    PUBLIC = "public"
    ANY_KEY = "any_key"
    READ = "read"
    INGEST = "ingest"
    PLACEMENTS = "placements"
    ADMIN = "admin"


@dataclass(frozen=True)
class Route:
    """One line of the table. `names_existing`: its path or body names something that has to be
    there, else 404. `body`: what OpenAPI says of a body that the function reads itself."""

    method: Literal["GET", "POST"]
    path: str
    access: Access
    answer: Callable[..., Any]
    summary: str
    tenant_keys: bool = False
    status: int = 200
    media_types: tuple[str, ...] = ("application/json",)
    names_existing: bool = False
    body: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The function's: what OpenAPI calls the operation."""
        return self.answer.__name__

    @property
    def struct(self) -> type[Struct] | None:
        """The type of the answer; None: it is no JSON of ours."""
        answered = get_type_hints(self.answer)["return"]
        return answered if issubclass(answered, Struct) else None
