"""One spelling of hosts and GPUs; what is no spelling of the same stays apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_token_analytics.wire.names import canonical_gpu, canonical_host


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("GPU-a::0", "GPU-a"),
        ("gpu-A", "GPU-a"),
        ("gpu-1F2E::12", "GPU-1f2e"),
        ("Mig-0A", "MIG-0a"),
        ("node1/00", "node1/0"),
        ("Node1/0", "node1/0"),
        ("node1./7", "node1/7"),
        ("node1/3::1", "node1/3"),
        ("NODE1.Example.com/0", "node1.example.com/0"),
        # `::` is in the middle of addresses, and a share of time only at the end.
        ("fd00::1/0", "fd00::1/0"),
        ("fd00::1/01::2", "fd00::1/1"),
        ("[FD00:0:0:0::1]/0", "fd00::1/0"),
        ("::1/3", "::1/3"),
        ("GPU-a::1::2", "GPU-a"),
        # Slices of drivers before 470: card, GPU instance, compute instance.
        ("MIG-GPU-1F/5/0", "MIG-gpu-1f-5-0"),
        ("mig-gpu-1f/5/0::1", "MIG-gpu-1f-5-0"),
        # No spelling of something else:
        ("GPU-a::x", "GPU-a::x"),
        ("fd00::/x", "fd00::/x"),
        ("node1/x", "node1/x"),
        ("node1/", "node1/"),
        ("/0", "/0"),
        ("node1/-1", "node1/-1"),
        ("node1/١", "node1/١"),
        ("MIG-GPU-1/5/x", "MIG-GPU-1/5/x"),
        ("0000:3B:00.0", "0000:3B:00.0"),
        ("TPU-A", "TPU-A"),
        ("::0", "::0"),
    ],
)
def test_gpus(sent: str, name: str) -> None:
    assert canonical_gpu(sent) == name


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("Node1", "node1"),
        ("node1.", "node1"),
        ("A.b.C", "a.b.c"),
        (".", "."),
        ("[FD00::01]", "fd00::1"),
        ("fd00:0::1", "fd00::1"),
        ("n:9400", "n:9400"),
    ],
)
def test_hosts(sent: str, name: str) -> None:
    assert canonical_host(sent) == name


@given(st.text(max_size=40))
def test_a_canonical_name_is_its_own(name: str) -> None:
    assert canonical_gpu(canonical_gpu(name)) == canonical_gpu(name)
    assert bool(canonical_gpu(name)) == bool(name)
