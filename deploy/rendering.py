"""Kustomizations of CA2 and CA3 as objects, by kustomize itself (of kubectl, or the program of that
name).

The Secrets' files are made for each rendering, in a copy: nothing secret is written into the
checkout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from deploy.flows import ROOT

Manifest = dict[str, Any]
OVERLAYS = (
    "CA2/overlays/laptop",
    "CA2/overlays/cluster",
    "CA2/overlays/bench",
    "CA3/overlays/cluster",
    "CA3/overlays/bench",
    "CA3/overlays/external-secrets",
    "CA3/overlays/observed",
)
_NO_KUSTOMIZE = (
    "kustomize is not here: put kubectl or kustomize on PATH, or name one in KUBECTL "
    "(go install sigs.k8s.io/kustomize/kustomize/v5@latest makes one)"
)


class NoKustomize(RuntimeError):
    """Neither kubectl nor kustomize is on this machine."""


def kustomize() -> list[str]:
    """The command that renders a folder. Raises NoKustomize."""
    if named := os.environ.get("KUBECTL"):
        return [*named.split(), "kustomize"]
    for program, words in (("kubectl", ["kustomize"]), ("kustomize", ["build"])):
        if path := shutil.which(program):
            return [path, *words]
    raise NoKustomize(_NO_KUSTOMIZE)


def copy_with_secrets(folder: Path) -> Path:
    """CA2 and CA3 in `folder`, with new Secrets; returns `folder`."""
    for stage in ("CA2", "CA3"):
        # Not the checkout's own Secrets' files: a rendering must not depend on them.
        shutil.copytree(
            ROOT / stage,
            folder / stage,
            ignore=shutil.ignore_patterns("kafka-*.env", "mongo-*.env", "secrets.env"),
        )
    (folder / "CA0/common").mkdir(parents=True)
    shutil.copy(ROOT / "CA0/common/secrets.sh", folder / "CA0/common")
    subprocess.run([folder / "CA2/components/secrets/generate.sh"], check=True, capture_output=True)
    return folder


def render(folder: Path) -> list[Manifest]:
    """The objects of one kustomization. Raises NoKustomize, CalledProcessError with kustomize's own
    words in stderr."""
    done = subprocess.run([*kustomize(), str(folder)], check=True, capture_output=True, text=True)
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, str, Manifest]]:
    """Namespace, name and pod template of everything that makes pods."""
    for manifest in manifests:
        template = manifest.get("spec", {}).get("template")
        if manifest["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job"} and template:
            yield manifest["metadata"]["namespace"], manifest["metadata"]["name"], template
