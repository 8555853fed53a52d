output "subnet_id" {
  description = "The subnet of all machines."
  value       = aws_subnet.this.id
}

output "security_group_ids" {
  description = "Security group of each machine."
  value       = { for name, group in aws_security_group.machine : name => group.id }
}
