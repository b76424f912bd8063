variable "region" {
  description = "The AWS region."
  type        = string
}

variable "name" {
  description = "The beginning of every resource's name."
  type        = string
  default     = "astra-edge"
}

variable "packages" {
  description = "The folder with the built functions, unless it is target/lambda of this repository."
  type        = string
  default     = null
}

variable "role_password" {
  description = "ASTRA_ROLE_PASSWORD of the migrations: what the functions' roles log in to Postgres with."
  type        = string
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{24,}$", var.role_password))
    error_message = "role_password is at least 24 letters, digits, hyphens and underscores (openssl rand -hex 24)."
  }
}

variable "token_keys" {
  description = "TOKEN_KEYS: kid:secret[,kid:secret], as docs/deploy-aws.md makes it."
  type        = string
  ephemeral   = true
  sensitive   = true
}

variable "tenant_keys" {
  description = "TENANT_KEYS: kid:key[,kid:key], as docs/deploy-aws.md makes it; the same as astra-migrate was given."
  type        = string
  ephemeral   = true
  sensitive   = true
}

variable "secrets_key" {
  description = "SECRETS_KEY: kid:key[,kid:key], as docs/deploy-aws.md makes it."
  type        = string
  ephemeral   = true
  sensitive   = true
}

variable "receipt_keys" {
  description = "RECEIPT_KEYS: kid:key[,kid:key], as docs/deploy-aws.md makes it."
  type        = string
  ephemeral   = true
  sensitive   = true
}

variable "secrets_version" {
  description = "Terraform cannot see that a secret has changed. Count up by one when role_password, token_keys, tenant_keys, secrets_key or receipt_keys has: all of them are written again."
  type        = number
  default     = 1
}

variable "provider_keys" {
  description = "Where the deployment's own model keys are, if it has any: {OPENAI_API_KEY = ARN}. Made by hand, as docs/deploy-aws.md says."
  type        = map(string)
  default     = {}
}

variable "settings" {
  description = "What is no secret, by name (the module's settings): ALLOWED_ORIGINS, DEFAULT_MODEL and so on."
  type        = map(string)
  default     = {}
}

variable "functions" {
  description = "What is different for single functions (the module's functions)."
  type = map(object({
    memory_mb            = optional(number)
    timeout_seconds      = optional(number)
    reserved_concurrency = optional(number)
  }))
  default = {}
}

variable "domain" {
  description = "A domain of yours for the API, and its certificate (the module's domain)."
  type        = object({ name = string, certificate_arn = string })
  default     = null
}

variable "alarm_topic_arns" {
  description = "SNS topics that alarms go to."
  type        = list(string)
  default     = []
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "private_subnet_ids" {
  description = "Private subnets in at least two availability zones, with a NAT gateway: functions, proxy and database are put there."
  type        = list(string)

  validation {
    condition     = length(var.private_subnet_ids) >= 2
    error_message = "private_subnet_ids has at least two subnets, in different availability zones."
  }
}

variable "migration_security_group_ids" {
  description = "Security groups of the machine that migrations run on: it reaches the database past the proxy."
  type        = set(string)
  default     = []
}

variable "instance_class" {
  description = "The database's machine."
  type        = string
  default     = "db.t4g.medium"
}

variable "multi_az" {
  description = "Whether a second machine stands by in another availability zone."
  type        = bool
  default     = false
}
