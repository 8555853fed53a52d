output "network" {
  description = "What a peering needs to know of this site."
  value = {
    vpc_id         = aws_vpc.this.id
    cidr           = aws_vpc.this.cidr_block
    route_table_id = aws_route_table.this.id
    region         = data.aws_region.here.name
  }
}

output "addresses" {
  description = "Public and private address of the host."
  value       = { public = module.host.public_ip, private = module.host.private_ip }
}

data "aws_region" "here" {}
