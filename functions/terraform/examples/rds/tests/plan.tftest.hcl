mock_provider "aws" {
  source = "../../tests/mock"
}

variables {
  packages           = "../../tests/packages"
  region             = "eu-central-1"
  role_password      = "not-a-password-but-long-enough"
  token_keys         = "k1:not-a-secret"
  secrets_key        = "k1:not-a-secret"
  receipt_keys       = "k1:not-a-secret"
  vpc_id             = "vpc-1"
  private_subnet_ids = ["subnet-1", "subnet-2"]
}

run "one_proxy_six_roles" {
  command = apply

  assert {
    condition     = aws_db_proxy.this.require_tls && toset(keys(aws_secretsmanager_secret.role)) == toset(["astra_provision", "astra_invoke", "astra_billing", "astra_grants", "astra_memory", "astra_quota"])
    error_message = "Each role has a secret of its own, and the proxy takes no connection without TLS."
  }

  assert {
    condition     = alltrue([for version in merge(aws_secretsmanager_secret_version.role, aws_secretsmanager_secret_version.key) : version.secret_string == null || version.secret_string == ""])
    error_message = "A secret is in the state."
  }

  assert {
    condition     = length(module.astra_edge.function_names) == 5 && output.api_url != ""
    error_message = "The functions are not there."
  }
}
