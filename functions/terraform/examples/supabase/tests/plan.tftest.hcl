mock_provider "aws" {
  source = "../../tests/mock"
}

variables {
  packages      = "../../tests/packages"
  region        = "eu-central-1"
  role_password = "not-a-password-but-long-enough"
  token_keys    = "k1:not-a-secret"
  secrets_key   = "k1:not-a-secret"
  receipt_keys  = "k1:not-a-secret"
  project_ref   = "abcdefghijklmnopqrst"
  pooler_host   = "aws-0-eu-central-1.pooler.supabase.com"
  authority_zip = "../../tests/packages/provision/bootstrap.zip"
}

run "a_url_per_role" {
  command = apply

  assert {
    condition     = toset([for secret in aws_secretsmanager_secret.database_url : secret.name]) == toset(["astra-edge/astra_provision", "astra-edge/astra_invoke", "astra-edge/astra_billing", "astra-edge/astra_grants", "astra-edge/astra_memory", "astra-edge/astra_quota"])
    error_message = "Each role has an address of its own."
  }

  assert {
    condition     = alltrue([for version in merge(aws_secretsmanager_secret_version.database_url, aws_secretsmanager_secret_version.key) : version.secret_string == null || version.secret_string == ""])
    error_message = "A secret is in the state."
  }
}

run "says_what_to_download" {
  command = plan

  variables {
    authority_zip = "nowhere.zip"
  }

  expect_failures = [aws_lambda_layer_version.authority]
}
