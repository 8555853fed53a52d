# What would be built, without any cloud: terraform test

mock_provider "aws" {}

variables {
  my_ip_cidr          = "198.51.100.10/32"
  ssh_public_key_file = "tests/id_test.pub"
  ami_id              = "ami-0123456789abcdef0"
}

run "machines_as_in_the_flow_table" {
  command = plan

  assert {
    condition     = { for name, node in module.node : name => node.private_ip } == { for name, machine in local.table.machines : name => machine.ip }
    error_message = "machines or addresses differ from deploy/flows.yaml"
  }
}

run "no_ssh_for_the_world" {
  command = plan

  variables {
    my_ip_cidr = "0.0.0.0/0"
  }

  expect_failures = [var.my_ip_cidr]
}

run "my_ip_must_be_an_address" {
  command = plan

  variables {
    my_ip_cidr = "my laptop"
  }

  expect_failures = [var.my_ip_cidr]
}

run "names_are_checked" {
  command = plan

  variables {
    name = "Not A Name"
  }

  expect_failures = [var.name]
}

run "inventory_names_every_machine" {
  command = apply

  assert {
    condition     = keys(yamldecode(output.inventory).all.hosts) == keys(local.table.machines)
    error_message = "the Ansible inventory misses a machine"
  }
  assert {
    condition     = yamldecode(output.inventory).all.vars.admin_cidr == "198.51.100.10/32"
    error_message = "Ansible would open the firewall for somebody else"
  }
}
