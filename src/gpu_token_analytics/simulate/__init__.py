"""Events without a GPU: a simulated fleet, and the replay of a trace.

May import `kafka`, `wire` and the shared words.
"""

from gpu_token_analytics.simulate.fleet import Fleet, default_fleet
from gpu_token_analytics.simulate.load import Load, events_for_bench, generate

__all__ = ["Fleet", "Load", "default_fleet", "events_for_bench", "generate"]
