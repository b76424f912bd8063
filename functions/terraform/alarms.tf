locals {
  alarms_of_functions = {
    errors    = { metric = "Errors", what = "invocations fail" }
    throttles = { metric = "Throttles", what = "invocations are refused: the reserved concurrency, or the account's, is used up" }
  }
}

resource "aws_cloudwatch_metric_alarm" "function" {
  for_each = {
    for pair in setproduct(keys(local.functions), keys(local.alarms_of_functions)) :
    "${pair[0]}-${pair[1]}" => { function = pair[0], alarm = local.alarms_of_functions[pair[1]] }
  }

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${each.value.function}: ${each.value.alarm.what}"
  namespace           = "AWS/Lambda"
  metric_name         = each.value.alarm.metric
  dimensions          = { FunctionName = aws_lambda_function.this[each.value.function].function_name }
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 5
  datapoints_to_alarm = 2
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
}

resource "aws_cloudwatch_metric_alarm" "duration" {
  for_each = local.functions

  alarm_name          = "${var.name}-${each.key}-duration"
  alarm_description   = "${each.key}: one invocation in a hundred takes more than nine tenths of its time-out of ${local.timeout[each.key]} s"
  namespace           = "AWS/Lambda"
  metric_name         = "Duration"
  dimensions          = { FunctionName = aws_lambda_function.this[each.key].function_name }
  extended_statistic  = "p99"
  period              = 300
  evaluation_periods  = 2
  threshold           = 900 * local.timeout[each.key]
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
}

resource "aws_cloudwatch_metric_alarm" "dead_letter" {
  alarm_name          = "${aws_sqs_queue.turns_dead_letter.name}-not-empty"
  alarm_description   = "Stale holds of a workspace could not be ended five times: the messages say which, invoke-turn's log says why"
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.turns_dead_letter.name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 1
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
}

resource "aws_cloudwatch_metric_alarm" "queue_age" {
  alarm_name          = "${aws_sqs_queue.turns.name}-age"
  alarm_description   = "Messages wait for more than ten minutes: stale holds keep budgets"
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = aws_sqs_queue.turns.name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 3
  threshold           = 600
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
}
