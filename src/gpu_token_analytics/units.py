"""Bounds of values, and the parts of a card, each said once: contracts, sources, prices and the
ledger agree on them."""

from __future__ import annotations

MAX_MEGABYTES = 1e9  # MiB of memory
MAX_WATTS = 1e5
MIN_CELSIUS, MAX_CELSIUS = -100, 300
MAX_JOULES = 1e15  # of a counter since the driver was loaded
MAX_USD_PER_HOUR = 1e5  # of one GPU
MAX_GPU_INDEX = 4095

# A card has seven compute slices; a MIG profile says how many of them an instance has (NVIDIA MIG
# User Guide, "Profile").
MIG_SEVENTHS = 7
