"""From raw events to cells: due cells are loaded, computed, what follows for others is marked, they
are written and audited.

May import `rollups`, `raw`, `cells`, `books`, `mongo`, `ledger`, `wire` and the shared words; no
Kafka, no HTTP.

    closer.py        the loop over due cells
    load.py          everything that timelines are made of: load_samples.py, load_requests.py,
                     load_counters.py, neighbours.py
    runs.py          which cells are loaded together
    mark.py          what changed in timelines beside the cells computed
    write.py         what is written of a cell
    spread.py        what changed in the books; silence.py: GPUs that say nothing
    store.py         everything closing needs of one database
    audit.py         all of it again from raw events, compared; audit_report.py: what that found
    request_view.py  the same computation, looked at from one request

What is loaded is computed by `ledger`, which asks nobody.
"""
