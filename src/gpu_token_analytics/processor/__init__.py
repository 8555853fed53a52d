"""The processor: ingest, closing, rollups and HTTP put together in one process.

May import every room of the pipeline; nothing in here but composition and its HTTP answers.

    service.py   the threads
    app.py       /health /ready /metrics /gpu/info
    commands.py  `gpu-tokens processor`
"""
