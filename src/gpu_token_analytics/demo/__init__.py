"""The whole pipeline on one machine: embedded broker and mongod, processor, API, a fleet, and a
view in the terminal.

May import every room but the processes: those it starts as a user would.

It composes the processes and is imported by none of them.
"""
