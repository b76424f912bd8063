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


run "refuses_a_secret_itself" {
  command = plan

  variables {
    secrets = { TOKEN_KEYS = "k1:c2VjcmV0", SECRETS_KEY = "arn:aws:ssm:eu-central-1:111122223333:parameter/x" }
  }

  expect_failures = [var.secrets]
}

run "refuses_an_address_with_a_wildcard" {
  command = plan

  variables {
    secrets = { TOKEN_KEYS = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:*", SECRETS_KEY = "arn:aws:ssm:eu-central-1:111122223333:parameter/x" }
  }

  expect_failures = [var.secrets]
}

run "wants_the_keys" {
  command = plan

  variables {
    secrets = { TOKEN_KEYS = "arn:aws:ssm:eu-central-1:111122223333:parameter/x" }
  }

  expect_failures = [var.secrets]
}

run "refuses_a_secret_nobody_reads" {
  command = plan

  variables {
    secrets = { TOKEN_KEYS = "arn:aws:ssm:eu-central-1:111122223333:parameter/x", SECRETS_KEY = "arn:aws:ssm:eu-central-1:111122223333:parameter/x", OPENAI_KEY = "arn:aws:ssm:eu-central-1:111122223333:parameter/x" }
  }

  expect_failures = [var.secrets]
}

run "wants_a_role_per_function" {
  command = plan

  variables {
    database_urls = { provision = "arn:aws:ssm:eu-central-1:111122223333:parameter/x" }
  }

  expect_failures = [var.database_urls]
}

run "refuses_a_secret_among_settings" {
  command = plan

  variables {
    settings = { OPENAI_API_KEY = "sk-x" }
  }

  expect_failures = [var.settings]
}

run "wants_time_to_save" {
  command = plan

  variables {
    settings = { MODEL_TIMEOUT_SECONDS = "290" }
  }

  expect_failures = [var.functions]
}

run "refuses_a_function_that_is_none" {
  command = plan

  variables {
    functions = { gateway = { memory_mb = 256 } }
  }

  expect_failures = [var.functions]
}

run "wants_room_for_the_queue" {
  command = plan

  variables {
    functions = { invoke-turn = { reserved_concurrency = 2 } }
  }

  expect_failures = [var.functions]
}

run "refuses_too_little_memory" {
  command = plan

  variables {
    memory_mb = 64
  }

  expect_failures = [var.memory_mb]
}

run "refuses_a_bad_name" {
  command = plan

  variables {
    name = "Astra"
  }

  expect_failures = [var.name]
}

run "refuses_a_vpc_with_one_subnet" {
  command = plan

  variables {
    vpc = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  }

  expect_failures = [var.vpc]
}

run "refuses_a_domain_with_a_scheme" {
  command = plan

  variables {
    domain = { name = "https://api.example.com", certificate_arn = "arn:aws:acm:eu-central-1:111122223333:certificate/0" }
  }

  expect_failures = [var.domain]
}

run "refuses_a_schedule_that_is_none" {
  command = plan

  variables {
    expiry_schedule = "every minute"
  }

  expect_failures = [var.expiry_schedule]
}

run "refuses_a_retention_unknown_to_cloudwatch" {
  command = plan

  variables {
    log_retention_days = 31
  }

  expect_failures = [var.log_retention_days]
}

run "says_what_to_build" {
  command = plan

  variables {
    packages = "nowhere"
  }

  expect_failures = [aws_lambda_function.this]
}
