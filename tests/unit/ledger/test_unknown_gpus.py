"""Money begins at a GPU that is known, and names mean a GPU only where one fits."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle.names import meaning
from tests.unit.ledger.worlds import GPU, GPUS, World, minutes, worlds

from gpu_token_analytics.ledger.cells import compute_cells
from gpu_token_analytics.ledger.placements import Placement, Placements
from gpu_token_analytics.wire.names import canonical_gpu, may_be_same, name_key

SPANS = minutes(3)
COUNTED = (
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "busy_us",
)


@settings(max_examples=40)
@given(worlds())
def test_an_unknown_gpu_has_tokens_and_no_money(world: World) -> None:
    for found, expected in zip(
        world.cells(SPANS, known=False), world.oracle(SPANS, known=False), strict=True
    ):
        assert (found.cost_nusd, found.owned_us, found.classes, found.class_us) == (
            0,
            0,
            expected.classes,
            expected.class_us,
        )
        assert (found.energy_mj, found.energy_observed_us, found.memory_unknown_us) == (None, 0, 0)
        assert found.requests_active == len(expected.requests)
        assert all(
            line["cost_nusd"] is None and line["prefill_cost_nusd"] is None for line in found.lines
        )
        lines = expected.lines()
        for line, other in zip(found.lines, lines, strict=True):
            assert (line["model"], line["tenant"], line["method"]) == (
                other["model"],
                other["tenant"],
                "unknown_gpu",
            )
            assert {name: dict(line)[name] for name in COUNTED} == {
                name: other[name] for name in COUNTED
            }


@settings(max_examples=40)
@given(worlds(), st.permutations(GPUS), st.sets(st.sampled_from(GPUS)))
def test_cells_of_known_gpus_are_the_same_beside_unknown_ones(
    world: World, order: list[str], unknown: set[str]
) -> None:
    together = compute_cells(
        [world.input(SPANS, gpu, known=gpu not in unknown) for gpu in order],
        world.params,
        with_shares=True,
    )
    for gpu, found in zip(order, together, strict=True):
        assert found == world.cells(SPANS, gpu, known=gpu not in unknown)


HOSTS = ("n1", "n1.example", "n1.cluster.local", "n11", "n1.example.org", "10.0.0.1", "10", "n2")
UUIDS = (
    "8f4c2a1b",
    "8f4c2a1b-77aa",
    "8f4c2a1b-77aa-4f1e-9d52-0c1d2e3f4a5b",
    "8f4c2a1",
    "8f4c2a1b-0000",
    "0",
    "x8f4c2a1b",
)
NAMES = st.one_of(
    st.builds("{}/{}".format, st.sampled_from(HOSTS), st.sampled_from((0, 1))),
    st.builds("{}{}".format, st.sampled_from(("GPU-", "MIG-", "")), st.sampled_from(UUIDS)).map(
        canonical_gpu
    ),
)


@settings(max_examples=500)
@given(st.sets(NAMES, max_size=4), st.lists(NAMES, max_size=4))
def test_a_name_means_the_one_gpu_that_fits(known: set[str], named: list[str]) -> None:
    placements = Placements((), known, named)
    for name in named:
        assert placements.resolve(name, 0) == meaning(name, known)
    for name in known:
        assert placements.resolve(name, 0) == name


@settings(max_examples=500)
@given(NAMES, NAMES)
def test_names_of_one_gpu_have_one_key(name: str, other: str) -> None:
    assert may_be_same(name, other) == may_be_same(other, name)
    if may_be_same(name, other):
        assert name_key(name) == name_key(other)


def test_another_spelling_of_a_label_follows_it_from_card_to_card() -> None:
    placements = Placements(
        [Placement("n1/0", "GPU-a", 0, 9), Placement("n1/0", "GPU-b", 20, 29)],
        [GPU],
        ["n1.example/0"],
    )
    assert [placements.resolve("n1.example/0", at) for at in (0, 9, 14, 15, 25)] == [
        "GPU-a",
        "GPU-a",
        "GPU-a",
        "GPU-b",
        "GPU-b",
    ]
    assert placements.meanings("n1.example/0") == ["GPU-a", "GPU-b"]
    assert (
        placements.times("n1.example/0", "GPU-b")[0][0] == placements.times("n1/0", "GPU-b")[0][0]
    )
    assert placements.labels("GPU-b") == ["n1.example/0", "n1/0"]
    assert placements.aliases_of("n1/0") == ["n1.example/0"]
