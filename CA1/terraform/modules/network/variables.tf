variable "name" {
  description = "Prefix of every resource's name."
  type        = string
}

variable "vpc_cidr" {
  description = "Addresses of the VPC."
  type        = string
}

variable "subnet_cidr" {
  description = "Addresses of the subnet, part of vpc_cidr."
  type        = string
}

variable "availability_zone" {
  description = "Zone of the subnet; null lets AWS choose."
  type        = string
}

variable "admin_cidr" {
  description = "The address range that the flow table calls `admin`."
  type        = string
}

variable "machines" {
  description = "The flow table's machines by name."
  type = map(object({
    ip             = string
    size           = string
    disk_gb        = number
    security_group = string
    runs           = string
  }))
}

variable "flows" {
  description = "The flow table's flows: TCP from a machine, or from `admin`, to a port of a machine."
  type = list(object({
    from = string
    to   = string
    port = number
    why  = string
  }))
}

variable "egress" {
  description = "TCP ports that every machine may open on the internet."
  type = list(object({
    port = number
    why  = string
  }))
}
