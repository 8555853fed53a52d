"""The one binary with every Kubernetes program, and the pods' sandbox: built from Go modules, once
per set of sources.

Kept as `kube-<hash>` in the user's cache folder, which a fresh clone finds too. Go's module and
build caches (several GB) lie in a folder beside it while it is built, and are deleted after
linking.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.bench.report import NotChecked
from deploy.bench.shell import CommandFailed, run

SOURCES = Path(__file__).resolve().parent / "programs"
KUBERNETES_VERSION = "v1.34.4"
# without these the servers call themselves v0.0.0-master
_VERSION = "k8s.io/component-base/version"
_MAJOR, _MINOR = KUBERNETES_VERSION.removeprefix("v").split(".")[:2]
_LINK = (
    f"-s -w -X {_VERSION}.gitVersion={KUBERNETES_VERSION} -X {_VERSION}.gitMajor={_MAJOR} -X "
    f"{_VERSION}.gitMinor={_MINOR}"
)
_FLAGS = ["-trimpath", "-buildvcs=false", "-p", "2", "-ldflags", _LINK]
_BUILD_SECONDS = 45 * 60
_COREDNS = "github.com/coredns/coredns"

# CoreDNS 1.14.3 is written for client-go 0.35; with Kubernetes 1.34's client-go this wrapper does
# not exist. It only tells the informer whether the API server can stream a list, so the plain
# ListWatch that it wraps does the same work.
NEWER_CLIENT = re.compile(
    (
        r"cache\.ToListWatcherWithWatchListSemantics\(\s*(&cache\.ListWatch\{.*?\n\s*\}),\s*[\w.]+,"
        r"\s*\)"
    ),
    re.DOTALL,
)


def cache_folder() -> Path:
    """`gpu-token-analytics` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "gpu-token-analytics"


def lacking() -> list[str]:
    """What this machine lacks to build the binary; empty when it is there already."""
    if _finished().exists() or shutil.which("go"):
        return []
    return ["go 1.25 or newer (apt-get install golang, or https://go.dev/dl)"]


def ensure() -> Path:
    """The folder with `kube` and `pause`, built first when the cache has none for these sources.

    A build takes 11 minutes on two quiet cores, downloads 150 MB and needs 5 GB of disk meanwhile.
    Waits for another process that builds it. Raises NotChecked without Go, CommandFailed when the
    build fails.
    """
    folder = _finished()
    if folder.exists():
        return folder
    if lacks := lacking():
        raise NotChecked(f"Kubernetes cannot be built, this machine lacks: {'; '.join(lacks)}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "kube.lock").open("w") as lock:
        # CI starts a build early and comes back for it: one build, two who wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _build(folder)
    return folder


def _finished() -> Path:
    return cache_folder() / f"kube-{identity()}"


def identity() -> str:
    """Hash of everything that decides what the binary is: module versions, sources, flags, the Go
    version."""
    digest = hashlib.sha256()
    for path in ("go.mod", "go.sum", "main.go", "pause/main.go"):
        digest.update((SOURCES / path).read_bytes())
    digest.update(json.dumps([_FLAGS, NEWER_CLIENT.pattern]).encode())
    if shutil.which("go"):
        digest.update(
            run(["go", "env", "GOVERSION"], env={"GOTOOLCHAIN": "local"}).stdout.strip().encode()
        )
    return digest.hexdigest()[:16]


def _build(folder: Path) -> None:
    work = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    module = work / "module"
    shutil.copytree(SOURCES, module)
    output = work / "bin"
    output.mkdir()
    with _caches(work) as env:
        _patch_coredns(module, env)
        pause = [*_FLAGS[:2], "-ldflags", "-s -w", "-o", str(output / "pause"), "./pause"]
        run(["go", "build", *pause], cwd=module, env=env, timeout_seconds=300)
        run(["nice", "-n", "10", "go", "build", *_FLAGS, "-o", str(output / "kube"), "."],
        cwd=module, env=env,
            timeout_seconds=_BUILD_SECONDS)  # fmt: skip
    output.rename(folder)
    shutil.rmtree(work, ignore_errors=True)
    for old in folder.parent.glob("kube-*"):
        if old not in (folder, work):
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _caches(work: Path) -> Iterator[dict[str, str]]:
    """The environment of every go command of a build; its caches are deleted at the end, whatever
    happens.

    KUBE_GO_CACHES names a folder with `gomod` and `gocache` to use instead, which is kept: for who
    builds often.
    """
    named = os.environ.get("KUBE_GO_CACHES")
    caches = Path(named) if named else work
    env = {
        "GOMODCACHE": str(caches / "gomod"), "GOCACHE": str(caches / "gocache"), "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0", "GOWORK": "off",
        "GOGC": "300",  # less garbage collection in the compiler; changes no object
    }  # fmt: skip
    try:
        yield env
    finally:
        if not named:
            for cache in (caches / "gomod", caches / "gocache"):
                # Go writes its module cache read-only
                run(["chmod", "-R", "u+w", str(cache)], check=False)
                shutil.rmtree(cache, ignore_errors=True)


def _patch_coredns(module: Path, env: dict[str, str]) -> None:
    """A copy of the CoreDNS module beside go.mod, which names it as the replacement. Raises
    CommandFailed if it is another."""
    version = re.search(rf"^\t{_COREDNS} (v\S+)$", (module / "go.mod").read_text(), re.MULTILINE)
    if version is None:
        raise CommandFailed(f"go.mod does not require {_COREDNS}")
    download = ["go", "mod", "download", "-json", f"{_COREDNS}@{version[1]}"]
    # Outside of the module: in it, the replacement that is still missing is an error.
    said = run(download, cwd=module.parent, env=env, timeout_seconds=300).stdout
    answer = json.loads(said[said.index("{\n") :])  # progress comes first
    copy = module / "coredns"
    shutil.copytree(answer["Dir"], copy)
    run(["chmod", "-R", "u+w", str(copy)])
    source = copy / "plugin/kubernetes/controller.go"
    text, count = NEWER_CLIENT.subn(r"\1", source.read_text())
    if count != 6:
        raise CommandFailed(
            f"CoreDNS {version[1]}: {count} calls were patched, not 6; look at "
            f"{NEWER_CLIENT.pattern}"
        )
    source.write_text(text)


if __name__ == "__main__":  # what CI starts first of all: needs nothing but Python and Go
    print(ensure())
