"""CA0 and CA1: four real systemd machines on this one, with the flow table's names and addresses.

run.py          the order of everything, and its removal
machines.py     the four machines on one bridge
workstation.py  the operator's side
ca0.py ca1.py product.py end_to_end.py reachability.py   the checks
moto_compat.py  the mock of AWS
pictures.py     what the documents show of a run
"""
