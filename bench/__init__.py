"""Runnable comparisons: `python -m bench.<name>`. Results are printed, not committed as truth."""
