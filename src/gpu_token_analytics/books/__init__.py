"""The books: what cells are priced and named by besides their events - the price book, the
inventory of GPUs, the placements.

May import `mongo`, `ledger`, `wire` and the shared words.
"""
