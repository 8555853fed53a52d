"""SIGKILL between any two steps, 70 times and more: every valid event once, every bad one in the
dead letters, the ledger exact. And the same loop over two wrong processors, whose damage it has to
find.

KILL_DEATHS (default 75) and KILL_SEED change the runs; the seed is printed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.killloop import variants
from tests.integration.killloop.harness import (
    Nursery,
    environment_of,
    send_while_dying,
    wait_until_done,
)
from tests.integration.killloop.judge import (
    dead_letter_problems,
    inc_sums_problems,
    judge,
    raw_problems,
)
from tests.integration.killloop.world import World

from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.embedded.kafka_jvm import KafkaBroker
from gpu_token_analytics.kafka.topics import create_topics, seed_offsets
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.settings import Settings, load

DEATHS = int(os.environ.get("KILL_DEATHS", "75"))
SEED = int(os.environ.get("KILL_SEED", str(int(time.time()))))


MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(mongo_uri: str, mongo_database: str) -> MakeSettings:
    def make(bootstrap: str, session_timeout_ms: int, **more: Any) -> Settings:
        return load(
            kafka_bootstrap=bootstrap,
            kafka_extra_config={
                "session.timeout.ms": str(session_timeout_ms),
                "heartbeat.interval.ms": str(session_timeout_ms // 4),
            },
            mongodb_uri=mongo_uri,
            mongodb_database=mongo_database,
            batch_max_records=150,
            batch_max_wait_ms=20,
            # over the marks' safety margin, so that marks are left out, too
            close_debounce_seconds=2.0,
            silent_gpu_owned_minutes=2,
            **more,
        )

    return make


@pytest.fixture
def loop(
    tmp_path: Path, keep_log: Callable[[Path], None]
) -> Iterator[Callable[..., tuple[World, Store, Nursery]]]:
    """Run a world through dying processors; returns when the survivors have finished."""
    stores: list[Store] = []

    def run(
        settings: Settings, *, deaths: int, probability: float, variant: str = "", size: int = 3
    ) -> Any:
        world = World(SEED)
        store = open_store(settings)
        stores.append(store)
        ensure_indexes(store, settings)
        with Nursery(
            environment_of(settings),
            tmp_path,
            size=size,
            seed=SEED,
            probability=probability,
            variant=variant,
        ) as nursery:
            keep_log(nursery.log)
            send_while_dying(nursery, settings, world, deaths, seconds=400)
            nursery.calm()
            wait_until_done(nursery, settings, store, seconds=180)
            nursery.stop(30)
        print(
            f"seed {SEED}: {world.sent} records, {world.duplicates} duplicates, "
            f"{world.bad.total()} bad"
        )
        print(f"lives ended with (exit code: times) {dict(nursery.ends.codes)}")
        return world, store, nursery

    yield run
    for store in stores:
        store.close()


def test_kill_loop(mock_broker: EmbeddedBroker, make_settings: MakeSettings, loop: Any) -> None:
    settings = make_settings(mock_broker.bootstrap, 1000)
    seed_offsets(settings)
    world, store, nursery = loop(settings, deaths=DEATHS, probability=0.02)
    assert nursery.ends.deaths >= DEATHS
    assert not nursery.ends.surprises
    problems = judge(store, settings, world)
    assert not problems, "\n".join(problems)
    assert world.duplicates > 0.03 * world.sent
    assert world.bad.total() > 0.005 * world.sent


def test_kill_loop_finds_a_commit_before_the_write(
    mock_broker: EmbeddedBroker, make_settings: MakeSettings, loop: Any
) -> None:
    settings = make_settings(mock_broker.bootstrap, 1000)
    seed_offsets(settings)
    world, store, nursery = loop(
        settings, deaths=25, probability=0.05, variant=variants.COMMIT_FIRST
    )
    assert not nursery.ends.surprises
    problems = raw_problems(store, world)
    assert any(problem.startswith("L1 lost") for problem in problems), (
        "committing first lost nothing: the loop is too tame"
    )


@pytest.mark.minutes
def test_kill_loop_finds_inc_sums(
    mock_broker: EmbeddedBroker, make_settings: MakeSettings, loop: Any
) -> None:
    settings = make_settings(mock_broker.bootstrap, 1000)
    seed_offsets(settings)
    world, store, nursery = loop(settings, deaths=70, probability=0.05, variant=variants.INC_SUMS)
    assert not nursery.ends.surprises
    assert raw_problems(store, world) == [], "this variant is wrong in its sums only"
    assert dead_letter_problems(settings, world) == []
    assert inc_sums_problems(store, world), "the sums survived: the loop is too tame"


@pytest.mark.kafka
def test_kill_loop_on_real_kafka(
    kafka: KafkaBroker, make_settings: MakeSettings, loop: Any, mongo_database: str
) -> None:
    # 6 s is the shortest session a broker allows by default, and each death costs one: fewer of
    #   them here.
    settings = make_settings(
        kafka.bootstrap, 6000, kafka_topic=mongo_database, kafka_group=mongo_database
    )
    create_topics(settings)
    world, store, nursery = loop(
        settings, deaths=int(os.environ.get("KILL_DEATHS_REAL", "12")), probability=0.02
    )
    assert not nursery.ends.surprises
    problems = judge(store, settings, world)
    assert not problems, "\n".join(problems)
