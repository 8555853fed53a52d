output "addresses" {
  description = "Public and private address of each machine."
  value       = { for name, node in module.node : name => { public = node.public_ip, private = node.private_ip } }
}

locals {
  reached_at = { for name, node in module.node : name => var.connect_privately ? node.private_ip : node.public_ip }
}

output "hosts_env" {
  description = "The machines' addresses as the smoke test reads them."
  value       = join("", [for name, address in local.reached_at : "${upper(split("-", name)[0])}_ADDRESS=${address}\n"])
}

output "inventory" {
  description = "The Ansible inventory: make deploy writes it to ansible/inventory.yml."
  value = yamlencode({
    all = {
      vars  = { ansible_user = "ubuntu", admin_cidr = var.my_ip_cidr }
      hosts = { for name, address in local.reached_at : name => { ansible_host = address } }
    }
  })
}

output "security_group_ids" {
  description = "Security group of each machine, for the drift check."
  value       = module.network.security_group_ids
}

output "region" {
  description = "Where all this is."
  value       = var.region
}
