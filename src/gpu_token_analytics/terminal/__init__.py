"""Answers in a terminal: `report`, `top`, `export`, `break-even`, `prices`, `keys`, and tables in which foreign text is text.

May import `api`, `costs` and what is below them.
"""
