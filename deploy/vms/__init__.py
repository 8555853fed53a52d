"""The test bench of CA0 and CA1: four real systemd machines on this one, with the flow table's names and addresses.

report.py    what was checked, what failed, what could not be checked
roots.py     the machines' file systems (Debian 13, Docker Engine and Compose)
machines.py  network namespaces, start, kill, stop, remove
images.py    container images under the reference tags, built around real servers
matrix.py    who can reach which port
ca0.py ca1.py end_to_end.py   the checks
"""
