"""Who is asking."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import Answer


class Me(Answer):
    """The key in use."""

    key: Annotated[
        str | None, Meta(description="Public prefix of the key; null without one (loopback).")
    ]
    scopes: Annotated[list[str], Meta(examples=[["read"]])]
    tenant: Annotated[
        str | None, Meta(description="The only tenant this key sees and sends; null: all.")
    ]
    anonymous: Annotated[
        bool, Meta(description="No key was given and none is needed on this loopback address.")
    ]
    version: str


class KeyInfo(Answer):
    """A key as the command line lists it; the secret itself is never stored."""

    key: str
    name: str
    scopes: list[str]
    tenant: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
