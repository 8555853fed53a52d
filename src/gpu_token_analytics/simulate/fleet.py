"""A simulated fleet: hosts, GPUs, the models placed on them, and the tenants who call them.

Every number here is an assumption of the simulation, none is a measurement. Prices are rounded
on-demand list prices per GPU-hour; token times are of the order that serving benchmarks report for
such pairs of model and GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.wire.sinks import declared_gpu_uuid


@dataclass(frozen=True, slots=True)
class GpuModel:
    """What all GPUs of one name have in common."""

    name: str
    mem_total_mb: int
    idle_power_w: float
    max_power_w: float
    price_per_hour_usd: float


H100 = GpuModel("NVIDIA H100 80GB HBM3", 81_559, 70.0, 700.0, 2.49)
A100 = GpuModel("NVIDIA A100-SXM4-80GB", 81_920, 55.0, 400.0, 1.49)
L40S = GpuModel("NVIDIA L40S", 46_068, 35.0, 350.0, 0.86)

COLD_MEM_MB = 4  # what a driver reports of a GPU on which nothing is loaded


@dataclass(frozen=True, slots=True)
class SimGpu:
    """One GPU of the fleet. `background_utilization`: work that no request explains (a batch job
    without metering)."""

    host: str
    index: int
    kind: GpuModel
    background_utilization: float = 0.0

    @property
    def uuid(self) -> str:
        """Its identity: the same in every run."""
        return declared_gpu_uuid(self.host, self.index)


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """How long a request takes once it left the queue: the duration model, in full.

    time to first token = base_ms + prefill_ms_per_token x uncached prompt tokens
    decode              = decode_ms_per_token x (completion tokens - 1) x (1 + batch_slowdown x
                        other running requests)

    The batch is looked at once, when the request starts: later arrivals do not slow it any more.
    """

    base_ms: float
    prefill_ms_per_token: float
    decode_ms_per_token: float
    batch_slowdown: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """A model as it is served and called: memory, speed, log-normal token counts (median, sigma of
    the logarithm)."""

    name: str
    gpus_needed: int
    weights_mb_per_gpu: int
    kv_mb_per_token: float
    times: TokenTimes
    prompt_median: float
    prompt_sigma: float
    completion_median: float
    completion_sigma: float
    cached_share: float  # of requests whose prompt begins with a cached prefix
    reasoning_share: float  # of completion tokens, on average; 0 for models that do not reason
    max_concurrency: int = 32


CHAT_8B = ModelProfile(
    "llama-3.1-8b-instruct",
    1,
    17_000,
    0.13,
    TokenTimes(18, 0.04, 8.0, 0.02),
    700,
    0.9,
    180,
    0.7,
    0.35,
    0.0,
    64,
)
CODE_32B = ModelProfile(
    "qwen2.5-coder-32b",
    1,
    36_000,
    0.25,
    TokenTimes(30, 0.11, 17.0, 0.02),
    1600,
    1.0,
    60,
    0.9,
    0.55,
    0.0,
    32,
)
REASON_32B = ModelProfile(
    "qwq-32b", 1, 36_000, 0.25, TokenTimes(30, 0.11, 17.0, 0.02), 500, 0.8, 900, 0.6, 0.15, 0.7, 32
)
CHAT_70B = ModelProfile(
    "llama-3.3-70b-instruct",
    2,
    71_000,
    0.16,
    TokenTimes(40, 0.12, 19.0, 0.02),
    900,
    0.9,
    220,
    0.7,
    0.4,
    0.0,
    48,
)


@dataclass(frozen=True, slots=True)
class Deployment:
    """One running copy of a model on one GPU, or on several (tensor parallel: each request uses all
    of them)."""

    model: ModelProfile
    gpus: tuple[SimGpu, ...]
    # share of the fleet's requests, relative to the other deployments; 0 is loaded but never called
    weight: float

    @property
    def host(self) -> str:
        """The host its events come from: the one of its first GPU."""
        return self.gpus[0].host


@dataclass(frozen=True)
class Fleet:
    """All of it. Tenants are (name, weight)."""

    gpus: tuple[SimGpu, ...]
    deployments: tuple[Deployment, ...]
    tenants: tuple[tuple[str, float], ...]

    @cached_property
    def hosts(self) -> tuple[str, ...]:
        """Host names in order of first appearance."""
        return tuple(dict.fromkeys(gpu.host for gpu in self.gpus))

    @cached_property
    def price_per_hour_usd(self) -> float:
        """What the whole fleet costs in an hour, used or not."""
        return sum(gpu.kind.price_per_hour_usd for gpu in self.gpus)


# One row per GPU, repeated over the fleet: what runs there. Together they show every class of the
# ledger.
_PATTERN: tuple[tuple[GpuModel, ModelProfile | None, float, float], ...] = (
    # kind, model (its first GPU), weight of its requests, background utilization
    (L40S, CHAT_8B, 4.0, 0.0),
    (A100, CODE_32B, 2.0, 0.0),
    (H100, CHAT_70B, 3.0, 0.0),  # a tensor-parallel pair with the next row
    (H100, None, 0.0, 0.0),
    (L40S, CHAT_8B, 4.0, 0.0),
    (A100, REASON_32B, 0.5, 0.0),
    (A100, CODE_32B, 0.0, 0.0),  # loaded, never called: warm idle
    (L40S, None, 0.0, 0.0),  # nothing loaded: cold idle
    (L40S, None, 0.0, 0.6),  # busy, and no request says why: unmetered work
)

TENANTS = (("search", 5.0), ("support-bot", 3.0), ("research", 1.5), ("default", 0.5))


def default_fleet(
    hosts: int = 3,
    gpus_per_host: int = 4,
    name_host: Callable[[str], str] = str,
) -> Fleet:
    """A fleet of `hosts` x `gpus_per_host` GPUs; the roles repeat over it in a fixed order.
    `name_host` may add the site.

    A model that needs more GPUs than its host has left is not placed, and these GPUs stay cold.
    Raises SettingsError for sizes that are not 1..1000 hosts or 1..16 GPUs per host.
    """
    for name, value, most in (("hosts", hosts, 1000), ("gpus per host", gpus_per_host, 16)):
        if not 1 <= value <= most:
            raise SettingsError(f"{name}={value} is outside 1..{most}; give a number in that range")
    gpus: list[SimGpu] = []
    deployments: list[Deployment] = []
    slot = 0
    for number in range(1, hosts + 1):
        host = name_host(f"gpu-node-{number}")
        index = 0
        while index < gpus_per_host:
            kind, model, weight, background = _PATTERN[slot % len(_PATTERN)]
            count = model.gpus_needed if model else 1
            placed = tuple(
                SimGpu(host, index + offset, kind, background)
                for offset in range(min(count, gpus_per_host - index))
            )
            gpus.extend(placed)
            if model and len(placed) == count:
                deployments.append(Deployment(model, placed, weight))
            index += len(placed)
            slot += count
    return Fleet(tuple(gpus), tuple(deployments), TENANTS)
