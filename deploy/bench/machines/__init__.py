"""What a machine of any topology is made of: network namespaces, file systems, cgroups, a first
process, and its removal.

Everything that a topology makes carries the topology's prefix (`gtv-`, `kp-`, ...). That is how
`leftovers.remove()` finds what an earlier run left when it was killed, and touches nothing else.
"""
