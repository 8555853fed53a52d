"""Every fault that delivery is designed for: what is expected, and what was seen when it was made
to happen.

matrix.py   the 42 rows: fault, expectation, and the tests that make it happen
record.py   what became of each test, written down as it ends
tables.py   the rows with what was seen, on the terminal and in docs/faults.md
run.py      runs those tests, and prints the table; a row that was not run says so, and why
"""
