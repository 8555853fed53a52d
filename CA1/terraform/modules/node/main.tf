# One machine: fixed private address, encrypted disk, session-bound metadata (IMDSv2), no role.

resource "aws_instance" "this" {
  ami                         = var.ami_id
  instance_type               = var.instance_type
  subnet_id                   = var.subnet_id
  private_ip                  = var.private_ip
  vpc_security_group_ids      = [var.security_group_id]
  key_name                    = var.key_name
  associate_public_ip_address = true

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required" # IMDSv2 only
    http_put_response_hop_limit = 1          # not for containers
  }

  root_block_device {
    volume_type           = "gp3"
    volume_size           = var.disk_gb
    encrypted             = true
    delete_on_termination = true
    tags                  = { Name = var.name }
  }

  tags = { Name = var.name }

  lifecycle {
    # A newer image must not replace a machine that holds data: raise ami_id by hand, one machine at a time.
    ignore_changes = [ami]
  }
}
