"""The table of sites (`deploy/sites.yaml`) and everything that is written from it.

python -m deploy.sites write     after a change of sites.yaml
python -m deploy.sites check     exit 1 and the stale files when something written differs from the
                                 table

table.py       the table, checked
envoy.py       listeners, clusters and bootstrap of each site's Envoy
stores.py      MirrorMaker's properties, the replica set, each site's settings
terraform.py   providers and modules: the part of the configuration that Terraform cannot loop over
kubernetes.py  the same rules for Istio; by schema, not run
documents.py   the tables that documents carry
written.py     which file comes from what
"""
