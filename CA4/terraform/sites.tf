# Written by `make sites-files` from deploy/sites.yaml: change it there.
provider "aws" {
  alias       = "a"
  region      = local.table.sites.a.region
  max_retries = 3

  default_tags {
    tags = merge(local.tags, { Site = "a" })
  }

  # Only tests set aws_endpoint (a mock of AWS on this machine); null leaves the real path as it is.
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

module "site_a" {
  source    = "./modules/site"
  providers = { aws = aws.a }

  name         = "${var.name}-a"
  site         = local.table.sites.a
  gateway_port = local.table.mesh.gateway_port
  callers      = local.callers.a
  peers        = local.peers.a
  admin_cidr   = var.my_ip_cidr
  admin_ports  = local.table.admin_ports
  egress       = local.table.egress
  public_key   = local.public_key
  ami_id       = lookup(var.ami_ids, "a", null)
}

provider "aws" {
  alias       = "b"
  region      = local.table.sites.b.region
  max_retries = 3

  default_tags {
    tags = merge(local.tags, { Site = "b" })
  }

  # Only tests set aws_endpoint (a mock of AWS on this machine); null leaves the real path as it is.
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

module "site_b" {
  source    = "./modules/site"
  providers = { aws = aws.b }

  name         = "${var.name}-b"
  site         = local.table.sites.b
  gateway_port = local.table.mesh.gateway_port
  callers      = local.callers.b
  peers        = local.peers.b
  admin_cidr   = var.my_ip_cidr
  admin_ports  = local.table.admin_ports
  egress       = local.table.egress
  public_key   = local.public_key
  ami_id       = lookup(var.ami_ids, "b", null)
}

provider "aws" {
  alias       = "c"
  region      = local.table.sites.c.region
  max_retries = 3

  default_tags {
    tags = merge(local.tags, { Site = "c" })
  }

  # Only tests set aws_endpoint (a mock of AWS on this machine); null leaves the real path as it is.
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

module "site_c" {
  source    = "./modules/site"
  providers = { aws = aws.c }

  name         = "${var.name}-c"
  site         = local.table.sites.c
  gateway_port = local.table.mesh.gateway_port
  callers      = local.callers.c
  peers        = local.peers.c
  admin_cidr   = var.my_ip_cidr
  admin_ports  = local.table.admin_ports
  egress       = local.table.egress
  public_key   = local.public_key
  ami_id       = lookup(var.ami_ids, "c", null)
}

module "peering_a_b" {
  source    = "./modules/peering"
  providers = { aws.requester = aws.a, aws.accepter = aws.b }

  name      = "${var.name}-a-b"
  requester = module.site_a.network
  accepter  = module.site_b.network
}

module "peering_a_c" {
  source    = "./modules/peering"
  providers = { aws.requester = aws.a, aws.accepter = aws.c }

  name      = "${var.name}-a-c"
  requester = module.site_a.network
  accepter  = module.site_c.network
}

module "peering_b_c" {
  source    = "./modules/peering"
  providers = { aws.requester = aws.b, aws.accepter = aws.c }

  name      = "${var.name}-b-c"
  requester = module.site_b.network
  accepter  = module.site_c.network
}

output "addresses" {
  description = "Public and private address of each site's host."
  value = {
    a = module.site_a.addresses
    b = module.site_b.addresses
    c = module.site_c.addresses
  }
}
