"""GPU Token Analytics Pipeline: what each LLM token costs on your own GPUs."""

__version__ = "0.1.0"
