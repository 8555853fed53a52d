"""Answers in a terminal: `report`, `top`, `export`, `break-even`, `prices`, `keys`, and tables in
which foreign text is text.

May import `costs`, `api` (its process and keys) and what is below them; no HTTP handler.
"""
