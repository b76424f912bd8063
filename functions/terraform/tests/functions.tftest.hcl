mock_provider "aws" {
  source = "./tests/mock"
}

variables {
  packages = "tests/packages"
  database_urls = {
    provision   = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/provision-AbCdEf#url"
    invoke-turn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/invoke-AbCdEf#url"
    billing     = "arn:aws:ssm:eu-central-1:111122223333:parameter/astra/billing-url"
    grants      = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/grants-AbCdEf#url"
    memory      = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/memory-AbCdEf#url"
    quota       = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/quota-AbCdEf"
  }
  secrets = {
    TOKEN_KEYS     = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/token-keys-AbCdEf"
    TENANT_KEYS    = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/tenant-keys-AbCdEf"
    SECRETS_KEY    = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/secrets-key-AbCdEf"
    RECEIPT_KEYS   = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/receipt-keys-AbCdEf"
    OPENAI_API_KEY = "arn:aws:ssm:eu-central-1:111122223333:parameter/astra/openai"
    STRIPE_API_KEY = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/stripe-AbCdEf"
  }
}

run "each_function_has_its_own" {
  command = apply

  assert {
    condition = local.secret_variables == {
      provision = {
        DATABASE_URL_SECRET_ARN       = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/provision-AbCdEf#url"
        DATABASE_URL_QUOTA_SECRET_ARN = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/quota-AbCdEf"
        TOKEN_KEYS_SECRET_ARN         = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/token-keys-AbCdEf"
        TENANT_KEYS_SECRET_ARN        = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/tenant-keys-AbCdEf"
        SECRETS_KEY_SECRET_ARN        = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/secrets-key-AbCdEf"
      }
      invoke-turn = {
        DATABASE_URL_SECRET_ARN       = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/invoke-AbCdEf#url"
        DATABASE_URL_QUOTA_SECRET_ARN = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/quota-AbCdEf"
        TOKEN_KEYS_SECRET_ARN         = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/token-keys-AbCdEf"
        TENANT_KEYS_SECRET_ARN        = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/tenant-keys-AbCdEf"
        SECRETS_KEY_SECRET_ARN        = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/secrets-key-AbCdEf"
        RECEIPT_KEYS_SECRET_ARN       = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/receipt-keys-AbCdEf"
        OPENAI_API_KEY_SSM_PARAMETER  = "arn:aws:ssm:eu-central-1:111122223333:parameter/astra/openai"
      }
      billing = {
        DATABASE_URL_SSM_PARAMETER    = "arn:aws:ssm:eu-central-1:111122223333:parameter/astra/billing-url"
        DATABASE_URL_QUOTA_SECRET_ARN = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/quota-AbCdEf"
        TOKEN_KEYS_SECRET_ARN         = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/token-keys-AbCdEf"
        TENANT_KEYS_SECRET_ARN        = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/tenant-keys-AbCdEf"
        SECRETS_KEY_SECRET_ARN        = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/secrets-key-AbCdEf"
        RECEIPT_KEYS_SECRET_ARN       = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/receipt-keys-AbCdEf"
        STRIPE_API_KEY_SECRET_ARN     = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/stripe-AbCdEf"
      }
      grants = {
        DATABASE_URL_SECRET_ARN       = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/grants-AbCdEf#url"
        DATABASE_URL_QUOTA_SECRET_ARN = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/quota-AbCdEf"
        TOKEN_KEYS_SECRET_ARN         = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/token-keys-AbCdEf"
        TENANT_KEYS_SECRET_ARN        = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/tenant-keys-AbCdEf"
      }
      memory = {
        DATABASE_URL_SECRET_ARN       = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/memory-AbCdEf#url"
        DATABASE_URL_QUOTA_SECRET_ARN = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/quota-AbCdEf"
        TOKEN_KEYS_SECRET_ARN         = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/token-keys-AbCdEf"
        TENANT_KEYS_SECRET_ARN        = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/tenant-keys-AbCdEf"
        SECRETS_KEY_SECRET_ARN        = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:astra/secrets-key-AbCdEf"
        OPENAI_API_KEY_SSM_PARAMETER  = "arn:aws:ssm:eu-central-1:111122223333:parameter/astra/openai"
      }
    }
    error_message = "A function is pointed to other secrets than its own."
  }

  # What it is pointed to is what it may read, to the letter.
  assert {
    condition = alltrue([
      for name, policy in aws_iam_role_policy.this :
      toset(flatten([for s in jsondecode(policy.policy).Statement : s.Resource if startswith(s.Sid, "Read")])) ==
      toset([for address in values(local.secret_variables[name]) : split("#", address)[0]])
    ])
    error_message = "A role may read what its function has no use for, or may not what it has."
  }

  assert {
    condition     = alltrue(flatten([for policy in aws_iam_role_policy.this : [for s in jsondecode(policy.policy).Statement : [for r in s.Resource : r != "*"]]]))
    error_message = "Without a VPC no right is on everything."
  }

  assert {
    condition     = [for name, policy in aws_iam_role_policy.this : name if strcontains(policy.policy, "sqs:")] == ["invoke-turn"]
    error_message = "Only invoke-turn has to do with the queue."
  }

  assert {
    condition = alltrue([
      for name, policy in aws_iam_role_policy.this :
      [for s in jsondecode(policy.policy).Statement : s.Resource if s.Sid == "Log"] == [["arn:aws:logs:eu-central-1:111122223333:log-group:/aws/lambda/astra-edge-${name}:*"]]
    ])
    error_message = "A function may write to another log than its own."
  }

  assert {
    condition     = length([for function in aws_lambda_function.this : function if length(function.vpc_config) > 0]) == 0
    error_message = "Without a VPC none is configured."
  }

  # No value of a secret is in what the functions are configured with.
  assert {
    condition = alltrue(flatten([
      for function in aws_lambda_function.this : [for name in keys(function.environment[0].variables) : !contains(concat(["DATABASE_URL", "DATABASE_URL_QUOTA"], tolist(local.known_secrets)), name)]
    ]))
    error_message = "A secret is in a function's environment."
  }

  assert {
    condition     = [for name, function in aws_lambda_function.this : name if contains(keys(function.environment[0].variables), "EXPIRY_QUEUE_URL")] == ["invoke-turn"]
    error_message = "Only invoke-turn is told the queue."
  }

  # A program that sends its answer whole through an integration that streams would show clients the answer's raw form, and the other way round.
  assert {
    condition     = { for name, function in aws_lambda_function.this : name => try(function.environment[0].variables["LAMBDA_INVOKE_MODE"], "BUFFERED") == "RESPONSE_STREAM" } == { for name, function in local.functions : name => function.stream }
    error_message = "A function does not stream where its integration does, or the other way round."
  }
}

