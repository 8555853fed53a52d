"""This processor next to what its users would pick instead: one broker, one mongod, the same
events, one table.

installs.py     the peers, fetched once, pinned by hash
contestants.py  who runs, with which settings
world.py        the broker, mongod, topics and databases of a run
trial.py        one contestant's process, topic and database
trials.py       what is measured: speed, kill -9 twice, one invalid record
table.py        the table, on the terminal and in the README
"""
