"""Terminal sessions as people saw them: recorded from a real pty by asciinema (asciicast v2), drawn
as SVG by svg-term.

Both are fetched, pinned, into a folder of the caller's. A recording is kept only when nothing of
the machine it was made on stands in it.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from deploy.bench.report import expect
from deploy.bench.shell import CommandFailed, run
from deploy.flows import ROOT

COLUMNS, ROWS = 118, 46
STILL_ROWS = 64
CHECKOUT = "<checkout>"  # as in the evidence, in place of the folder
CLEAR = "\x1b[H\x1b[2J"  # what `clear` writes: here a new screen begins
MAX_BYTES = 1_000_000  # of a file that is committed
_SVG_TERM = "svg-term-cli@2.1.1"
# A little smaller than svg-term draws: in some fonts a full line would be wider than the window.
_NARROWER = ('font-size="1.67"', 'font-size="1.66"')
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\r")


class Recorder:
    """Records commands and draws what was recorded. `tools`: the virtual environment that holds
    asciinema. `folder`: where svg-term is installed, once."""

    def __init__(self, tools: Path, folder: Path) -> None:
        self._asciinema = tools / "bin" / "asciinema"
        self._svg_term = folder / "node_modules" / ".bin" / "svg-term"
        if not self._svg_term.exists():
            words = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix"]
            run([*words, str(folder), _SVG_TERM], timeout_seconds=600)

    def record(
        self,
        command: str,
        cast: Path,
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        timeout_seconds: float = 600,
    ) -> str:
        """Runs a shell command in a terminal of COLUMNS x ROWS, its session into `cast`; returns
        what it said, without control sequences. The folder it runs in reads <checkout>. Raises
        CommandFailed when it fails, CheckFailed when the session says where it was made."""
        cast.parent.mkdir(parents=True, exist_ok=True)
        mark = cast.with_suffix(".status")
        mark.unlink(missing_ok=True)
        # asciinema does not tell how its command ended.
        inner = 'bash -c "$SESSION_COMMAND"; echo $? >"$SESSION_STATUS"'
        size = ["--cols", str(COLUMNS), "--rows", str(ROWS)]
        run(
            [str(self._asciinema), "rec", "-q", "--overwrite", *size, "-c", inner, str(cast)],
            cwd=cwd,
            env={
                **(env or {}),
                "TERM": "xterm-256color",
                "MAKEFLAGS": "--no-print-directory",  # the directory is nobody's business
                "SHELL": "/bin/bash",
                "SESSION_COMMAND": command,
                "SESSION_STATUS": str(mark),
            },
            timeout_seconds=timeout_seconds,
        )
        for folder in (cwd, cast.parent, ROOT):
            cast.write_text(cast.read_text().replace(str(folder), CHECKOUT))
        said = text_of(cast)
        status = mark.read_text().strip() if mark.exists() else "none"
        if status != "0":
            raise CommandFailed(f"{command}: exit {status}; it said: {said.strip()[-3000:]}")
        anonymous(cast)
        return said

    def film(self, cast: Path, svg: Path) -> None:
        """The whole session, moving."""
        self._draw(cast, svg)

    def still(self, cast: Path, svg: Path, at_seconds: float) -> None:
        """What stood there at a moment of it. svg-term draws the event that is nearest to a time,
        and several may come in the same millisecond: the moment is taken a little later. The window
        is as high as what stands in it, up to STILL_ROWS: what a command says last is often longer
        than a terminal."""
        moment = str(round((at_seconds + 0.2) * 1000))
        self._draw(cast, svg, "--at", moment, "--height", str(height(cast, at_seconds)))

    def _draw(self, cast: Path, svg: Path, *how: str) -> None:
        svg.parent.mkdir(parents=True, exist_ok=True)
        words = ["--in", str(cast), "--out", str(svg), "--window", "--no-cursor", *how]
        run([str(self._svg_term), *words])
        svg.write_text(svg.read_text().replace(*_NARROWER))
        taken = svg.stat().st_size
        expect(taken < MAX_BYTES, f"{svg.name} has {taken} bytes: too much to be kept")


def events(cast: Path) -> Iterator[tuple[float, str]]:
    """(second, text) of everything the session printed."""
    for line in cast.read_text().splitlines()[1:]:
        second, kind, text = json.loads(line)
        if kind == "o":
            yield float(second), text


def text_of(cast: Path) -> str:
    """What was printed, without control sequences."""
    return _CONTROL.sub("", "".join(text for _, text in events(cast)))


def height(cast: Path, at_seconds: float) -> int:
    """How many rows stand on the screen at a moment, wrapped ones counted, up to STILL_ROWS."""
    shown = "".join(text for second, text in events(cast) if second <= at_seconds)
    lines = _CONTROL.sub("", shown.rpartition(CLEAR)[2]).expandtabs().rstrip().split("\n")
    rows = sum(max(1, -(-len(line) // COLUMNS)) for line in lines)
    return min(rows + 1, STILL_ROWS)


def screens(cast: Path) -> list[float]:
    """When each screen was complete: the second of its last event, before the next is begun by
    `clear`, or at the end."""
    moments: list[float] = []
    before: float | None = None
    for second, text in events(cast):
        if CLEAR in text and before is not None:
            moments.append(before)
        before = second
    return moments if before is None else [*moments, before]


def anonymous(cast: Path, names: Sequence[str] = ()) -> None:
    """Raises CheckFailed when a path or the name of this machine, or one of `names`, stands in the
    recording."""
    text = cast.read_text()
    private = {str(Path.home()), str(cast.parent), str(ROOT), platform.node(), *names}
    seen = [
        name
        for name in sorted(private - {"", "/"})
        if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
    ]
    expect(not seen, f"{cast.name} says where it was made: {', '.join(seen)}")
