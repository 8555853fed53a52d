"""CA1 sends the image as it is now: an archive of before an upgrade holds the old one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCKER = """#!/bin/sh
case "$1" in
  image) cat "$(dirname "$0")/id" ;;
  save) echo "$4 saved as $(cat "$(dirname "$0")/id")" >>"$3" ;;
esac
"""


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """CA1's Makefile, with a docker that has one image: its id is in the file `id`."""
    (tmp_path / "CA1").mkdir()
    shutil.copy(ROOT / "CA1/Makefile", tmp_path / "CA1")
    (tmp_path / ".env.example").write_text("GPU_TOKENS_IMAGE=product:1\n")
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    return tmp_path


def make(stage: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["make", "-s", "-C", str(stage / "CA1"), f"DOCKER={stage / 'docker'}", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_archive_is_saved_again_when_the_image_is_another(stage: Path) -> None:
    archive = stage / "CA1/image.tar"
    saved = []
    for image_id in ("sha256:1", "sha256:1", "sha256:2"):
        (stage / "id").write_text(f"{image_id}\n")
        make(stage, str(archive))
        saved.append(archive.read_text().splitlines())
    assert saved == [["product:1 saved as sha256:1"]] * 2 + [
        ["product:1 saved as sha256:1", "product:1 saved as sha256:2"]
    ]


def test_an_archive_that_went_away_is_saved_again(stage: Path) -> None:
    archive = stage / "CA1/image.tar"
    (stage / "id").write_text("sha256:1\n")
    make(stage, str(archive))
    archive.unlink()
    make(stage, str(archive))
    assert archive.read_text() == "product:1 saved as sha256:1\n"


def test_nothing_is_saved_where_a_registry_has_the_image(stage: Path) -> None:
    told = make(stage, "--dry-run", "configure", "IMAGE_ARCHIVE=")
    assert "image_archive= " in told
    assert "docker save" not in told
    assert "docker save" in make(stage, "--dry-run", "configure")
