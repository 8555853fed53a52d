"""From raw events to cells: due cells are loaded, computed, what follows for others is marked, they are written and audited.

May import `rollups`, `raw`, `cells`, `books`, `mongo`, `ledger`, `wire` and the shared words; no Kafka, no HTTP.

    closer.py        the loop over due cells; consequences.py: what a change means for other cells
    load.py          everything that timelines are made of: load_samples.py, load_requests.py, neighbours.py
    runs.py          which cells are loaded together
    store.py         everything closing needs of one database
    audit.py         all of it again from raw events, compared
    request_view.py  the same computation, looked at from one request

What is loaded is computed by `ledger`, which asks nobody.
"""
