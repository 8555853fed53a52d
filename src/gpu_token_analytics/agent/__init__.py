"""Samples the GPUs of one machine and sends them as events.

May import `kafka`, `wire` and the shared words.
"""
