# CA0's four machines by code. Addresses, sizes, ports and the reason for each: deploy/flows.yaml, the same table that the
# machines' UFW rules come from.

provider "aws" {
  region      = var.region
  max_retries = 3

  default_tags {
    tags = {
      Project   = var.name
      ManagedBy = "terraform"
      Stage     = "CA1"
    }
  }

  # Only the tests set aws_endpoint (a mock of AWS on this machine); null leaves the real path untouched.
  access_key                  = var.aws_endpoint == null ? null : "test"
  secret_key                  = var.aws_endpoint == null ? null : "test"
  skip_credentials_validation = var.aws_endpoint != null
  skip_metadata_api_check     = var.aws_endpoint != null

  dynamic "endpoints" {
    for_each = var.aws_endpoint == null ? [] : [var.aws_endpoint]
    content {
      ec2 = endpoints.value
      iam = endpoints.value
      sts = endpoints.value
    }
  }
}

locals {
  table = yamldecode(file("${path.module}/../../deploy/flows.yaml"))
}

module "network" {
  source = "./modules/network"

  name              = var.name
  vpc_cidr          = local.table.network.vpc_cidr
  subnet_cidr       = local.table.network.subnet_cidr
  availability_zone = var.availability_zone
  admin_cidr        = var.my_ip_cidr
  machines          = local.table.machines
  flows             = local.table.flows
  egress            = local.table.egress
}

resource "aws_key_pair" "admin" {
  key_name   = "${var.name}-admin"
  public_key = trimspace(file(pathexpand(var.ssh_public_key_file)))
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

module "node" {
  source   = "./modules/node"
  for_each = local.table.machines

  name              = "${var.name}-${each.key}"
  ami_id            = coalesce(var.ami_id, one(data.aws_ami.ubuntu[*].id))
  instance_type     = lookup(var.instance_types, each.key, each.value.size)
  subnet_id         = module.network.subnet_id
  private_ip        = each.value.ip
  security_group_id = module.network.security_group_ids[each.key]
  key_name          = aws_key_pair.admin.key_name
  disk_gb           = each.value.disk_gb
}
