"""Backup and restore on a real MongoDB: a copy is of one moment, comes back as it was, and is
refused when it cannot."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pymongo
import pytest
from bson import decode_all
from tests.integration.ledger_support import MINUTE, Pipeline, minutes_ago, usage

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.errors import BackupUnusable, SettingsError, StoreRefused
from gpu_token_analytics.mongo.copies import COPIED
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.tools.backup import MANIFEST, back_up, new_key, restore
from gpu_token_analytics.wire.usage import USAGE

MakePipeline = Callable[..., Pipeline]
Made = Callable[[str], Pipeline]


@pytest.fixture(scope="module")
def replica_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedMongod(tmp_path_factory.mktemp("replica-set"), replica_set="rs0") as mongod:
        yield mongod.uri


@pytest.fixture
def made(replica_set: str) -> Iterator[Made]:
    """Pipelines over databases of the replica set, closed at the end."""
    pipelines: list[Pipeline] = []

    def make(database: str) -> Pipeline:
        pipelines.append(Pipeline(replica_set, database, silent_gpu_owned_minutes=0))
        return pipelines[-1]

    yield make
    for one in pipelines:
        one.store.close()


def quiet(_name: str, _documents: int) -> None:
    pass


def filled(one: Pipeline) -> Pipeline:
    """Four closed cells with requests."""
    at = minutes_ago(30)
    one.declare()
    one.ingest([usage(n, at + n * MINUTE + timedelta(seconds=50)) for n in range(4)])
    one.close()
    return one


def writing(one: Pipeline) -> Callable[[str, int], None]:
    """While a backup is made: after the requests were copied, more of them come and their cells are
    computed."""

    def progress(name: str, _documents: int) -> None:
        if name == USAGE.collection:
            at = minutes_ago(20)
            one.ingest([usage(100 + n, at + n * MINUTE + timedelta(seconds=50)) for n in range(3)])
            one.close()

    return progress


def of_database(settings: Settings, name: str, uri: str = "") -> Settings:
    update: dict[str, Any] = {"mongodb_database": name}
    if uri:
        update["mongodb_uri"] = type(settings.mongodb_uri)(uri)
    return settings.model_copy(update=update)


def documents(uri: str, database: str) -> dict[str, list[dict[str, Any]]]:
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        return {name: list(client[database][name].find().sort("_id")) for name in COPIED}


def test_a_copy_that_was_made_under_writes_is_a_ledger_that_holds(
    made: Made, replica_set: str, tmp_path: Path
) -> None:
    one = filled(made("moving"))
    before = documents(replica_set, "moving")
    manifest = back_up(one.settings, tmp_path / "copy", [], writing(one))
    assert documents(replica_set, "moving") != before, (
        "nothing was written meanwhile: this test shows nothing"
    )
    assert manifest.consistency == "snapshot"
    restored = made("restored")
    for name in COPIED:  # a pipeline makes indexes and the default price
        restored.store[name].drop()
    restore(restored.settings, tmp_path / "copy", None, quiet)
    assert documents(replica_set, "restored") == before
    report = restored.audit()
    assert report.holds
    assert report.compared == len(before[Collection.LEDGER_CELLS]) >= 4
    indexes = restored.store[USAGE.collection].index_information()
    assert "gpus_1_ts_us_1" in indexes


def test_without_a_snapshot_such_a_copy_is_no_ledger(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the snapshot is for: the same copy, read collection by collection, does not hold."""
    one = filled(made("torn"))
    monkeypatch.setattr(
        pymongo.MongoClient, "start_session", lambda self, **_options: contextlib.nullcontext()
    )
    back_up(one.settings, tmp_path / "copy", [], writing(one))
    monkeypatch.undo()
    restored = made("restored_torn")
    for name in COPIED:
        restored.store[name].drop()
    restore(restored.settings, tmp_path / "copy", None, quiet)
    assert not restored.audit().holds


