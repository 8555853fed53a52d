# Security groups: the flow table and nothing else.

mock_provider "aws" {}

run "one_rule_per_flow" {
  command = apply

  module {
    source = "./modules/network"
  }

  variables {
    name              = "test"
    vpc_cidr          = "10.0.0.0/16"
    subnet_cidr       = "10.0.1.0/24"
    availability_zone = null
    admin_cidr        = "198.51.100.10/32"
    machines          = yamldecode(file("../../deploy/flows.yaml")).machines
    flows             = yamldecode(file("../../deploy/flows.yaml")).flows
    egress            = yamldecode(file("../../deploy/flows.yaml")).egress
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.flow) == length(var.flows)
    error_message = "there is an inbound rule without a flow, or a flow without a rule"
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.flow : rule.cidr_ipv4 == null || rule.cidr_ipv4 == var.admin_cidr])
    error_message = "an inbound rule is open for more than the administrator's address"
  }
  assert {
    condition     = alltrue([for name, rule in aws_vpc_security_group_ingress_rule.flow : (rule.cidr_ipv4 == null) == (rule.referenced_security_group_id != null)])
    error_message = "a rule needs exactly one source"
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.flow : rule.from_port == rule.to_port && rule.ip_protocol == "tcp"])
    error_message = "a rule opens a range of ports"
  }
  assert {
    condition     = length([for rule in aws_vpc_security_group_egress_rule.internet : rule if !contains([80, 443], rule.from_port)]) == 0
    error_message = "a machine may open more than 80 and 443 on the internet"
  }
}
