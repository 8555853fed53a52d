"""One test bench for all stages: real machines, real servers and real clusters on this one machine,
and what is checked there.

machines/    what a machine is made of: namespaces, file systems, cgroups, its first process, its
             removal
images/      container images under the reference tags, built around real servers
checks/      what is asked of every topology: reachability, the exact replay
report.py    what was checked, what failed, what could not be checked
evidence.py  a run's own output, in the stages' documents
vms/         topology of CA0 and CA1: four systemd machines
kubernetes/  topology of CA2 and CA3: a control plane and three nodes
sites/       topology of CA4: two sites and a vote
sessions.py  a terminal session, recorded and drawn
shell.py     programs that are run, and waited for
"""
