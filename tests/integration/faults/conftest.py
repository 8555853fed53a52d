"""Processors of these tests, none of which is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.delivery_support import Processor

from gpu_token_analytics.settings import Settings


@pytest.fixture
def start(tmp_path: Path, keep_log: Callable[[Path], None]) -> Iterator[Callable[..., Processor]]:
    """Start processors with settings and more environment."""
    running: list[Processor] = []

    def run(settings: Settings, **extra: str) -> Processor:
        processor = Processor(settings, tmp_path / f"processor-{len(running)}.log", extra)
        keep_log(processor.log)
        running.append(processor)
        return processor

    yield run
    for processor in running:
        processor.__exit__(None, None, None)
