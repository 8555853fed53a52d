"""CA1's drift: 1 says that something differs, so 2 has to say that nobody could look."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIFT = Path(__file__).parent.parent.parent / "CA1/drift.py"


@pytest.mark.parametrize("refused", ["plan", "output"])
def test_what_cannot_be_looked_at_is_no_drift(tmp_path: Path, refused: str) -> None:
    terraform = tmp_path / "terraform"
    terraform.write_text(
        f'#!/bin/sh\n[ "$2" != {refused} ] || {{ echo "no state" >&2; exit 1; }}\n'
    )
    terraform.chmod(0o755)
    done = subprocess.run(
        [sys.executable, DRIFT, "--only", "aws"],
        env={**os.environ, "TERRAFORM": str(terraform)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "no state" in done.stderr) == (2, True), done.stderr
