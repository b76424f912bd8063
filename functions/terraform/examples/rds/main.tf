# astra-edge over RDS for PostgreSQL, with RDS Proxy as the pooler, in a VPC that is there already.
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

  database_urls = {
    provision   = "${aws_secretsmanager_secret.role["astra_provision"].arn}#url"
    invoke-turn = "${aws_secretsmanager_secret.role["astra_invoke"].arn}#url"
    billing     = "${aws_secretsmanager_secret.role["astra_billing"].arn}#url"
    grants      = "${aws_secretsmanager_secret.role["astra_grants"].arn}#url"
    memory      = "${aws_secretsmanager_secret.role["astra_memory"].arn}#url"
    quota       = "${aws_secretsmanager_secret.role["astra_quota"].arn}#url"
  }
  secrets = merge(
    { for name, secret in aws_secretsmanager_secret.key : name => secret.arn },
    var.provider_keys,
  )
  settings = merge({ DATABASE_POOL_SIZE = "2" }, var.settings)

  functions = var.functions
  vpc       = { subnet_ids = var.private_subnet_ids, security_group_ids = [aws_security_group.functions.id] }

  domain           = var.domain
  alarm_topic_arns = var.alarm_topic_arns
}

locals {
  # As the migrations make them: one per function, and the counter's.
  roles    = toset(["astra_provision", "astra_invoke", "astra_billing", "astra_grants", "astra_memory", "astra_quota"])
  database = "astra"
}

# One secret per role, for two readers: the proxy takes username and password, the function url.
resource "aws_secretsmanager_secret" "role" {
  for_each = local.roles

  name        = "${var.name}/${each.key}"
  description = "astra-edge: how ${each.key} logs in to Postgres"
}

resource "aws_secretsmanager_secret_version" "role" {
  for_each = local.roles

  secret_id = aws_secretsmanager_secret.role[each.key].id
  secret_string_wo = jsonencode({
    username = each.key
    password = var.role_password
    url      = "postgres://${each.key}:${urlencode(var.role_password)}@${aws_db_proxy.this.endpoint}:5432/${local.database}?sslmode=require"
  })
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
