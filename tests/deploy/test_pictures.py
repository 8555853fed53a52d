"""Recordings and pictures of the stages: whole, small enough, and silent about where they were
made."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from deploy.bench.report import CheckFailed
from deploy.bench.sessions import (
    CLEAR,
    COLUMNS,
    MAX_BYTES,
    ROWS,
    STILL_ROWS,
    anonymous,
    height,
    screens,
    text_of,
)
from deploy.bench.vms.pictures import TOUR_SCREENS
from deploy.flows import ROOT

TOUR = ROOT / "CA0/demo/tour.cast"
DRAWN = sorted([*ROOT.glob("CA*/docs/images/*"), ROOT / "CA0/demo/tour.svg", TOUR])


def session(folder: Path, *printed: tuple[float, str]) -> Path:
    cast = folder / "session.cast"
    lines = [json.dumps({"version": 2, "width": COLUMNS, "height": ROWS})]
    lines += [json.dumps([second, "o", text]) for second, text in printed]
    cast.write_text("\n".join(lines) + "\n")
    return cast


def test_a_screen_is_complete_at_its_last_event(tmp_path: Path) -> None:
    cast = session(
        tmp_path, (0.1, "looking"), (1, CLEAR + "one"), (2, "two"), (7, CLEAR + "three"), (8, "")
    )
    assert screens(cast) == [0.1, 2, 8]
    assert text_of(cast) == "lookingonetwothree"


def test_a_still_is_as_high_as_what_stands_on_the_screen(tmp_path: Path) -> None:
    long = "x" * (COLUMNS + 1)
    cast = session(tmp_path, (1, "before\r\n" + CLEAR + f"one\r\n{long}\r\n"), (2, "a\n" * 99))
    assert height(cast, 1) == 4
    assert height(cast, 2) == STILL_ROWS


def test_a_session_without_output_has_no_screen(tmp_path: Path) -> None:
    assert screens(session(tmp_path)) == []


def test_a_recording_that_says_where_it_was_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="where it was made"):
        anonymous(session(tmp_path, (0.1, f"make: Entering directory '{tmp_path}/CA1'\r\n")))
    anonymous(session(tmp_path, (0.1, "/opt/gpu-tokens/vm1-kafka")))


def test_the_tour_shows_topic_processor_document_api_and_smoke_test() -> None:
    head = json.loads(TOUR.read_text().splitlines()[0])
    assert (head["version"], head["width"], head["height"]) == (2, COLUMNS, ROWS)
    _looking, *shown = screens(TOUR)
    assert len(shown) == len(TOUR_SCREENS)
    assert 60 <= shown[-1] <= 150
    said = text_of(TOUR)
    for wanted in (
        "PartitionCount: 12",
        '"schema":"token.usage.v1"',
        "db.token_usage.findOne",
        "/v1/requests/",
        "12 passed, 0 failed",
    ):
        assert wanted in said, wanted
    [asked] = set(re.findall(r"/v1/requests/([\w-]+)", said))
    assert f"request_id: '{asked}'" in said, "the same request in MongoDB"


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_pictures_are_small_and_tell_nothing_of_where(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES
    if path.suffix != ".png":
        assert not re.findall(r"/(?:work|home|root|tmp|build)/\S*", path.read_text())


@pytest.mark.parametrize("stage", ["CA0", "CA1"])
def test_every_picture_is_shown_by_a_page(stage: str) -> None:
    page = (ROOT / stage / "docs/pictures.md").read_text()
    taken = {path.name for path in (ROOT / stage / "docs/images").iterdir()}
    assert taken
    assert taken == set(re.findall(r"\]\(images/([^)]+)\)", page))


def test_the_tour_is_a_program() -> None:
    script = ROOT / "CA0/demo/tour.sh"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
