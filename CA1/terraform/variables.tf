variable "name" {
  description = "Prefix of every resource's name."
  type        = string
  default     = "gpu-tokens"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "name is 2 to 31 lower-case letters, digits and dashes, and begins with a letter."
  }
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "eu-central-1"
}

variable "availability_zone" {
  description = "Zone of the subnet; null lets AWS choose."
  type        = string
  default     = null
}

variable "my_ip_cidr" {
  description = "Your own address: the only one that SSH and the ports 8080 and 8081 of vm3 are opened for, such as 198.51.100.10/32."
  type        = string

  validation {
    condition     = can(cidrnetmask(var.my_ip_cidr)) && try(tonumber(split("/", var.my_ip_cidr)[1]), 0) >= 24
    error_message = "my_ip_cidr is an IPv4 range of at most 256 addresses, such as 198.51.100.10/32; never 0.0.0.0/0."
  }
}

variable "ssh_public_key_file" {
  description = "Your public SSH key; password logins do not exist."
  type        = string
  default     = "~/.ssh/id_ed25519.pub"
}

variable "ami_id" {
  description = "Image of the machines; null takes Canonical's newest Ubuntu 24.04 LTS. Pin it once you run: see README."
  type        = string
  default     = null
}

variable "instance_types" {
  description = "Other instance types than the flow table's, by machine, such as {vm1-kafka = \"m7i.large\"}."
  type        = map(string)
  default     = {}
}

variable "connect_privately" {
  description = "Reach the machines at their private addresses: for operators inside the VPC or behind a VPN into it."
  type        = bool
  default     = false
}

variable "aws_endpoint" {
  description = "Tests only: address of a mock of AWS."
  type        = string
  default     = null
}
