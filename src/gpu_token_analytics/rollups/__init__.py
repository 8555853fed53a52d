"""Sums of cells per hour and per day: the arithmetic, the documents, and the step that keeps them
equal to their cells.

May import `cells`, `mongo`, `ledger`, `wire` and the shared words.
"""
