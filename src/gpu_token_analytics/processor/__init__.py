"""The processor: ingest, closing, rollups and HTTP put together in one process.

May import every room of the pipeline; nothing in here but composition and its HTTP answers.

    service.py   the threads
    watchdog.py  ends the process when ingest stands still
    app.py       /health /ready /metrics /gpu/info
    commands.py  `gpu-tokens processor`
"""
