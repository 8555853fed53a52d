"""Tools an operator runs by hand or from a schedule: audit the ledger, verify a deployment.

May import `closing` (its audit), `cells`, `terminal`, `kafka`, `mongo` and what is below.
"""
