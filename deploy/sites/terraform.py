"""CA4/terraform/sites.tf: a provider and a module per site, a peering per pair of sites that call
each other.

Terraform cannot loop over providers, and a region is a provider. What a module gets, Terraform
reads from sites.yaml itself.
"""

from __future__ import annotations

from itertools import combinations

from deploy.sites.table import SiteTable

_PROVIDER = """\
provider "aws" {{
  alias       = "{name}"
  region      = local.table.sites.{name}.region
  max_retries = 3

  default_tags {{
    tags = merge(local.tags, {{ Site = "{name}" }})
  }}

  # Only tests set aws_endpoint (a mock of AWS on this machine); null leaves the real path as it is.
  access_key                  = var.aws_endpoint == null ? null : "test"
  secret_key                  = var.aws_endpoint == null ? null : "test"
  skip_credentials_validation = var.aws_endpoint != null
  skip_metadata_api_check     = var.aws_endpoint != null

  dynamic "endpoints" {{
    for_each = var.aws_endpoint == null ? [] : [var.aws_endpoint]
    content {{
      ec2 = endpoints.value
      iam = endpoints.value
      sts = endpoints.value
    }}
  }}
}}

module "site_{name}" {{
  source    = "./modules/site"
  providers = {{ aws = aws.{name} }}

  name         = "${{var.name}}-{name}"
  site         = local.table.sites.{name}
  gateway_port = local.table.mesh.gateway_port
  callers      = local.callers.{name}
  peers        = local.peers.{name}
  admin_cidr   = var.my_ip_cidr
  admin_ports  = local.table.admin_ports
  egress       = local.table.egress
  public_key   = local.public_key
  ami_id       = lookup(var.ami_ids, "{name}", null)
}}
"""

_PEERING = """\
module "peering_{one}_{other}" {{
  source    = "./modules/peering"
  providers = {{ aws.requester = aws.{one}, aws.accepter = aws.{other} }}

  name      = "${{var.name}}-{one}-{other}"
  requester = module.site_{one}.network
  accepter  = module.site_{other}.network
}}
"""


def configuration(table: SiteTable) -> str:
    """The whole file."""
    pairs = [
        _PEERING.format(one=one, other=other)
        for one, other in combinations(table.sites, 2)
        if any({c.source, table.services[c.service].site} == {one, other} for c in table.calls)
    ]
    outputs = "".join(f"    {name} = module.site_{name}.addresses\n" for name in table.sites)
    addresses = (
        'output "addresses" {\n  description = "Public and private address of each site\'s '
        'host."\n  value = {\n'
        f"{outputs}  }}\n}}\n"
    )
    return "\n".join([*(_PROVIDER.format(name=name) for name in table.sites), *pairs, addresses])
