"""The JSON Schema files are the types, in every place they are kept."""

from __future__ import annotations

from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

import gpu_token_analytics
from gpu_token_analytics.tools.schemas_command import contracts, file_name, rendered

ROOT = Path(__file__).parents[2]
FOLDERS = (Path(gpu_token_analytics.__file__).parent / "wire" / "schemas", ROOT / "CA0" / "schemas")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_files_equal_the_types(folder: Path) -> None:
    expected = {file_name(tag): rendered(schema) for tag, schema in contracts().items()}
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    assert found == expected, "run `make schemas`"


@pytest.mark.parametrize("tag", contracts())
def test_each_is_a_valid_schema(tag: str) -> None:
    jsonschema.Draft202012Validator.check_schema(contracts()[tag])
