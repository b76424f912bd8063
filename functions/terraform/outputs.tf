output "api_url" {
  description = "The API's address, without a slash at its end. Routes are appended to it."
  value       = var.domain == null ? aws_api_gateway_stage.this.invoke_url : "https://${var.domain.name}"
}

output "domain_target" {
  description = "With var.domain: what the domain's DNS record (an alias or CNAME) is to point to. null without."
  value = var.domain == null ? null : {
    name           = aws_api_gateway_domain_name.this[0].regional_domain_name
    hosted_zone_id = aws_api_gateway_domain_name.this[0].regional_zone_id
  }
}

output "function_names" {
  description = "The Lambda functions' names, by function."
  value       = { for name, function in aws_lambda_function.this : name => function.function_name }
}

output "role_arns" {
  description = "The functions' roles, by function: for key policies, say."
  value       = { for name, role in aws_iam_role.this : name => role.arn }
}

output "log_groups" {
  description = "The functions' log groups, by function."
  value       = { for name, group in aws_cloudwatch_log_group.this : name => group.name }
}

output "turns_queue_url" {
  description = "The queue of workspaces with stale holds."
  value       = aws_sqs_queue.turns.url
}

output "dead_letter_queue_url" {
  description = "The queue of what could not be done."
  value       = aws_sqs_queue.turns_dead_letter.url
}
