"""The exporter: figures of the ledger, of the consumer group and of the audit for Prometheus, in a
process of its own.

May import `closing` (its audit), `books` (teams), `costs`, `budgets`, `rollups`, `kafka`, `mongo`,
`ledger` and the shared words.

A processor that has died tells nobody about its backlog. So what alerts and scaling depend on is
looked at from outside: by one process beside the pipeline that answers as long as Kafka or MongoDB
does.
"""
