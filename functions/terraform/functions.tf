# The functions. A new one is one entry here and one in var.database_urls; its routes, role, secrets, log and alarms follow.
#
#   paths     its routes: each of these exactly
#   prefixes  its routes: each of these, and all below it. tests/api.tftest.hcl compares both with functions/NAME/src/routes.rs
#   stream    the answer is sent on as it is written: by the API, and by the program, which streams all its answers then
#   timeout   seconds, unless var.functions says otherwise
#   secrets   what it reads of var.secrets, and so may read in AWS
#   settings  what it reads of var.settings
locals {
  functions = {
    provision = {
      paths = ["/workspaces", "/workspaces/{workspaceId}"]
      prefixes = [
        "/workspaces/{workspaceId}/export",
        "/workspaces/{workspaceId}/members",
        "/workspaces/{workspaceId}/tokens",
        "/workspaces/{workspaceId}/secrets",
        "/workspaces/{workspaceId}/agents",
        "/plans/{plan}",
      ]
      stream   = false
      timeout  = 30
      secrets  = ["TOKEN_KEYS", "TENANT_KEYS", "SECRETS_KEY"]
      settings = []
    }
    invoke-turn = {
      paths = []
      prefixes = [
        "/workspaces/{workspaceId}/turns",
        "/workspaces/{workspaceId}/sessions",
        "/workspaces/{workspaceId}/smoke-test",
      ]
      stream  = true
      timeout = 300
      secrets = ["TOKEN_KEYS", "TENANT_KEYS", "SECRETS_KEY", "RECEIPT_KEYS", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "TYPESENSE_SEARCH_KEY"]
      settings = [
        "DEFAULT_MODEL", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "MODEL_TIMEOUT_SECONDS", "HOLD_LEASE_SECONDS",
        "TYPESENSE_URL", "TYPESENSE_PREFIX",
      ]
    }
    billing = {
      paths = ["/.well-known/jwks.json"]
      prefixes = [
        "/billing",
        "/workspaces/{workspaceId}/usage",
        "/workspaces/{workspaceId}/quota",
        "/workspaces/{workspaceId}/ledger",
        "/workspaces/{workspaceId}/receipts",
        "/workspaces/{workspaceId}/webhooks",
        "/workspaces/{workspaceId}/invoices",
      ]
      stream = false
      # Scheduled jobs go on for 25 seconds, and the last step to its end.
      timeout = 60
      secrets = ["TOKEN_KEYS", "TENANT_KEYS", "SECRETS_KEY", "RECEIPT_KEYS", "STRIPE_API_KEY"]
      settings = [
        "OUTGOING_HOSTS", "STRIPE_METER_EVENT", "STRIPE_METER_VALUE", "INVOICE_FROM", "INVOICE_LOGO", "INVOICE_PREFIX", "INVOICE_GRACE_HOURS",
      ]
    }
    grants = {
      paths = []
      prefixes = [
        "/workspaces/{workspaceId}/roles",
        "/workspaces/{workspaceId}/authorize",
        "/workspaces/{workspaceId}/grants",
        "/workspaces/{workspaceId}/audit",
      ]
      stream   = false
      timeout  = 30
      secrets  = ["TOKEN_KEYS", "TENANT_KEYS"]
      settings = []
    }
    memory = {
      paths = []
      prefixes = [
        "/workspaces/{workspaceId}/memories",
        "/workspaces/{workspaceId}/documents",
        "/workspaces/{workspaceId}/memory",
        "/workspaces/{workspaceId}/users",
      ]
      stream = false
      # Jobs go on after the answer.
      timeout  = 120
      secrets  = ["TOKEN_KEYS", "TENANT_KEYS", "SECRETS_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "TYPESENSE_API_KEY", "TYPESENSE_SEARCH_KEY"]
      settings = ["DEFAULT_MODEL", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "EXTRACTION", "TYPESENSE_URL", "TYPESENSE_COLLECTIONS", "TYPESENSE_PREFIX"]
    }
  }

  # Answers what no other function does: /openapi.json, /healthz, and a problem for all else.
  catch_all = "provision"

  settings_of_all = ["ALLOWED_ORIGINS", "DATABASE_POOL_SIZE", "PGSSLROOTCERT", "TOKEN_ISSUERS"]

  known_secrets  = toset(flatten([for function in local.functions : function.secrets]))
  known_settings = toset(flatten([local.settings_of_all, [for function in local.functions : function.settings]]))

  full_name = { for name in keys(local.functions) : name => "${var.name}-${name}" }
  timeout   = { for name, function in local.functions : name => coalesce(try(var.functions[name].timeout_seconds, null), function.timeout) }

  # Said, not asked of the resource: a role's policy names its function, and the function needs its role first.
  function_arn = {
    for name, full_name in local.full_name :
    name => "arn:${local.partition}:lambda:${local.region}:${local.account}:function:${full_name}"
  }
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.name
  account   = data.aws_caller_identity.current.account_id

  package = { for name in keys(local.functions) : name => "${local.packages}/${name}/bootstrap.zip" }
  # As scripts/build-lambda names them.
  packages = coalesce(var.packages, "${path.module}/../../target/lambda")

  # What a function is to read its secrets from: {function: {NAME: address}}. Every function logs in to Postgres as a role of its own;
  # the counter's rows are reached as the quota function's role.
  secrets = {
    for name, function in local.functions : name => merge(
      { for secret, address in var.secrets : secret => address if contains(function.secrets, secret) },
      { DATABASE_URL = var.database_urls[name], DATABASE_URL_QUOTA = var.database_urls["quota"] },
    )
  }

  # {function: {NAME_SECRET_ARN or NAME_SSM_PARAMETER: address}}. The function reads the value when it starts; Lambda's configuration never has it.
  secret_variables = {
    for name, secrets in local.secrets : name => {
      for secret, address in secrets :
      (split(":", address)[2] == "ssm" ? "${secret}_SSM_PARAMETER" : "${secret}_SECRET_ARN") => address
    }
  }

  variables = {
    for name, function in local.functions : name => merge(
      { for setting, value in var.settings : setting => value if contains(concat(local.settings_of_all, function.settings), setting) },
      local.secret_variables[name],
      # What the API says of its integration, the program has to do (functions/gateway/src/lambda.rs).
      function.stream ? { LAMBDA_INVOKE_MODE = "RESPONSE_STREAM" } : {},
      name == local.expiry_function ? { EXPIRY_QUEUE_URL = aws_sqs_queue.turns.url } : {},
    )
  }
}

resource "aws_lambda_function" "this" {
  for_each = local.functions

  function_name = local.full_name[each.key]
  description   = "astra-edge: ${each.key}"
  role          = aws_iam_role.this[each.key].arn

  runtime       = "provided.al2023"
  handler       = "bootstrap"
  architectures = [var.architecture]
  filename      = local.package[each.key]
  # null only where there is no file, which the precondition refuses; without try, `terraform validate` would need the build.
  source_code_hash = try(filebase64sha256(local.package[each.key]), null)
  layers           = var.layer_arns

  # memory has a child process read PDFs, which may take 256 MB.
  memory_size                    = coalesce(try(var.functions[each.key].memory_mb, null), each.key == "memory" ? max(512, var.memory_mb) : var.memory_mb)
  timeout                        = local.timeout[each.key]
  reserved_concurrent_executions = coalesce(try(var.functions[each.key].reserved_concurrency, null), -1)

  environment {
    variables = local.variables[each.key]
  }

  # The function writes one JSON object per line by itself; Lambda's own lines (start, end, time-out) become JSON too.
  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.this[each.key].name
  }

  dynamic "vpc_config" {
    for_each = var.vpc == null ? [] : [var.vpc]
    content {
      subnet_ids         = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  # A function that starts before it may read its secrets does not start.
  depends_on = [aws_iam_role_policy.this]

  lifecycle {
    precondition {
      condition     = fileexists(local.package[each.key])
      error_message = "${local.package[each.key]} is missing. Build the functions first: scripts/deploy aws does, or scripts/build-lambda."
    }
  }
}

resource "aws_cloudwatch_log_group" "this" {
  for_each = local.functions

  name              = "/aws/lambda/${local.full_name[each.key]}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.log_kms_key_arn
}
