# What would be built, without any cloud: terraform test

mock_provider "aws" {
  alias = "a"
}
mock_provider "aws" {
  alias = "b"
}
mock_provider "aws" {
  alias = "c"
}

variables {
  my_ip_cidr          = "198.51.100.10/32"
  ssh_public_key_file = "tests/id_test.pub"
  ami_ids             = { a = "ami-0123456789abcdef0", b = "ami-0123456789abcdef0", c = "ami-0123456789abcdef0" }
}

run "callers_as_in_the_table" {
  command = plan

  assert {
    condition     = local.callers.a == { b = "10.72.0.10/32", c = "10.73.0.10/32" }
    error_message = "site A is open for other hosts than those that call it"
  }
  assert {
    condition     = local.callers.c == { a = "10.71.0.10/32", b = "10.72.0.10/32" }
    error_message = "site C is open for other hosts than those that call it"
  }
}

run "no_ssh_for_the_world" {
  command = plan

  variables {
    my_ip_cidr = "0.0.0.0/0"
  }

  expect_failures = [var.my_ip_cidr]
}

run "names_are_checked" {
  command = plan

  variables {
    name = "Not A Name"
  }

  expect_failures = [var.name]
}
