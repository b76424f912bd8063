# One REST API for all routes, so that there is one address, as /openapi.json says. It streams what invoke-turn streams; an HTTP API does not.
#
# It is written as an OpenAPI document because aws_api_gateway_integration has no response_transfer_mode in version 5 of the provider; the
# document has responseTransferMode with any. Methods are the functions' own business, CORS and authorization too:
# every method of a path goes to its function, which verifies the bearer token itself.
locals {
  integrations = {
    for name, function in local.functions : name => {
      type       = "aws_proxy"
      httpMethod = "POST"
      uri = join("", [
        "arn:${local.partition}:apigateway:${local.region}:lambda:path/",
        function.stream ? "2021-11-15/functions/${local.function_arn[name]}/response-streaming-invocations" : "2015-03-31/functions/${local.function_arn[name]}/invocations",
      ])
      responseTransferMode = function.stream ? "STREAM" : "BUFFERED"
      # 29 seconds are API Gateway's limit where it does not stream.
      timeoutInMillis = function.stream ? 1000 * local.timeout[name] : min(29000, 1000 * local.timeout[name])
    }
  }

  # {path: function}
  paths = merge(
    { "/" = local.catch_all, "/{proxy+}" = local.catch_all },
    [for name, function in local.functions : merge(
      { for path in function.paths : path => name },
      { for prefix in function.prefixes : prefix => name },
      { for prefix in function.prefixes : "${prefix}/{proxy+}" => name },
    )]...
  )

  # What API Gateway answers by itself are problems, too (shared/kernel/src/problem.rs has the codes).
  gateway_problems = {
    DEFAULT_4XX                  = { status = 400, code = "bad_request", title = "Bad request", detail = "The request cannot be read." }
    DEFAULT_5XX                  = { status = 503, code = "unavailable", title = "A needed part is away", detail = "The function did not answer. Try again." }
    MISSING_AUTHENTICATION_TOKEN = { status = 404, code = "not_found", title = "Not found", detail = "No such route. GET /openapi.json lists them." }
    REQUEST_TOO_LARGE            = { status = 413, code = "payload_too_large", title = "Body too large", detail = "The body is larger than 1048576 bytes." }
    WAF_FILTERED                 = { status = 403, code = "forbidden", title = "Forbidden", detail = "A firewall in front of the API has refused the request." }
    THROTTLED                    = { status = 503, code = "unavailable", title = "A needed part is away", detail = "Too many requests at once. Try again in a second." }
  }

  api = {
    openapi = "3.0.1"
    info    = { title = var.name, version = "1" }
    # Bodies are handed over as they are, byte for byte.
    x-amazon-apigateway-binary-media-types = ["*/*"]
    paths = {
      for path, function in local.paths : path => {
        x-amazon-apigateway-any-method = {
          parameters = [
            for parameter in regexall("\\{([A-Za-z]+)\\+?\\}", path) :
            { name = parameter[0], in = "path", required = true, schema = { type = "string" } }
          ]
          responses                       = { default = { description = "What the function answers" } }
          x-amazon-apigateway-integration = local.integrations[function]
        }
      }
    }
    x-amazon-apigateway-gateway-responses = {
      for kind, problem in local.gateway_problems : kind => {
        statusCode = problem.status
        responseParameters = merge(
          {
            "gatewayresponse.header.Content-Type" = "'application/problem+json'"
            "gatewayresponse.header.X-Request-Id" = "context.requestId"
          },
          problem.status == 503 ? { "gatewayresponse.header.Retry-After" = "'1'" } : {},
        )
        # Not jsonencode: it would not leave the order, and $context is API Gateway's to fill in.
        responseTemplates = {
          "application/json" = "{\"type\":\"urn:astra-edge:problem:${problem.code}\",\"title\":\"${problem.title}\",\"status\":${problem.status},\"code\":\"${problem.code}\",\"detail\":\"${problem.detail}\",\"requestId\":\"$context.requestId\"}"
        }
      }
    }
  }
}

resource "aws_api_gateway_rest_api" "this" {
  name = var.name
  body = jsonencode(local.api)
  # What the document no longer has is to go.
  put_rest_api_mode            = "overwrite"
  disable_execute_api_endpoint = var.domain != null

  endpoint_configuration {
    # Not edge-optimized: there a stream in which nothing comes for 30 seconds is cut. Here it is 5 minutes.
    types = ["REGIONAL"]
  }
}

resource "aws_api_gateway_deployment" "this" {
  rest_api_id = aws_api_gateway_rest_api.this.id
  triggers    = { api = sha256(jsonencode(local.api)) }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_api_gateway_stage" "this" {
  rest_api_id   = aws_api_gateway_rest_api.this.id
  deployment_id = aws_api_gateway_deployment.this.id
  stage_name    = "api"
}

resource "aws_api_gateway_method_settings" "this" {
  rest_api_id = aws_api_gateway_rest_api.this.id
  stage_name  = aws_api_gateway_stage.this.stage_name
  method_path = "*/*"

  settings {
    metrics_enabled        = true
    throttling_rate_limit  = var.throttling.rate
    throttling_burst_limit = var.throttling.burst
  }
}

resource "aws_lambda_permission" "api" {
  for_each = local.functions

  statement_id  = "api"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.this[each.key].function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_api_gateway_rest_api.this.execution_arn}/*"
}

resource "aws_api_gateway_domain_name" "this" {
  count = var.domain == null ? 0 : 1

  domain_name              = var.domain.name
  regional_certificate_arn = var.domain.certificate_arn
  security_policy          = "TLS_1_2"

  endpoint_configuration {
    types = ["REGIONAL"]
  }
}

resource "aws_api_gateway_base_path_mapping" "this" {
  count = var.domain == null ? 0 : 1

  api_id      = aws_api_gateway_rest_api.this.id
  stage_name  = aws_api_gateway_stage.this.stage_name
  domain_name = aws_api_gateway_domain_name.this[0].domain_name
}
