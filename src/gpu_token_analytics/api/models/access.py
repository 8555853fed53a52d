"""Who is asking."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from gpu_token_analytics.api.models.base import Model


class Me(Model):
    """The key in use."""

    key: str | None = Field(description="Public prefix of the key; null without one (loopback).")
    scopes: list[str] = Field(examples=[["read"]])
    tenant: str | None = Field(description="The only tenant this key sees and sends; null: all.")
    anonymous: bool = Field(description="No key was given and none is needed on this loopback address.")
    version: str


class KeyInfo(Model):
    """A key as the command line lists it; the secret itself is never stored."""

    key: str
    name: str
    scopes: list[str]
    tenant: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
