output "api_url" {
  description = "The API's address."
  value       = module.astra_edge.api_url
}

output "domain_target" {
  description = "What the domain's DNS record is to point to."
  value       = module.astra_edge.domain_target
}

output "database_endpoint" {
  description = "Where migrations go: the database itself, past the proxy."
  value       = aws_db_instance.this.endpoint
}

output "migrator_secret_arn" {
  description = "The secret with the migrator's user name and password, which RDS keeps."
  value       = one(aws_db_instance.this.master_user_secret[*].secret_arn)
}