run "in_a_vpc_with_keys_of_ones_own" {
  command = apply

  variables {
    vpc                  = { subnet_ids = ["subnet-1", "subnet-2"], security_group_ids = ["sg-1"] }
    secrets_kms_key_arns = ["arn:aws:kms:eu-central-1:111122223333:key/0000"]
    settings             = { MODEL_TIMEOUT_SECONDS = "60", ALLOWED_ORIGINS = "https://app.example.com" }
    functions            = { invoke-turn = { reserved_concurrency = 20, memory_mb = 256, timeout_seconds = 90 } }
  }

  assert {
    condition     = alltrue([for policy in aws_iam_role_policy.this : length([for s in jsondecode(policy.policy).Statement : s if contains(["NetworkInterfaces", "NotByTheFunctionItself"], s.Sid)]) == 2])
    error_message = "In a VPC Lambda makes network interfaces with the role, and the function's code must not."
  }

  assert {
    condition     = alltrue([for policy in aws_iam_role_policy.this : [for s in jsondecode(policy.policy).Statement : s.Resource if s.Sid == "DecryptSecrets"] == [["arn:aws:kms:eu-central-1:111122223333:key/0000"]]])
    error_message = "A key of one's own has to be one that the functions may decrypt with."
  }

  assert {
    condition     = [for name, function in aws_lambda_function.this : name if contains(keys(function.environment[0].variables), "MODEL_TIMEOUT_SECONDS")] == ["invoke-turn"]
    error_message = "A setting goes to those that read it."
  }

  assert {
    condition = (
      aws_lambda_function.this["invoke-turn"].reserved_concurrent_executions == 20 && aws_lambda_function.this["invoke-turn"].memory_size == 256 &&
      aws_lambda_function.this["invoke-turn"].timeout == 90 && aws_lambda_function.this["billing"].reserved_concurrent_executions == -1 &&
      aws_lambda_function.this["billing"].memory_size == 128 && aws_lambda_function.this["memory"].memory_size == 512 && aws_lambda_function.this["billing"].timeout == 30
    )
    error_message = "What is different for one function is different for that one only."
  }

  assert {
    condition     = aws_sqs_queue.turns.visibility_timeout_seconds == 540
    error_message = "The queue waits for six times the function's time."
  }
}

run "stale_holds" {
  command = apply

  assert {
    condition     = jsondecode(aws_cloudwatch_event_target.expire_stale.input) == { source = "astra.schedule", task = "expire-stale" }
    error_message = "The schedule says something else than invoke-turn understands."
  }

  assert {
    condition     = contains(aws_lambda_event_source_mapping.turns.function_response_types, "ReportBatchItemFailures") && jsondecode(aws_sqs_queue.turns.redrive_policy).maxReceiveCount == 5
    error_message = "One message that fails must not bring back the others, and not come back for ever."
  }
}
