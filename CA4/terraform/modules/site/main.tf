# One site: a VPC with one subnet, one host, and a security group that lets in the other sites' hosts on the gateway's port, and the
# administrator. Groups cannot be named across regions, so the rules name addresses.

resource "aws_vpc" "this" {
  cidr_block           = var.site.vpc_cidr
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
  cidr_block              = var.site.subnet_cidr
  map_public_ip_on_launch = false # the host says for itself
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

resource "aws_security_group" "host" {
  name        = "${var.name}-host"
  description = var.site.runs
  vpc_id      = aws_vpc.this.id
  tags        = { Name = "${var.name}-host" }
}

resource "aws_vpc_security_group_ingress_rule" "mesh" {
  for_each = var.callers

  security_group_id = aws_security_group.host.id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = var.gateway_port
  to_port           = var.gateway_port
  description       = "mesh: the host of site ${each.key}"
}

resource "aws_vpc_security_group_egress_rule" "mesh" {
  for_each = var.peers

  security_group_id = aws_security_group.host.id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = var.gateway_port
  to_port           = var.gateway_port
  description       = "mesh: to the host of site ${each.key}"
}

resource "aws_vpc_security_group_ingress_rule" "admin" {
  for_each = { for entry in var.admin_ports : entry.port => entry.why }

  security_group_id = aws_security_group.host.id
  cidr_ipv4         = var.admin_cidr
  ip_protocol       = "tcp"
  from_port         = each.key
  to_port           = each.key
  description       = each.value
}

resource "aws_vpc_security_group_egress_rule" "internet" {
  for_each = { for entry in var.egress : entry.port => entry.why }

  security_group_id = aws_security_group.host.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = each.key
  to_port           = each.key
  description       = each.value
}

resource "aws_key_pair" "admin" {
  key_name   = "${var.name}-admin"
  public_key = var.public_key
}

# Ubuntu 24.04 LTS from Canonical's own account. Looked up only when no ami_id is given.
data "aws_ami" "ubuntu" {
  count       = var.ami_id == null ? 1 : 0
  most_recent = true
  owners      = ["099720109477"]

  filter {
    name   = "name"
    values = ["ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"]
  }
}

# CA1's machine: fixed private address, IMDSv2 only, encrypted disk, no role.
module "host" {
  source = "../../../../CA1/terraform/modules/node"

  name              = "${var.name}-host"
  ami_id            = var.ami_id != null ? var.ami_id : one(data.aws_ami.ubuntu[*].id)
  instance_type     = var.site.size
  subnet_id         = aws_subnet.this.id
  private_ip        = var.site.host_ip
  security_group_id = aws_security_group.host.id
  key_name          = aws_key_pair.admin.key_name
  disk_gb           = var.site.disk_gb
}
