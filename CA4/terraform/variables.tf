variable "name" {
  description = "Prefix of every resource's name."
  type        = string
  default     = "gpu-tokens"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "name is 2 to 31 lower-case letters, digits and dashes, and begins with a letter."
  }
}

variable "my_ip_cidr" {
  description = "Your own address: the only one that SSH is opened for, such as 198.51.100.10/32."
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

variable "ami_ids" {
  description = "Image of each site's host by site, such as {a = \"ami-...\"}; a site without one takes Canonical's newest Ubuntu 24.04 LTS."
  type        = map(string)
  default     = {}
}

variable "aws_endpoint" {
  description = "Tests only: address of a mock of AWS."
  type        = string
  default     = null
}
