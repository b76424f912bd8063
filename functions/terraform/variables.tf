variable "name" {
  description = "The beginning of every resource's name. Another one makes another deployment in the same account and region."
  type        = string
  default     = "astra-edge"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name is 3 to 24 lower-case letters, digits and hyphens, begins with a letter and does not end with a hyphen."
  }
}

variable "packages" {
  description = "The folder with FUNCTION/bootstrap.zip of each function, as scripts/build-lambda writes them. Unless set: target/lambda of the repository that this module is in."
  type        = string
  default     = null
}

variable "architecture" {
  description = "What the functions are built for: arm64 or x86_64."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture is arm64 or x86_64."
  }
}

variable "memory_mb" {
  description = "Memory of each function in MB, unless functions says otherwise; the function memory has 512 at least. Lambda gives CPU in proportion to it."
  type        = number
  default     = 128

  validation {
    condition     = var.memory_mb >= 128 && var.memory_mb <= 10240 && floor(var.memory_mb) == var.memory_mb
    error_message = "memory_mb is a whole number from 128 to 10240."
  }
}

variable "functions" {
  description = <<-EOT
    What is different for single functions, by function (provision, invoke-turn, billing, grants, memory):
    memory_mb; timeout_seconds (30; 300 for invoke-turn, longer than MODEL_TIMEOUT_SECONDS by at least 15);
    reserved_concurrency (how many run at once at most; no limit unless set). Each running one has up to 2 × DATABASE_POOL_SIZE
    connections to the pooler (its own role's and the counter's).
  EOT
  type = map(object({
    memory_mb            = optional(number)
    timeout_seconds      = optional(number)
    reserved_concurrency = optional(number)
  }))
  default = {}

  validation {
    condition     = alltrue([for name in keys(var.functions) : contains(keys(local.functions), name)])
    error_message = "functions has a function that does not exist. There are: ${join(", ", keys(local.functions))}."
  }
  validation {
    condition     = alltrue([for function in values(var.functions) : function.memory_mb == null ? true : function.memory_mb >= 128 && function.memory_mb <= 10240])
    error_message = "memory_mb is from 128 to 10240."
  }
  validation {
    condition     = alltrue([for function in values(var.functions) : function.timeout_seconds == null ? true : function.timeout_seconds >= 1 && function.timeout_seconds <= 900])
    error_message = "timeout_seconds is from 1 to 900."
  }
  validation {
    condition     = alltrue([for function in values(var.functions) : function.reserved_concurrency == null ? true : function.reserved_concurrency >= 1])
    error_message = "reserved_concurrency is at least 1: with 0 the function would never run."
  }
  validation {
    # The queue's consumer takes up to two (events.tf) of those that are reserved.
    condition     = try(var.functions["invoke-turn"].reserved_concurrency >= 3, true)
    error_message = "invoke-turn's reserved_concurrency is at least 3: up to two at a time end stale holds."
  }
  validation {
    condition     = coalesce(try(var.functions["invoke-turn"].timeout_seconds, null), local.functions["invoke-turn"].timeout) >= tonumber(lookup(var.settings, "MODEL_TIMEOUT_SECONDS", "120")) + 15
    error_message = "invoke-turn's timeout_seconds must be longer than MODEL_TIMEOUT_SECONDS (120 unless set) by at least 15: what a turn has used is saved after the model is cut off."
  }
}

variable "database_urls" {
  description = <<-EOT
    Where each function finds its own DATABASE_URL, by function, and "quota" for the counter's rows: provision (role astra_provision),
    invoke-turn (astra_invoke), billing (astra_billing), grants (astra_grants), memory (astra_memory), quota (astra_quota). Each is an address as in secrets; the value is
    postgres://ROLE:PASSWORD@POOLER:PORT/DATABASE?sslmode=require.
  EOT
  type        = map(string)

  validation {
    condition     = toset(keys(var.database_urls)) == toset(concat(keys(local.functions), ["quota"]))
    error_message = "database_urls has exactly: ${join(", ", concat(keys(local.functions), ["quota"]))}."
  }
  validation {
    condition     = alltrue([for address in values(var.database_urls) : can(regex(local.secret_address, address))])
    error_message = "database_urls has addresses of secrets, never a secret itself: the full ARN of a secret in Secrets Manager (with #KEY behind it for a key of a JSON secret), or of a parameter in SSM."
  }
}

variable "secrets" {
  description = <<-EOT
    Where the functions find the other secrets, by name. TOKEN_KEYS, TENANT_KEYS, SECRETS_KEY and RECEIPT_KEYS are needed; OPENAI_API_KEY, ANTHROPIC_API_KEY,
    TYPESENSE_API_KEY, TYPESENSE_SEARCH_KEY and STRIPE_API_KEY are not. Each is the full ARN of a secret in Secrets Manager, whose text is the value;
    or that with #KEY behind it, for a key of a secret whose text is a JSON object; or the ARN of a SecureString parameter in SSM.
  EOT
  type        = map(string)

  validation {
    condition     = alltrue([for name in ["TOKEN_KEYS", "TENANT_KEYS", "SECRETS_KEY", "RECEIPT_KEYS"] : contains(keys(var.secrets), name)])
    error_message = "secrets needs TOKEN_KEYS, TENANT_KEYS, SECRETS_KEY and RECEIPT_KEYS."
  }
  validation {
    condition     = alltrue([for name in keys(var.secrets) : contains(local.known_secrets, name)])
    error_message = "secrets has a name that no function reads. There are: ${join(", ", local.known_secrets)}. DATABASE_URL is in database_urls."
  }
  validation {
    condition     = alltrue([for address in values(var.secrets) : can(regex(local.secret_address, address))])
    error_message = "secrets has addresses of secrets, never a secret itself: the full ARN of a secret in Secrets Manager (with #KEY behind it for a key of a JSON secret), or of a parameter in SSM."
  }
}

