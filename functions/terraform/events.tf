# Stale holds: every minute EventBridge tells invoke-turn, which puts one message per workspace that has some into the queue and takes
# them out of it again, so that one workspace whose holds cannot be ended keeps no other waiting. What fails five times is set aside.
locals {
  expiry_function = "invoke-turn"
  turns_queue     = "${var.name}-turns"
  turns_queue_arn = "arn:${local.partition}:sqs:${local.region}:${local.account}:${local.turns_queue}"
}

resource "aws_sqs_queue" "turns" {
  name                    = local.turns_queue
  sqs_managed_sse_enabled = true
  # A workspace is told again within the minute as long as it has stale holds.
  message_retention_seconds = 3600
  # Six times the function's time: what AWS asks for, so that nothing that is being worked on is handed out again.
  visibility_timeout_seconds = 6 * local.timeout[local.expiry_function]

  redrive_policy = jsonencode({ deadLetterTargetArn = aws_sqs_queue.turns_dead_letter.arn, maxReceiveCount = 5 })
}

resource "aws_sqs_queue" "turns_dead_letter" {
  name                      = "${local.turns_queue}-dead-letter"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 14 * 24 * 3600
}

resource "aws_sqs_queue_redrive_allow_policy" "turns" {
  queue_url            = aws_sqs_queue.turns_dead_letter.id
  redrive_allow_policy = jsonencode({ redrivePermission = "byQueue", sourceQueueArns = [aws_sqs_queue.turns.arn] })
}

resource "aws_lambda_event_source_mapping" "turns" {
  event_source_arn = aws_sqs_queue.turns.arn
  function_name    = aws_lambda_function.this[local.expiry_function].arn
  batch_size       = 10
  # Only the messages that failed come again, not the whole batch.
  function_response_types = ["ReportBatchItemFailures"]

  # At most two at a time: the connections are the turns'.
  scaling_config {
    maximum_concurrency = 2
  }
}

resource "aws_cloudwatch_event_rule" "expire_stale" {
  name                = "${var.name}-expire-stale"
  description         = "Ends holds of turns that died"
  schedule_expression = var.expiry_schedule
}

resource "aws_cloudwatch_event_target" "expire_stale" {
  rule  = aws_cloudwatch_event_rule.expire_stale.name
  arn   = aws_lambda_function.this[local.expiry_function].arn
  input = jsonencode({ source = "astra.schedule", task = "expire-stale" })
}

resource "aws_lambda_permission" "expire_stale" {
  statement_id  = "schedule"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.this[local.expiry_function].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.expire_stale.arn
}

# The memory's jobs that were left behind: each begins right after the request that makes it, and is looked for every minute.
resource "aws_cloudwatch_event_rule" "do_jobs" {
  name                = "${var.name}-do-jobs"
  description         = "Does the memory's jobs that were left behind"
  schedule_expression = "rate(1 minute)"
}

resource "aws_cloudwatch_event_target" "do_jobs" {
  rule  = aws_cloudwatch_event_rule.do_jobs.name
  arn   = aws_lambda_function.this["memory"].arn
  input = jsonencode({ source = "astra.schedule", task = "do-jobs" })
}

resource "aws_lambda_permission" "do_jobs" {
  statement_id  = "schedule"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.this["memory"].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.do_jobs.arn
}

# Scheduled jobs: each has an interval of its own, and is looked for every minute.
resource "aws_cloudwatch_event_rule" "run_jobs" {
  name                = "${var.name}-run-jobs"
  description         = "Runs the scheduled jobs that are due"
  schedule_expression = "rate(1 minute)"
}

resource "aws_cloudwatch_event_target" "run_jobs" {
  rule  = aws_cloudwatch_event_rule.run_jobs.name
  arn   = aws_lambda_function.this["billing"].arn
  input = jsonencode({ source = "astra.schedule", task = "run-jobs" })
}

resource "aws_lambda_permission" "run_jobs" {
  statement_id  = "schedule"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.this["billing"].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.run_jobs.arn
}

# What fails is not tried again: the schedule comes anyway, and the alarm on errors tells.
resource "aws_lambda_function_event_invoke_config" "expire_stale" {
  function_name                = aws_lambda_function.this[local.expiry_function].function_name
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = 60
}
