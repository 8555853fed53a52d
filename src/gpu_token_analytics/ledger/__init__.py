"""The ledger: a pure function of the set of events, the price book and the parameters.

May import numpy, `wire`, `documents`, and of the shared words `settings` and `errors`.

No client, no clock, no environment in here: everything comes in as an argument, so that any order,
batch split, crash or replay gives the same cells.

    money.py        integer nano-USD: the price integral and the largest-remainder split
    params.py       the numbers it depends on besides events and prices
    prices.py       which price is in force for a GPU at a time
    requests.py     requests as arrays; labels.py: what they have in common, coded
    classes.py      what a GPU without a known request was doing; unmetered.py: work that no request
                    explains; counted.py: tokens that engines counted beyond requests
    energy.py       joules between samples
    arrays.py       sums of integer columns
    attribution.py  the sweep: how concurrent requests share a GPU, instant by instant;
                    parts.py: one request in one cell
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
    ownership.py    the minutes a GPU has to be paid for; declarations.py: from when to when it is
                    declared
    placements.py   which UUID a label meant; shared.py, cards.py: cards that have one UUID
    books.py        what cells are priced and named by besides their events
"""
