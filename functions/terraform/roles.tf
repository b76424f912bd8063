# One role per function, with nothing in it that the function does not use: its own log, its own secrets, and what is its own of the queue.
locals {
  assume = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "lambda.amazonaws.com" }
    }]
  })

  # What may be read in AWS is the secret; which key of its JSON, only the function knows.
  secret_arns = { for name, secrets in local.secrets : name => sort(distinct([for address in values(secrets) : split("#", address)[0]])) }

  statements = {
    for name in keys(local.functions) : name => [for statement in [
      {
        Sid      = "Log"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["arn:${local.partition}:logs:${local.region}:${local.account}:log-group:/aws/lambda/${local.full_name[name]}:*"]
      },
      {
        Sid      = "ReadSecrets"
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = [for arn in local.secret_arns[name] : arn if split(":", arn)[2] == "secretsmanager"]
      },
      {
        Sid      = "ReadParameters"
        Effect   = "Allow"
        Action   = ["ssm:GetParameter"]
        Resource = [for arn in local.secret_arns[name] : arn if split(":", arn)[2] == "ssm"]
      },
      {
        Sid      = "DecryptSecrets"
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = var.secrets_kms_key_arns
        # On behalf of whoever keeps the secrets, and for nothing else.
        Condition = { StringEquals = { "kms:ViaService" = [
          "secretsmanager.${local.region}.amazonaws.com", "ssm.${local.region}.amazonaws.com",
        ] } }
      },
      {
        Sid      = "ExpiryQueue"
        Effect   = "Allow"
        Action   = ["sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ChangeMessageVisibility"]
        Resource = name == local.expiry_function ? [local.turns_queue_arn] : []
      },
      {
        # Lambda makes the network interfaces with the function's role; these actions know no narrower resource.
        Sid    = "NetworkInterfaces"
        Effect = "Allow"
        Action = [
          "ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:DeleteNetworkInterface",
          "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses",
        ]
        Resource = var.vpc == null ? [] : ["*"]
      },
      {
        # Lambda does, the function's own code must not.
        Sid    = "NotByTheFunctionItself"
        Effect = "Deny"
        Action = [
          "ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:DeleteNetworkInterface",
          "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses",
        ]
        Resource  = var.vpc == null ? [] : ["*"]
        Condition = { ArnEquals = { "lambda:SourceFunctionArn" = [local.function_arn[name]] } }
      },
    ] : statement if length(statement.Resource) > 0]
  }
}

resource "aws_iam_role" "this" {
  for_each = local.functions

  name               = "${local.full_name[each.key]}-${local.region}"
  description        = "What astra-edge's function ${each.key} may do"
  assume_role_policy = local.assume
}

resource "aws_iam_role_policy" "this" {
  for_each = local.functions

  name   = "function"
  role   = aws_iam_role.this[each.key].id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.statements[each.key] })
}
