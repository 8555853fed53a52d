"""Metrics: bounded labels, one sentence each."""

from __future__ import annotations

import time

from prometheus_client import generate_latest

from gpu_token_analytics.metrics import MAX_MODEL_LABELS, OTHER_MODELS, Metrics, SiteRegistry

BOUNDED_LABELS = {"collection", "reason", "partition", "result", "step", "model", "le"}


def test_models_past_the_limit_share_a_label() -> None:
    metrics = Metrics()
    names = {metrics.model_label(f"m{number}") for number in range(MAX_MODEL_LABELS + 50)}
    assert len(names) == MAX_MODEL_LABELS + 1
    assert metrics.model_label("m0") == "m0", "known ones keep theirs"
    assert metrics.model_label("yet another") == OTHER_MODELS


def test_each_has_a_sentence_and_only_bounded_labels() -> None:
    metrics = Metrics()
    metrics.live_cost.labels("m").set(1)
    metrics.dead_letters.labels("not_json").inc()
    metrics.write_seconds.labels("insert").observe(1)
    families = list(metrics.registry.collect())
    assert len(families) > 15
    for family in families:
        assert family.name.startswith("gpu_tokens_")
        assert family.documentation.endswith("."), family.name
        for series in family.samples:
            assert set(series.labels) <= BOUNDED_LABELS, "no request ids, no tenants"


def test_cpu_time_is_what_a_thread_computes_not_what_it_waits_for() -> None:
    metrics = Metrics()
    with metrics.cpu("store"):
        time.sleep(0.2)
    with metrics.cpu("shape"):
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
    waited, computed = (
        metrics.registry.get_sample_value("gpu_tokens_step_cpu_seconds_total", {"step": step})
        for step in ("store", "shape")
    )
    assert waited is not None
    assert computed is not None
    assert waited < 0.05 <= computed


def test_every_sample_says_its_site_where_there_are_several() -> None:
    metrics = Metrics(SiteRegistry("a"))
    metrics.dead_letters.labels("not_json").inc()
    metrics.write_seconds.labels("insert").observe(1)
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    assert samples
    assert {sample.labels["site"] for sample in samples} == {"a"}
    assert b'gpu_tokens_dead_letters_total{reason="not_json",site="a"} 1.0' in generate_latest(
        metrics.registry
    )


def test_one_site_has_no_label_of_it() -> None:
    assert b"site=" not in generate_latest(Metrics(SiteRegistry()).registry)
