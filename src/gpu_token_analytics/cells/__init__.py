"""The stored ledger: cells as documents, the marks that make them due, and their lines, in chunks
where they are many.

May import `mongo`, `ledger`, `wire` and the shared words; computes nothing: that is `closing`.

    marks.py        "events of this GPU and minute were stored, compute it (again)"
    changes.py      marks of what depends on an interval that changed
    store.py        take due cells, write what was computed
    lines.py        lines of a cell and its corrections; line_chunks.py: many lines in documents of
                    their own
"""
