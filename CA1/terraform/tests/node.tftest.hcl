# A machine's own security.

mock_provider "aws" {}

run "hardened" {
  command = plan

  module {
    source = "./modules/node"
  }

  variables {
    name              = "test"
    ami_id            = "ami-0123456789abcdef0"
    instance_type     = "t3.large"
    subnet_id         = "subnet-0"
    private_ip        = "10.0.1.11"
    security_group_id = "sg-0"
    key_name          = "test"
    disk_gb           = 30
  }

  assert {
    condition     = aws_instance.this.metadata_options[0].http_tokens == "required" && aws_instance.this.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "metadata must be IMDSv2 only, and out of the containers' reach"
  }
  assert {
    condition     = aws_instance.this.root_block_device[0].encrypted
    error_message = "the disk must be encrypted"
  }
}
