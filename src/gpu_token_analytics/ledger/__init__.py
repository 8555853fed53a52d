"""The ledger: a pure function of the set of events, the price book and the parameters.

May import numpy, `wire`, `documents`, and of the shared words `settings` and `errors`.

No client, no clock, no environment in here: everything comes in as an argument, so that any order,
batch split, crash or replay gives the same cells.

    money.py        integer nano-USD: the price integral and the largest-remainder split
    prices.py       which price is in force for a GPU at a time
    classes.py      what a GPU without a known request was doing
    energy.py       joules between samples
    arrays.py       sums of integer columns
    attribution.py  the sweep: how concurrent requests share a GPU, instant by instant
    inputs.py       what cells are computed from; several GPUs laid out together
    cells.py        all of it together: the content of cells; grid.py: the intervals between edges
    events.py       what is loaded of one GPU around a run of minutes
    timeline.py     what its minutes depend on besides what happens inside of them; evidence.py:
                    when it was heard of
    computed.py     what is known of a minute once it is computed; compute.py: timelines to these
    document.py     the document of a cell: its fields, and which of them who reads
    diff.py         a timeline as computed against what its cells said: the intervals that changed;
                    changes.py: their kinds
    names_moved.py  the same where a name means another GPU
    ownership.py    the minutes a GPU has to be paid for
    books.py        what cells are priced and named by besides their events
"""
