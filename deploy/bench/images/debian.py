"""File systems from the Debian packages of this machine: their files are copied, nothing is
downloaded."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from deploy.bench.shell import run

_UNNEEDED = (
    "/usr/share/doc/",
    "/usr/share/man/",
    "/usr/share/locale/",
    "/usr/share/info/",
    "/usr/share/lintian/",
    "/usr/share/bug/",
)
_MERGED = ("bin", "sbin", "lib", "lib64")  # links into /usr, which belong to no package's list


def closure(packages: Iterable[str]) -> list[str]:
    """The installed ones among `packages` and everything they depend on, sorted."""
    fields = run(
        [
            "dpkg-query",
            "-W",
            "-f",
            "${Package}\t${db:Status-Status}\t${Pre-Depends}, ${Depends}\t${Provides}\n",
        ]
    ).stdout
    depends: dict[str, set[str]] = {}
    providers: dict[str, str] = {}
    for line in fields.splitlines():
        name, status, wanted, provided = line.split("\t")
        if status == "installed":
            depends[name] = set(re.findall(r"(?:^|[,|]) *([a-z0-9][a-z0-9+.-]*)", wanted))
            providers |= dict.fromkeys(
                re.findall(r"(?:^|,) *([a-z0-9][a-z0-9+.-]*)", provided), name
            )
    reached: set[str] = set()
    waiting = list(packages)
    while waiting:
        name = waiting.pop()
        name = name if name in depends else providers.get(name, name)
        if name in depends and name not in reached:
            reached.add(name)
            waiting += depends[name]
    return sorted(reached)


def versions(packages: Iterable[str]) -> list[str]:
    """Name and version of each, as dpkg has them."""
    return run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages]).stdout.splitlines()


def copy(packages: Iterable[str], root: Path) -> None:
    """Copies the files of exactly these packages below `root`, with /bin and the like as links into
    /usr."""
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for line in run(["dpkg-query", "-L", *packages]).stdout.splitlines():
        source = Path(line)
        if (
            not line.startswith("/")
            or line.startswith(_UNNEEDED)
            or source.is_dir()
            or not (source.exists() or source.is_symlink())
        ):
            continue
        target = root / source.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(target):
            shutil.copy2(source, target, follow_symlinks=False)
    for name in ("proc", "sys", "dev", "run", "var/tmp", "etc", "root"):
        (root / name).mkdir(parents=True, exist_ok=True)


def alternatives(names: Iterable[str], root: Path) -> None:
    """Links for programs that Debian chooses by alternatives, which belong to no package: `java`,
    `awk`."""
    for name in names:
        if program := shutil.which(name):
            target = root / "usr/bin" / name
            target.unlink(missing_ok=True)
            target.symlink_to(Path(program).resolve())
