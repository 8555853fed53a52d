"""Files of placements: what is wrong with one is said with file, row and field, before a database
is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.terminal.placements import import_placements

GOOD = {"instance": "node1:8000", "gpus": ["node1/0"]}


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_args: object, **_options: object) -> None:
        raise AssertionError("a database was asked before the file was judged")

    monkeypatch.setattr("gpu_token_analytics.mongo.client.make_client", connect)


@pytest.mark.usefixtures("no_database")
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.json", "nonsense", "is not JSON"),
        ("p.json", "{}", "give an array of objects"),
        ("p.json", "[]", "has no row"),
        ("p.json", json.dumps([GOOD, {"instance": "x"}]), "row 2: gpus: Field required"),
        ("p.json", json.dumps([{**GOOD, "gpu": "a"}]), "row 1: gpu='a': Extra inputs"),
        ("p.json", json.dumps([{**GOOD, "gpus": ["GPU-a", "node1/0"]}]), "row 1: gpus="),
        ("p.json", json.dumps([{**GOOD, "gpus": ["node1/first"]}]), "is no host/index"),
        (
            "p.json",
            json.dumps(
                [{**GOOD, "valid_from": "2026-01-02T00:00:00Z", "valid_to": "2026-01-01T00:00:00Z"}]
            ),
            "valid_to=",
        ),
        (
            "p.json",
            json.dumps([{**GOOD, "valid_from": "2026-01-02"}]),
            "row 1: valid_from='2026-01-02'",
        ),
        ("p.json", json.dumps([{**GOOD, "instance": "/"}]), "names nothing"),
        ("p.csv", "instance,gpu\nnode1:8000,node1/0\n", "known are instance, gpus"),
        ("p.csv", "instance,gpus\nnode1:8000,node1/0,x\n", "row 1 has more values"),
        ("p.csv", "instance,gpus\nvllm,node1/0\nnode1:8000\n", "row 2 has fewer values"),
        ("p.csv", "instance,gpus,gpus\nnode1:8000,node1/0,\n", "names gpus twice"),
        ("p.csv", 'instance,gpus\n"node1:8000,node1/0\n', "is not CSV"),
        ("p.csv", "instance;gpus\nnode1:8000;node1/0\n", "the header has instance;gpus"),
        ("p.csv", "", "no instance"),
        (
            "p.json",
            '[{"instance": "node1:8000", "gpus": ["node1/0"], "gpus": []}]',
            "key gpus is given twice",
        ),
    ],
)
def test_a_bad_file_changes_nothing_and_says_why(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(SettingsError, match=said.replace("(", r"\(")):
        import_placements(file)


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    from gpu_token_analytics.terminal.placements import _rows_of

    rows: list[dict[str, Any]] = [
        {**GOOD, "gpus": ["node1/0", "node1/1"], "model": "llama"},
        {"instance": "vllm", "gpus": []},
    ]
    as_json, as_csv = tmp_path / "p.json", tmp_path / "p.csv"
    as_json.write_text(json.dumps(rows))
    for between in (" ", "  ", ";", "; ", ", ", ","):
        gpus = f"node1/0{between}node1/1"
        as_csv.write_text(f'\ufeffinstance, gpus,model\r\nnode1:8000, "{gpus}",llama\r\n\r\nvllm,,')
        assert _rows_of(as_json) == _rows_of(as_csv), between
