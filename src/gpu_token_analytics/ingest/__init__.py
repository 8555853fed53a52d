"""From records to raw events: the loop with every effect in order, its pure steps, and the live
rate.

May import `raw`, `cells`, `books`, `mongo`, `kafka`, `ledger`, `wire` and the shared words; knows
nothing of closing.

    run.py        the loop: every effect, in order
    shape.py      its pure steps, kind by kind; reading.py: records read together
    kinds.py      what is done with events of any kind; usages.py, samples.py, counters.py: what
                  else follows from these; touched.py: the cells they change, reach.py: the minutes
    shaped.py     a batch ready to be written; limits.py, bad_share.py: what is too far, and too
                  much
    settle.py     one batch made durable, however long that takes
    live_rate.py  the estimate of the moment; refusals.py: what the log says of refused records
"""
