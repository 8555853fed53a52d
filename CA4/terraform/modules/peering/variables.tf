variable "name" {
  description = "Name of the connection."
  type        = string
}

variable "requester" {
  description = "The site that asks."
  type        = object({ vpc_id = string, cidr = string, route_table_id = string, region = string })
}

variable "accepter" {
  description = "The site that accepts."
  type        = object({ vpc_id = string, cidr = string, route_table_id = string, region = string })
}
