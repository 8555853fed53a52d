"""The `api` process: everything the ledger can answer, over HTTP under /v1, and the dashboard."""
