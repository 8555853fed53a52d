"""A UUID of zeros is none: virtual and passed-through cards show it, several at once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import encode
from gpu_token_analytics.wire.names import NIL_UUID, is_nil
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.usage import TokenUsage

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def sample(**fields: Any) -> GpuSample:
    event = decode(
        encode(
            GpuSample(
                event_id="s", ts=AT, host="Node1.", source="nvml", **{"gpu_index": 2, **fields}
            )
        )
    )
    assert isinstance(event, GpuSample)
    return event


def gpus(*names: str, index: int | None = None) -> list[str]:
    usage = TokenUsage(
        event_id="u",
        ts=AT,
        host="n",
        model="m",
        request_id="r",
        prompt_tokens=1,
        completion_tokens=1,
        gpu_uuids=list(names),
        gpu_index=index,
    )
    event = decode(encode(usage))
    assert isinstance(event, TokenUsage)
    return event.gpus


@pytest.mark.parametrize(
    "uuid", [NIL_UUID, NIL_UUID.lower(), NIL_UUID.removeprefix("GPU-"), "GPU-00000000", "0" * 32]
)
def test_a_card_with_zeros_goes_by_its_place(uuid: str) -> None:
    card = sample(gpu_uuid=uuid)
    assert (card.gpu, card.has_uuid) == ("node1/2", False)
    part = sample(gpu_uuid="MIG-a", mig_profile="3g.40gb", parent_uuid=uuid)
    assert (part.gpu, part.card, part.has_uuid) == ("MIG-a", "node1/2", True)
    with pytest.raises(InvalidRecord, match="a MIG slice has no other identity") as refused:
        sample(gpu_uuid=uuid.replace("GPU", "MIG"), mig_profile="3g.40gb", parent_uuid="GPU-a")
    assert refused.value.reason is Reason.INCONSISTENT


@pytest.mark.parametrize(
    "uuid", ["GPU-0", "GPU-0000", "GPU-00000000-0000-0000-0000-000000000001", "GPU-", "0000000"]
)
def test_other_names_are_names(uuid: str) -> None:
    assert not is_nil(uuid)
    assert sample(gpu_uuid=uuid).has_uuid


def test_a_request_on_zeros_is_on_the_card_at_its_index() -> None:
    assert gpus(NIL_UUID, index=3) == ["n/3"]
    assert gpus(NIL_UUID) == [NIL_UUID], "which card it was, nobody knows"
    assert gpus(NIL_UUID, "GPU-b", index=3) == [NIL_UUID, "GPU-b"], (
        "its part is on a card that nobody knows"
    )