def test_a_standalone_is_copied_when_nobody_writes_and_refused_when_somebody_does(
    pipeline: MakePipeline, tmp_path: Path
) -> None:
    one = filled(pipeline(silent_gpu_owned_minutes=0))
    assert back_up(one.settings, tmp_path / "still", [], quiet).consistency == "quiet"
    with pytest.raises(StoreRefused, match="somebody wrote while the copy was made"):
        back_up(one.settings, tmp_path / "moving", [], writing(one))
    assert not (tmp_path / "moving" / MANIFEST).exists()
    with pytest.raises(BackupUnusable, match="did not come to its end"):
        restore(
            of_database(one.settings, f"{one.settings.mongodb_database}_x"),
            tmp_path / "moving",
            None,
            quiet,
        )


def test_only_the_right_key_opens_an_encrypted_copy(
    made: Made, replica_set: str, tmp_path: Path
) -> None:
    one = filled(made("secret"))
    recipient, _ = new_key(tmp_path / "key"), new_key(tmp_path / "other")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    back_up(one.settings, tmp_path / "copy", [recipient], quiet)
    files = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert len(files) == len(COPIED) + 1
    for path in files:
        assert path.name.endswith(".age")
        assert path.read_bytes().startswith(b"age-encryption.org/v1\n")
        assert path.stat().st_mode & 0o777 == 0o600
    target = of_database(one.settings, "secret_back")
    with pytest.raises(BackupUnusable, match="give the file of the key with --identity"):
        restore(target, tmp_path / "copy", None, quiet)
    with pytest.raises(BackupUnusable, match="does not open with that key"):
        restore(target, tmp_path / "copy", tmp_path / "other", quiet)
    restore(target, tmp_path / "copy", tmp_path / "key", quiet)
    assert documents(replica_set, "secret_back") == documents(replica_set, "secret")


def test_the_files_are_what_mongodump_writes(made: Made, replica_set: str, tmp_path: Path) -> None:
    one = filled(made("plain"))
    back_up(one.settings, tmp_path / "copy", [], quiet)
    bson = gzip.decompress((tmp_path / "copy/plain/token_usage.bson.gz").read_bytes())
    assert [document["_id"] for document in decode_all(bson)] == [
        document["_id"] for document in documents(replica_set, "plain")["token_usage"]
    ]


@pytest.mark.parametrize("damage", ["a bit", "the end", "a file", "the manifest"])
def test_a_damaged_copy_is_refused(damage: str, made: Made, tmp_path: Path) -> None:
    one = filled(made("damaged"))
    folder = tmp_path / "copy"
    back_up(one.settings, folder, [], quiet)
    file = folder / "damaged/ledger_cells.bson.gz"
    data = bytearray(file.read_bytes())
    if damage == "a bit":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "the end":
        file.write_bytes(data[:-30])
    elif damage == "a file":
        file.unlink()
    else:
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["parts"]["ledger_cells"]["sha256"] = "0" * 64
        (folder / MANIFEST).write_text(json.dumps(manifest))
    database = f"damaged_back_{damage.replace(' ', '_')}"
    with pytest.raises(BackupUnusable, match=r"ledger_cells"):
        restore(of_database(one.settings, database), folder, None, quiet)


def test_nothing_is_mixed_or_overwritten(made: Made, replica_set: str, tmp_path: Path) -> None:
    one = filled(made("mixed"))
    back_up(one.settings, tmp_path / "copy", [], quiet)
    with pytest.raises(StoreRefused, match="database mixed is not empty"):
        restore(one.settings, tmp_path / "copy", None, quiet)
    with pytest.raises(SettingsError, match="is not empty: a backup gets a folder of its own"):
        back_up(one.settings, tmp_path / "copy", [], quiet)
    with pytest.raises(SettingsError, match="is no age public key"):
        back_up(one.settings, tmp_path / "other", ["age1nonsense"], quiet)
    new_key(tmp_path / "key")
    with pytest.raises(SettingsError, match="a key never replaces a file"):
        new_key(tmp_path / "key")
