"""From records to raw events: the loop with every effect in order, its pure steps, and the live rate.

May import `raw`, `cells`, `books`, `mongo`, `kafka`, `ledger`, `wire` and the shared words; knows nothing of closing.

    run.py        the loop: every effect, in order
    shape.py      its pure steps; reading.py: records read together
    settle.py     one batch made durable, however long that takes
    live_rate.py  the estimate of the moment; refusals.py: what the log says of refused records
"""
