"""Tools an operator runs by hand or from a schedule: audit the ledger, verify a deployment."""
