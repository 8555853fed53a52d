"""The ledger for warehouses: its cells as records of a compacted Kafka topic, and its days as
Parquet files.

May import `kafka`, `cells`, `rollups`, `costs`, `mongo`, `ledger` and the shared words.

    record.py    a cell as a record: the contract `ledger.cell.v1`
    outbox.py    cells that the topic does not hold yet; who sends them
    publish.py   from there to the topic, each revision with one effect
    days.py      a folder of one Parquet file a day, kept current
"""
