"""Named processes at sites. What runs is written down, so that another command (make promote) finds
it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deploy.bench.shell import CommandFailed
from deploy.bench.sites import network


class Processes:
    """The processes of one run; `folder` holds a log and a note for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        (folder / "running").mkdir(exist_ok=True)
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        site: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready: Callable[[str], bool] = lambda _log: True,
        timeout_seconds: float = 180,
    ) -> None:
        """Starts a process at a site and waits until `ready(what it has logged since)`.

        Raises CommandFailed with the end of its log when it ends before, or is not ready in time.
        """
        log = self.log_file(name)
        with log.open("ab") as output:
            began_at = output.tell()
            process = subprocess.Popen(
                network.inside(site, *command), stdin=subprocess.DEVNULL, stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})}, cwd=cwd, start_new_session=True,
            )  # fmt: skip
        self._children[process.pid] = process
        self._note(name).write_text(json.dumps({"pid": process.pid, "site": site}))
        end = time.monotonic() + timeout_seconds
        while not ready(self.log(name, began_at)):
            if process.poll() is not None:
                raise CommandFailed(
                    f"{name} ended with status {process.returncode}: {self.tail(name)}"
                )
            if time.monotonic() > end:
                raise CommandFailed(
                    f"{name} was not ready within {timeout_seconds:.0f} s: {self.tail(name)}"
                )
            time.sleep(0.1)

    def running(self, name: str) -> bool:
        """Whether it was started and lives."""
        pid = self._pid(name)
        if pid is None:
            return False
        if pid in self._children:
            return self._children[pid].poll() is None
        return Path(f"/proc/{pid}").exists()

    def stop(self, name: str, timeout_seconds: float = 60) -> None:
        """SIGTERM, and SIGKILL when that does not help in time. Does nothing when it does not
        run."""
        self._end(name, signal.SIGTERM, timeout_seconds)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self._end(name, signal.SIGKILL, 20)

    def forget(self, site: str) -> None:
        """A site's processes are gone, by whatever hand."""
        for note in (self.folder / "running").iterdir():
            if json.loads(note.read_text())["site"] == site:
                note.unlink()

    def log_file(self, name: str) -> Path:
        """Everything it said, in all its runs."""
        return self.folder / "logs" / f"{name}.log"

    def log(self, name: str, began_at: int = 0) -> str:
        """What it said, from a byte on."""
        with self.log_file(name).open("rb") as file:
            file.seek(began_at)
            return file.read().decode(errors="replace")

    def tail(self, name: str) -> str:
        """The end of its log, for an error."""
        return "\n".join(self.log(name).splitlines()[-12:])

    def _note(self, name: str) -> Path:
        return self.folder / "running" / name

    def _pid(self, name: str) -> int | None:
        note = self._note(name)
        return int(json.loads(note.read_text())["pid"]) if note.exists() else None

    def _end(self, name: str, first: signal.Signals, timeout_seconds: float) -> None:
        pid = self._pid(name)
        if pid is not None and self.running(name):
            # The session, so that a server below a wrapper goes with it.
            for number, patience in ((first, timeout_seconds), (signal.SIGKILL, 20.0)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, number)
                if self._gone(name, patience):
                    break
        self._note(name).unlink(missing_ok=True)

    def _gone(self, name: str, timeout_seconds: float) -> bool:
        end = time.monotonic() + timeout_seconds
        while self.running(name):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True
