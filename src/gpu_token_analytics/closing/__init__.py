"""From raw events to cells: due cells are loaded, computed, what follows for others is marked, they are written and audited.

May import `rollups`, `raw`, `cells`, `books`, `mongo`, `ledger`, `wire` and the shared words; no Kafka, no HTTP.

    closer.py        the loop over due cells; consequences.py: what a change means for other cells
    compute.py       load and compute: runs.py, run_samples.py, run_requests.py, evidence.py
    store.py         everything closing needs of one database
    audit.py         all of it again from raw events, compared
    request_view.py  the same computation, looked at from one request
"""
