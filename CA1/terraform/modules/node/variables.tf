variable "name" {
  description = "Name of the machine."
  type        = string
}

variable "ami_id" {
  description = "Image."
  type        = string
}

variable "instance_type" {
  description = "AWS instance type."
  type        = string
}

variable "subnet_id" {
  description = "Subnet."
  type        = string
}

variable "private_ip" {
  description = "Fixed address inside the subnet."
  type        = string
}

variable "security_group_id" {
  description = "The one security group of this machine."
  type        = string
}

variable "key_name" {
  description = "Key pair of the administrator."
  type        = string
}

variable "disk_gb" {
  description = "Root volume in GiB."
  type        = number
}
