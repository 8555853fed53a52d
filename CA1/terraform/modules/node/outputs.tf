output "id" {
  description = "Instance id."
  value       = aws_instance.this.id
}

output "private_ip" {
  description = "Address inside the subnet."
  value       = aws_instance.this.private_ip
}

output "public_ip" {
  description = "Address on the internet; another one after a stop and start."
  value       = aws_instance.this.public_ip
}
