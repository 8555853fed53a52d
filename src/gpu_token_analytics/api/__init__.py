"""The `api` process: everything the ledger can answer, over HTTP under /v1, and the dashboard.

May import `costs`, `budgets`, `sources`, `web`, `kafka`, `mongo` and what is below; computes no
figure.
"""
