"""Every figure that is asked for: costs by any grouping, GPUs, cells, quality, break-even; and the
same as files and FOCUS.

answers/ has one struct for each answer; desk.py is where questions are asked, by /v1 and by
commands alike.

May import `closing` (a request's view), `rollups`, `raw`, `cells`, `books`, `sources`, `mongo`,
`ledger`, `wire` and the shared words; no HTTP.
"""
