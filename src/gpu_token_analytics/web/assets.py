"""The files of the dashboard, read once: bytes, compressed bytes, media type and what identifies
them."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable

# Given here, not asked of `mimetypes`: that reads the machine's own tables, and a module served as
# text/plain does not run.
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True)
class Asset:
    """One file as it is sent."""

    path: str
    body: bytes
    media_type: str

    @cached_property
    def etag(self) -> str:
        """Weak: the plain and the compressed answer are the same file."""
        return f'W/"{hashlib.sha256(self.body).hexdigest()[:24]}"'

    @cached_property
    def gzipped(self) -> bytes:
        """mtime=0, so that every replica sends the same bytes."""
        return gzip.compress(self.body, 9, mtime=0)


def load() -> dict[str, Asset]:
    """Every file under static/ by its path there. Raises ValueError for a kind of file that has no
    media type."""
    root = resources.files("gpu_token_analytics.web") / "static"
    assets: dict[str, Asset] = {}
    _collect(root, "", assets)
    return assets


def digest(assets: dict[str, Asset]) -> str:
    """Names one state of all files. It is a folder in their URLs, so each state is cached apart and
    for good."""
    total = hashlib.sha256()
    for path in sorted(assets):
        total.update(f"{path}\0{assets[path].etag}\0".encode())
    return total.hexdigest()[:16]


def _collect(folder: Traversable, prefix: str, assets: dict[str, Asset]) -> None:
    for entry in folder.iterdir():
        path = prefix + entry.name
        if entry.is_dir():
            _collect(entry, f"{path}/", assets)
            continue
        suffix = "." + entry.name.rpartition(".")[2]
        if suffix not in MEDIA_TYPES:
            raise ValueError(
                f"web/static/{path}: no media type for {suffix}; add it to MEDIA_TYPES"
            )
        assets[path] = Asset(path, entry.read_bytes(), MEDIA_TYPES[suffix])
