output "api_url" {
  description = "The API's address."
  value       = module.astra_edge.api_url
}

output "domain_target" {
  description = "What the domain's DNS record is to point to."
  value       = module.astra_edge.domain_target
}
