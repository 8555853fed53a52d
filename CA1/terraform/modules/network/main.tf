# One VPC, one public subnet, one security group per machine, and one rule per flow in each direction.

resource "aws_vpc" "this" {
  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = var.name }
}

# The VPC's default group loses all its rules, so that a machine put there by accident can do nothing.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.name}-default-closed" }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = var.name }
}

resource "aws_subnet" "this" {
  vpc_id                  = aws_vpc.this.id
  cidr_block              = var.subnet_cidr
  availability_zone       = var.availability_zone
  map_public_ip_on_launch = false # each node says for itself
  tags                    = { Name = var.name }
}

resource "aws_route_table" "this" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = var.name }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.this.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "this" {
  subnet_id      = aws_subnet.this.id
  route_table_id = aws_route_table.this.id
}

resource "aws_security_group" "machine" {
  for_each = var.machines

  name        = "${var.name}-${each.value.security_group}"
  description = "${each.key}: ${each.value.runs}"
  vpc_id      = aws_vpc.this.id
  tags        = { Name = "${var.name}-${each.value.security_group}" }
}

locals {
  flows       = { for flow in var.flows : "${flow.from}-to-${flow.to}-${flow.port}" => flow }
  inner_flows = { for name, flow in local.flows : name => flow if flow.from != "admin" }
  egress      = { for pair in setproduct(keys(var.machines), var.egress) : "${pair[0]}-${pair[1].port}" => { machine = pair[0], port = pair[1].port, why = pair[1].why } }
}

resource "aws_vpc_security_group_ingress_rule" "flow" {
  for_each = local.flows

  security_group_id            = aws_security_group.machine[each.value.to].id
  referenced_security_group_id = each.value.from == "admin" ? null : aws_security_group.machine[each.value.from].id
  cidr_ipv4                    = each.value.from == "admin" ? var.admin_cidr : null
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = "${each.value.from}: ${each.value.why}"
}

resource "aws_vpc_security_group_egress_rule" "flow" {
  for_each = local.inner_flows

  security_group_id            = aws_security_group.machine[each.value.from].id
  referenced_security_group_id = aws_security_group.machine[each.value.to].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = "to ${each.value.to}: ${each.value.why}"
}

resource "aws_vpc_security_group_egress_rule" "internet" {
  for_each = local.egress

  security_group_id = aws_security_group.machine[each.value.machine].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  description       = each.value.why
}
