"""A containerd store with all images unpacked, made once; every node starts with a copy whose files
are hard links.

Importing the images on three nodes takes a minute and a half; copying links takes seconds. It is
safe because nothing writes into the files of an image's layer: containers have layers of their own
above them. Only the databases are real copies.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy.bench.images import archive
from deploy.bench.images.archive import Image
from deploy.bench.kubernetes import topology
from deploy.bench.machines import cgroups
from deploy.bench.shell import CommandFailed, run, wait

_GROUP = f"{topology.PREFIX}store"


def ensure(cache: Path, images: Sequence[Image], identity: str) -> Path:
    """The store for these images, made when there is none under `identity`; older ones are
    removed."""
    folder = cache / f"store-{identity}"
    if not folder.exists():
        part = cache / "store.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _fill(part, images)
        part.rename(folder)
    for old in cache.glob("store-*"):
        if old != folder:
            shutil.rmtree(old)
    return folder / "containerd"


def _fill(folder: Path, images: Sequence[Image]) -> None:
    # The socket's path must stay below 108 characters, and the state is of no use later.
    state = Path(f"/run/{_GROUP}")
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    socket, log = state / "containerd.sock", folder / "containerd.log"
    config = folder / "containerd.toml"
    config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    command = ["containerd", "--config", str(config), "--root", str(folder / "containerd"),
    "--state", str(state / "state"),
               "--address", str(socket)]  # fmt: skip
    groups = cgroups.make(_GROUP)
    cgroups.share(groups, 3)
    try:
        with log.open("wb") as output:
            subprocess.Popen(
                # A mount namespace of its own: what unpacking mounts is gone with it.
                ["unshare", "--mount", "--", *cgroups.enter(groups, command)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        wait(socket.exists, 60, f"containerd did not start, see {log}")
        file = folder / "images.tar"
        archive.write(images, file, folder)
        said = run(
            ["ctr", "-a", str(socket), "-n", "k8s.io", "images", "import", str(file)],
            timeout_seconds=590,
        ).stdout
        file.unlink()
        if missing := [image.tag for image in images if image.tag.rpartition("/")[2] not in said]:
            raise CommandFailed(f"not imported: {', '.join(missing)}; {said[-500:]}")
    finally:
        cgroups.kill([f"/{_GROUP}"])
        cgroups.remove(_GROUP)
        shutil.rmtree(state, ignore_errors=True)


def copy(store: Path, target: Path) -> None:
    """A node's own store: links to the layers, copies of the databases."""
    run(["cp", "-al", str(store), str(target)], timeout_seconds=120)
    for database in target.rglob("*.db"):
        if database.parent.name.startswith("io.containerd.") and database.parent.parent == target:
            content = database.with_name(f"{database.name}.copy")
            shutil.copy2(database, content)
            content.replace(database)
