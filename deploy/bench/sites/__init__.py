"""Two sites and a vote on one machine: real Envoy, Kafka, MirrorMaker, MongoDB and the product, in
network namespaces.

network.py    three sites and a router between them; a cut is a firewall rule on the router
processes.py  named processes of a site: start, stop, kill -9, logs
identity.py   an authority per trust domain, certificates, and Envoy's secret files
gateways.py   Envoy at each site, from the files in CA4/envoy
servers.py    Kafka, MirrorMaker, MongoDB
sites.py      all of it: start, lose a site, promote, fail back
load.py       a producer that writes down which events were acknowledged (runs inside a site)
probe.py      questions that are asked from inside a site: ids in the topic, ids in the store,
              dbHash, totals
peer.py       stand-in servers and callers inside a site, for the checks of the mesh
readers.py    clients that read the API at both sites meanwhile
mesh.py       checks of the mesh: who may call what, forged identities, rotation, ejection,
              failover, hot reload
drill.py      the rows of the disaster-recovery drill; rows.py: a row of its table
infrastructure.py   Terraform: its own tests, and applied against a mock of AWS
run.py        the commands
"""
