"""Raw events, each stored once: as columns and bytes, inserted, read back, and the latest of them
remembered.

May import `cells` (its marks), `books`, `mongo`, `ledger`, `wire` and the shared words.
"""
