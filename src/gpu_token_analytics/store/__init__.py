"""MongoDB: the only place that imports pymongo.

client.py     connection, durability, the server's clock, errors in our words
indexes.py    every index, TTL and view
writes.py     raw documents, each once
marks.py      which cells have to be computed
inventory.py  GPUs, and which label meant which GPU when
ledger.py, compute.py, rollups.py, ...   the ledger's reads and writes
"""
