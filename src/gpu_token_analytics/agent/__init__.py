"""Samples the GPUs of one machine and sends them as events."""
