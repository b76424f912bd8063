# astra-edge over Supabase's Postgres, through its pooler in transaction mode (port 6543). No VPC: the pooler has a public address.
#
# Secrets come in as ephemeral variables and go to Secrets Manager as write-only arguments: neither the state nor a plan has them.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # The state is of all who deploy: keep it in a bucket.
  # backend "s3" {}
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { Project = var.name }
  }
}

module "astra_edge" {
  source = "../.."

  name     = var.name
  packages = var.packages

  database_urls = { for function, role in local.roles : function => aws_secretsmanager_secret.database_url[function].arn }
  secrets = merge(
    { for name, secret in aws_secretsmanager_secret.key : name => secret.arn },
    var.provider_keys,
  )
  settings = merge(
    { DATABASE_POOL_SIZE = "2", PGSSLROOTCERT = "/opt/${var.authority_file}" },
    var.settings,
  )
  layer_arns = [aws_lambda_layer_version.authority.arn]

  functions = var.functions

  domain           = var.domain
  alarm_topic_arns = var.alarm_topic_arns
}

locals {
  # As the migrations make them.
  roles = { provision = "astra_provision", invoke-turn = "astra_invoke", billing = "astra_billing", grants = "astra_grants", memory = "astra_memory", quota = "astra_quota" }
}

# Supabase's certificates are of its own authority: its file is unpacked to /opt.
resource "aws_lambda_layer_version" "authority" {
  layer_name               = "${var.name}-authority"
  description              = "The certificate of Supabase's authority"
  filename                 = var.authority_zip
  source_code_hash         = try(filebase64sha256(var.authority_zip), null)
  compatible_runtimes      = ["provided.al2023"]
  compatible_architectures = ["arm64", "x86_64"]

  lifecycle {
    precondition {
      condition     = fileexists(var.authority_zip)
      error_message = "${var.authority_zip} is missing. Download the certificate from the project's database settings, and zip it."
    }
  }
}

resource "aws_secretsmanager_secret" "database_url" {
  for_each = local.roles

  name        = "${var.name}/${each.value}"
  description = "astra-edge: DATABASE_URL of ${each.value}"
}

resource "aws_secretsmanager_secret_version" "database_url" {
  for_each = local.roles

  secret_id = aws_secretsmanager_secret.database_url[each.key].id
  # The pooler knows a project's users as ROLE.PROJECT.
  secret_string_wo         = "postgres://${each.value}.${var.project_ref}:${urlencode(var.role_password)}@${var.pooler_host}:6543/postgres?sslmode=require"
  secret_string_wo_version = var.secrets_version
}

locals {
  keys = toset(["TOKEN_KEYS", "TENANT_KEYS", "SECRETS_KEY", "RECEIPT_KEYS"])
}

resource "aws_secretsmanager_secret" "key" {
  for_each = local.keys

  name        = "${var.name}/${lower(replace(each.key, "_", "-"))}"
  description = "astra-edge: ${each.key}"
}

resource "aws_secretsmanager_secret_version" "key" {
  for_each = local.keys

  secret_id = aws_secretsmanager_secret.key[each.key].id
  secret_string_wo = {
    TOKEN_KEYS = var.token_keys, TENANT_KEYS = var.tenant_keys, SECRETS_KEY = var.secrets_key, RECEIPT_KEYS = var.receipt_keys
  }[each.key]
  secret_string_wo_version = var.secrets_version
}
