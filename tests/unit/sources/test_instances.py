"""Which placement of an instance holds at a time."""

from __future__ import annotations

import random

from gpu_token_analytics.sources.instances import CountedBy, InstanceBook, InstancePlacement


def row(
    instance: str, gpu: str | None, from_us: int, to_us: int = 1 << 60, created_us: int = 0
) -> InstancePlacement:
    return InstancePlacement(
        instance,
        (gpu,) if gpu else (),
        "h1",
        None,
        CountedBy.ANY,
        from_us,
        to_us,
        created_us,
        gpu or "",
    )


ROWS = [
    row("node1:8000", "GPU-a", 0),
    row("node1:8000", "GPU-b", 100, created_us=1),
    row("node1:8000", "GPU-c", 100, created_us=2),
    row("node1:8000", "GPU-d", 200, to_us=300),
    row("node1:8000", None, 400),
    row("vllm", "GPU-e", 0),
]


def gpus_at(book: InstanceBook, at_us: int, *names: str) -> tuple[str, ...] | None:
    found = book.at(names, at_us)
    return None if found is None else found.gpus


def test_the_row_that_took_effect_last_holds_whatever_the_order() -> None:
    for seed in range(20):
        rows = list(ROWS)
        random.Random(seed).shuffle(rows)
        book = InstanceBook(rows)
        asked = (0, 99, 100, 199, 200, 299, 300, 399, 400)
        expected = [
            ("GPU-a",),
            ("GPU-a",),
            ("GPU-c",),
            ("GPU-c",),
            ("GPU-d",),
            ("GPU-d",),
            ("GPU-c",),
            ("GPU-c",),
            (),
        ]
        assert [gpus_at(book, at, "node1:8000") for at in asked] == expected
        assert gpus_at(book, -1, "node1:8000") is None


def test_the_first_name_of_which_anything_is_said_decides() -> None:
    book = InstanceBook(ROWS)
    assert gpus_at(book, 0, "chat/vllm-0", "http://Node1:8000/v1", "vllm") == ("GPU-a",)
    assert gpus_at(book, 500, "http://node1:8000", "vllm") == (), (
        "a row without GPUs is an answer, not a gap"
    )
    assert gpus_at(book, 500, "nobody") is None
