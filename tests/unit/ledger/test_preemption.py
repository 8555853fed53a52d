"""What CA3/docs/gpu.md says of preempted, waiting and drained GPU pods: every class by hand, at
0.001 USD a second."""

from __future__ import annotations

from tests.unit.ledger.worlds import Document, World, minutes, price, sample, usage

from gpu_token_analytics.ledger.ownership import owned_silent_minutes

SECOND_NUSD = 1_000_000
MINUTE_US = 60_000_000

# 0-20 a request; 20-30 one that is cut off when its pod is preempted, and so never becomes an
# event; 30-50 nobody, the memory is free; from 50 on the next pod has loaded its model and waits
# for requests. Then the node is drained: no sample after 50.
SAMPLES = [
    sample("s0", 0, utilization=1.0, mem_mb=40_000),
    sample("s1", 10, utilization=1.0, mem_mb=40_000),
    sample("s2", 20, utilization=1.0, mem_mb=40_000),
    # utilisation speaks of the time before it, memory of now
    sample("s3", 30, utilization=1.0, mem_mb=0),
    sample("s4", 40, utilization=0.0, mem_mb=0),
    sample("s5", 50, utilization=0.0, mem_mb=40_000),
]
PRICES = [price("default", "3.60")]


def world(*requests: Document) -> World:
    return World([usage("ended", 20, 20), *requests], SAMPLES, PRICES)


def test_a_preempted_pods_unfinished_work_is_unmetered_and_its_free_gpu_is_cold() -> None:
    (cell,) = world().cells(minutes(1))
    assert cell.cost_nusd == 60 * SECOND_NUSD
    assert cell.classes == {
        "attributed": 20 * SECOND_NUSD,
        "unmetered_work": 10 * SECOND_NUSD,
        "cold_idle": 20 * SECOND_NUSD,
        "warm_idle": 10 * SECOND_NUSD,
        "unobserved": 0,
    }


def test_the_request_that_is_repeated_elsewhere_costs_nothing_here() -> None:
    (alone,) = world().cells(minutes(1))
    (cell,) = world(usage("repeated", 55, 20, gpus=("GPU-b",))).cells(minutes(1))
    assert cell.classes == alone.classes


def test_a_drained_gpu_is_paid_for_as_unobserved_until_it_is_given_back() -> None:
    _, after = world().cells(minutes(2))
    # The last sample speaks for 30 s: 20 of them lie in this minute.
    assert after.classes["warm_idle"] == 20 * SECOND_NUSD
    assert after.classes["unobserved"] == 40 * SECOND_NUSD
    assert sum(after.classes.values()) == after.cost_nusd == 60 * SECOND_NUSD
    hours = owned_silent_minutes([0], now_us=10**15, silent_owned_us=24 * 60 * MINUTE_US, live=True)
    assert len(hours) == 24 * 60  # and no longer


def test_a_gpu_that_is_not_there_yet_costs_nothing() -> None:
    """A pod that is Pending for want of a GPU: no sample, no request, so there is nothing that is
    owned."""
    assert (
        owned_silent_minutes([], now_us=10**15, silent_owned_us=24 * 60 * MINUTE_US, live=True)
        == []
    )