locals {
  # Not strict about names: AWS is. Enough that a value does not get through where an address belongs.
  secret_address = "^arn:aws[a-z-]*:(secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[^#*\\s]+(#[^#\\s]+)?|ssm:[a-z0-9-]+:[0-9]{12}:parameter/[^#*\\s]+)$"
}

variable "secrets_kms_key_arns" {
  description = "Keys of your own (KMS) that the secrets are encrypted with. The functions may then decrypt with them. Empty with the keys that AWS manages."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.secrets_kms_key_arns : can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[^*]+$", arn))])
    error_message = "secrets_kms_key_arns has ARNs of keys (not of aliases)."
  }
}

variable "settings" {
  description = <<-EOT
    What is no secret, by name: ALLOWED_ORIGINS, DEFAULT_MODEL, OPENAI_BASE_URL, ANTHROPIC_BASE_URL,
    TYPESENSE_URL, TYPESENSE_COLLECTIONS, TYPESENSE_PREFIX, EXTRACTION, OUTGOING_HOSTS, STRIPE_METER_EVENT, STRIPE_METER_VALUE,
    MODEL_TIMEOUT_SECONDS, HOLD_LEASE_SECONDS, DATABASE_POOL_SIZE, PGSSLROOTCERT, TOKEN_ISSUERS. Each function gets those that it reads.
  EOT
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : contains(local.known_settings, name)])
    error_message = "settings has a name that no function reads as a setting. There are: ${join(", ", local.known_settings)}. Secrets are in secrets."
  }
  validation {
    condition     = can(regex("^[0-9]{1,3}$", lookup(var.settings, "MODEL_TIMEOUT_SECONDS", "120"))) && can(regex("^[0-9]{1,4}$", lookup(var.settings, "DATABASE_POOL_SIZE", "1")))
    error_message = "MODEL_TIMEOUT_SECONDS and DATABASE_POOL_SIZE are whole numbers."
  }
}

variable "layer_arns" {
  description = "Lambda layers for every function: to bring the certificate of the database's authority, say (PGSSLROOTCERT = /opt/NAME.crt in settings)."
  type        = list(string)
  default     = []

  validation {
    condition     = length(var.layer_arns) <= 5
    error_message = "A function has five layers at most."
  }
}

variable "vpc" {
  description = "Where the functions run when the database has no public address: private subnets, at least two, with a way to the model's provider and to Secrets Manager (a NAT gateway), and security groups. Outside of any VPC unless set."
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null

  validation {
    condition     = var.vpc == null ? true : length(var.vpc.subnet_ids) >= 2 && length(var.vpc.security_group_ids) >= 1
    error_message = "vpc needs at least two subnets and one security group."
  }
}

variable "domain" {
  description = "A domain of yours for the API: its name, and its certificate (ACM, in the same region). The address that API Gateway gives is then switched off. You point the domain's DNS record to the output domain_target."
  type = object({
    name            = string
    certificate_arn = string
  })
  default = null

  validation {
    condition     = var.domain == null ? true : can(regex("^([a-z0-9-]+\\.)+[a-z]+$", var.domain.name))
    error_message = "domain.name is a host name, as api.example.com."
  }
  validation {
    condition     = var.domain == null ? true : can(regex("^arn:aws[a-z-]*:acm:", var.domain.certificate_arn))
    error_message = "domain.certificate_arn is the ARN of a certificate in ACM."
  }
}

variable "throttling" {
  description = "Requests per second that the API lets through (rate), and how many may come at once (burst). What is more gets 503."
  type        = object({ rate = number, burst = number })
  default     = { rate = 100, burst = 200 }

  validation {
    condition     = var.throttling.rate > 0 && var.throttling.burst > 0
    error_message = "rate and burst are greater than 0."
  }
}

variable "expiry_schedule" {
  description = "How often holds of turns that died are ended: an EventBridge schedule expression."
  type        = string
  default     = "rate(1 minute)"

  validation {
    condition     = can(regex("^(rate|cron)\\(.+\\)$", var.expiry_schedule))
    error_message = "expiry_schedule is rate(...) or cron(...)."
  }
}

variable "log_retention_days" {
  description = "How long the functions' logs are kept, in days. 0: for ever."
  type        = number
  default     = 30

  validation {
    condition     = contains([0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is one of those that CloudWatch knows: 0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653."
  }
}

variable "log_kms_key_arn" {
  description = "A key of your own (KMS) for the logs; its policy must let CloudWatch Logs use it. AWS's own unless set."
  type        = string
  default     = null
}

variable "alarm_topic_arns" {
  description = "SNS topics that are told when an alarm goes off and when it is over. Without any, alarms are only to be seen."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.alarm_topic_arns : can(regex("^arn:aws[a-z-]*:sns:", arn))])
    error_message = "alarm_topic_arns has ARNs of SNS topics."
  }
}
