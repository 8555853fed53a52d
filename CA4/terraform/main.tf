# A region per site, a host in each, and a peering between every two of them. Sites, addresses and who may call whom:
# deploy/sites.yaml, the same table that Envoy's files come from. Providers and modules per site: sites.tf, written from it.

locals {
  table      = yamldecode(file("${path.module}/../../deploy/sites.yaml"))
  public_key = trimspace(file(pathexpand(var.ssh_public_key_file)))
  tags       = { Project = var.name, ManagedBy = "terraform", Stage = "CA4" }

  # Pairs of sites that call each other, in either direction; and for each site those that call it.
  calls = distinct(flatten([
    for call in local.table.calls : [for service in call.to : { from = call.from, to = local.table.services[service].site }]
  ]))
  callers = {
    for name, _ in local.table.sites : name => {
      for call in local.calls : call.from => "${local.table.sites[call.from].host_ip}/32" if call.to == name
    }
  }
  peers = {
    for name, _ in local.table.sites : name => {
      for call in local.calls : call.to => "${local.table.sites[call.to].host_ip}/32" if call.from == name
    }
  }
}
