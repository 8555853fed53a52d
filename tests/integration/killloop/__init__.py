"""The kill loop: processors die by SIGKILL between any two steps, again and again; then every
record is accounted for.

world.py     what is sent, and so what has to be there: the oracle knows nothing of the system under
             test
nursery.py   the processors' lives: forked from one warm parent, killed at checkpoints
variants.py  deliberately wrong processors, which the judge must find out
harness.py   sends, kills, waits
judge.py     L1 raw, L2 dead letters, L3 ledger, L5 offsets against the world
"""
