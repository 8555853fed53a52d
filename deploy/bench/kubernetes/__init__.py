"""CA2 and CA3: a real Kubernetes on this machine, a control plane and three nodes in namespaces of
their own.

run.py           the order of everything, and its removal
binary.py        the one Kubernetes binary, built from Go modules once and kept
cluster.py       namespaces, control plane, nodes, add-ons
node_init.py     the first process of a node
images.py        container images without an engine
"""
