"""Engine counters: what serving engines' pages of metrics are read by, deltas of their series, and
the loop that sends them.

Part of the agent, and may import what it may.

    names.py    which series of which engine count which tokens: the one table
    target.py   what an operator says of an engine: `vllm=http://node1:8000`
    page.py     one look at a page: the series that count tokens
    deltas.py   from looks to what was counted between them
    run.py      the loop
"""
