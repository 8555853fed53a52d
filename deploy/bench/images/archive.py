"""Image files without a container engine: folders become layers, in the format that `docker save`
writes.

`ctr images import` and `docker load` take such a file. Layers of the same folder have the same
digest, so images share them.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Layer:
    """A folder whose content is one layer. `owners` gives what lies below a path of the image to a
    user (others: root)."""

    folder: Path
    owners: Mapping[str, int] = field(default_factory=dict)

    def write(self, target: Path) -> str:
        """Writes the layer as a tar file; returns the SHA-256 of it. The same content gives the
        same digest."""
        with tarfile.open(target, "w") as tar:
            for path in sorted(self.folder.rglob("*")):
                tar.add(
                    path,
                    arcname=str(path.relative_to(self.folder)),
                    recursive=False,
                    filter=self._owned,
                )
        with target.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _owned(self, info: tarfile.TarInfo) -> tarfile.TarInfo:
        owner = next(
            (
                uid
                for top, uid in self.owners.items()
                if info.name == top or info.name.startswith(f"{top}/")
            ),
            0,
        )
        _plain(info)
        info.uid = info.gid = owner
        return info


@dataclass(frozen=True)
class Image:
    """A tag, its layers from the bottom up, and what a Dockerfile would say about running it (keys
    as in the image format)."""

    tag: str
    layers: Sequence[Layer]
    config: Mapping[str, Any]


def write(images: Sequence[Image], target: Path, scratch: Path) -> None:
    """Writes the images to one file, each layer once; `scratch` is a folder for one layer at a
    time."""
    digests: dict[Path, str] = {}
    manifest = []
    with tarfile.open(target, "w") as archive:
        for image in images:
            for layer in image.layers:
                if layer.folder not in digests:
                    file = scratch / "layer.tar"
                    digests[layer.folder] = layer.write(file)
                    archive.add(file, arcname=f"{digests[layer.folder]}/layer.tar", filter=_plain)
                    file.unlink()
            layers = [digests[layer.folder] for layer in image.layers]
            body = json.dumps(_config(image, layers), sort_keys=True).encode()
            name = f"{hashlib.sha256(body).hexdigest()}.json"
            _add(archive, name, body)
            manifest.append(
                {
                    "Config": name,
                    "RepoTags": [image.tag],
                    "Layers": [f"{layer}/layer.tar" for layer in layers],
                }
            )
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _config(image: Image, digests: Sequence[str]) -> dict[str, Any]:
    layers = {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]}
    return {"architecture": "amd64", "os": "linux", "config": dict(image.config), "rootfs": layers}


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.mtime = info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def _add(archive: tarfile.TarFile, name: str, body: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(body)
    archive.addfile(info, io.BytesIO(body))
