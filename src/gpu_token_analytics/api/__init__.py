"""The `api` process: everything the ledger can answer, over HTTP under /v1, and the dashboard.

May import `closing` (a request's view), `costs`, `budgets`, `rollups`, `books`, `web`, `kafka` and what is below; computes no
figure.
"""
