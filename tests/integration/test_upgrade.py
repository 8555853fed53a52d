"""A store that an older version wrote is read as it is, or refused with the way
(docs/upgrade.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.ledger_support import MINUTE, Pipeline, minutes_ago, sample, usage

from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.query import CostQuery, Row
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.errors import BackupUnusable, StoreRefused
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.rollups.spans import HOUR, Step, ceil, floor
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.tools.backup import MANIFEST, back_up, restore
from gpu_token_analytics.wire.usage import USAGE

MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def one(pipeline: MakePipeline) -> Pipeline:
    """Two hours with money, in sums."""
    made = pipeline(silent_gpu_owned_minutes=0)
    made.ingest([sample(n, minutes_ago(120) + n * MINUTE) for n in range(60)])
    made.ingest(
        [usage(n, minutes_ago(120) + n * MINUTE + timedelta(seconds=40)) for n in range(50)]
    )
    roll(made)
    return made


def roll(one: Pipeline) -> None:
    one.close()
    rollups = Rollups(one.ledger.rollups)
    while rollups.step_now():
        pass


def rows(one: Pipeline) -> list[Row]:
    start, end = floor(minutes_ago(180), HOUR), ceil(minutes_ago(0), HOUR)
    query = CostQuery(start, end, step=Step.HOUR, group_by=("model", "tenant"))
    return list(Desk.over(one.store, one.settings).costs.rows(query, one.store.now()))


def as_an_older_version_wrote_it(one: Pipeline) -> None:
    """Without what came later: halves of hours, ways of paying, time without a memory reading;
    without an index."""
    hourly, daily = one.store[Collection.ROLLUPS_HOURLY], one.store[Collection.ROLLUPS_DAILY]
    fields: dict[str, Any] = {
        "second_half": "",
        "places.$[].second_half": "",
        "places.$[].price_mode": "",
    }
    hourly.update_many({"scope": "gpu"}, {"$unset": fields})
    hourly.update_many({"scope": "fleet"}, {"$unset": {"second_half": ""}})
    daily.update_many({"scope": "gpu"}, {"$unset": {"places.$[].price_mode": ""}})
    one.store[Collection.LEDGER_CELLS].update_many(
        {}, {"$unset": {"memory_unknown_us": ""}, "$set": {"params": "earlier"}}
    )
    raw = one.store[USAGE.collection]
    raw.update_many({}, {"$unset": {"period": ""}})
    raw.drop_index("period_1_request_id_hashed")
    raw.create_index([("request_id", 1)])


def test_an_older_store_is_read_as_it_is_and_goes_on(one: Pipeline) -> None:
    before = rows(one)
    assert sum(row.money_nusd for row in before) > 0
    as_an_older_version_wrote_it(one)
    ensure_indexes(one.store, one.settings)
    indexes = one.store[USAGE.collection].index_information()
    assert "period_1_request_id_hashed" in indexes
    assert "request_id_1" not in indexes, "nobody asks for it any longer"
    assert [(row.start, row.key, row.money_nusd, row["requests"]) for row in rows(one)] == [
        (row.start, row.key, row.money_nusd, row["requests"]) for row in before
    ]
    one.ingest([usage(900, minutes_ago(120) + timedelta(seconds=55))])
    roll(one)
    assert sum(row["requests"] for row in rows(one)) == sum(row["requests"] for row in before) + 1
    reads = Desk.over(one.store, one.settings).reads
    stored = list(one.store[USAGE.collection].find())
    assert [len(reads.requests_by_id(request["request_id"], None, 9)) for request in stored] == [
        1
    ] * 51, "of either version"
    assert one.audit().holds


def test_raw_events_that_would_be_stored_twice_are_refused_with_the_way(
    one: Pipeline, pipeline: MakePipeline
) -> None:
    raw = one.store[USAGE.collection].find_one()
    assert raw is not None
    one.store[USAGE.collection].insert_one({**raw, "_id": "0194c5c8-0000-7000-8000-000000000000"})
    with pytest.raises(
        StoreRefused, match=r"earlier version.*MONGODB_DATABASE to a new name.*new KAFKA_GROUP"
    ):
        ensure_indexes(one.store, one.settings)
    # the way: it starts, and takes the same events again
    new = pipeline("_new", silent_gpu_owned_minutes=0)
    new.ingest([usage(n, minutes_ago(120) + n * MINUTE + timedelta(seconds=40)) for n in range(50)])
    assert new.store[USAGE.collection].count_documents({}) == 50


def test_a_backup_of_another_format_is_refused_with_the_version_that_reads_it(
    one: Pipeline, tmp_path: Path
) -> None:
    back_up(one.settings, tmp_path / "copy", [], lambda _name, _documents: None)
    manifest = json.loads((tmp_path / "copy" / MANIFEST).read_text())
    (tmp_path / "copy" / MANIFEST).write_text(
        json.dumps({**manifest, "format": 0, "product": "0.0.1"})
    )
    empty = one.settings.model_copy(
        update={"mongodb_database": f"{one.settings.mongodb_database}_x"}
    )
    with pytest.raises(BackupUnusable, match=r"format 0, this version reads 1: use 0\.0\.1"):
        restore(empty, tmp_path / "copy", None, lambda _name, _documents: None)
