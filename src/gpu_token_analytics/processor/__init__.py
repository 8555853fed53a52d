"""The processor: Kafka to MongoDB, and the ledger from what is stored.

run.py        the loop: every effect, in order
ingest.py     its pure steps
live_rate.py  the estimate of the moment
closing.py    due cells -> the ledger; consequences.py: what follows for other cells; rollups.py: their sums
app.py        /health /ready /metrics /gpu/info
commands.py   `gpu-tokens processor`: all of it in one process
"""
