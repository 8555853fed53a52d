"""Every figure that is asked for: costs by any grouping, GPUs, cells, quality, break-even; and the same as files and FOCUS.

May import `rollups`, `cells`, `mongo`, `ledger`, `wire` and the shared words; no HTTP.
"""
