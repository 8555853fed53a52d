variable "name" {
  description = "Prefix of the site's resources."
  type        = string
}

variable "site" {
  description = "The site as sites.yaml has it."
  type = object({
    vpc_cidr    = string
    subnet_cidr = string
    host_ip     = string
    size        = string
    disk_gb     = number
    runs        = string
  })
}

variable "gateway_port" {
  description = "The one port that sites open for each other."
  type        = number
}

variable "callers" {
  description = "Addresses of the hosts that call this site, by site."
  type        = map(string)
}

variable "peers" {
  description = "Addresses of the hosts that this site calls, by site."
  type        = map(string)
}

variable "admin_cidr" {
  description = "The administrator's address range."
  type        = string
}

variable "admin_ports" {
  description = "What the administrator may open."
  type        = list(object({ port = number, why = string }))
}

variable "egress" {
  description = "TCP ports that the host may open on the internet."
  type        = list(object({ port = number, why = string }))
}

variable "public_key" {
  description = "The administrator's public SSH key."
  type        = string
}

variable "ami_id" {
  description = "Image; null looks Canonical's newest up."
  type        = string
}
