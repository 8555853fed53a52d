"""The folder of a backup. What a backup holds: tests/integration/test_backup.py."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from gpu_token_analytics.errors import SettingsError, StoreUnreachable
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.tools import backup


def _away(_settings: Settings) -> NoReturn:
    raise StoreUnreachable("MongoDB does not answer")


def test_a_database_that_does_not_answer_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty folder among backups looked like one."""
    monkeypatch.setattr(backup, "copy_of", _away)
    with pytest.raises(StoreUnreachable):
        backup.back_up(load(), tmp_path / "backups" / "today", [], lambda *_: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "said"), [("full", "is not empty"), ("file", "cannot be used")])
def test_a_folder_that_cannot_be_one_is_refused_before_the_database_is_asked(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "copy_of", _away)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=f"{name} {said}"):
        backup.back_up(load(), tmp_path / name, [], lambda *_: None)
