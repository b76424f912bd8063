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

run "routes_are_the_functions_own" {
  command = plan

  assert {
    condition = alltrue(flatten([
      for name, function in local.functions : [
        for route in regexall("\"(/[^\"]*)\"", file("../${name}/src/routes.rs")) :
        contains(function.paths, route[0]) || anytrue([for prefix in function.prefixes : route[0] == prefix || startswith(route[0], "${prefix}/")])
      ]
    ]))
    error_message = "A route of functions/*/src/routes.rs does not reach its function: functions.tf."
  }

  assert {
    condition = alltrue(flatten([
      for name, function in local.functions : [
        for path in concat(function.paths, function.prefixes) :
        anytrue([for route in regexall("\"(/[^\"]*)\"", file("../${name}/src/routes.rs")) : route[0] == path || startswith(route[0], "${path}/")])
      ]
    ]))
    error_message = "functions.tf has a path that its function has no route for."
  }

  assert {
    condition     = length(flatten([for function in local.functions : concat(function.paths, function.prefixes)])) == length(distinct(flatten([for function in local.functions : concat(function.paths, function.prefixes)])))
    error_message = "Two functions have the same path."
  }
}

run "one_address_that_streams_turns" {
  command = apply

  assert {
    condition = jsondecode(aws_api_gateway_rest_api.this.body).paths["/workspaces/{workspaceId}/turns"]["x-amazon-apigateway-any-method"]["x-amazon-apigateway-integration"] == {
      type                 = "aws_proxy"
      httpMethod           = "POST"
      uri                  = "arn:aws:apigateway:eu-central-1:lambda:path/2021-11-15/functions/arn:aws:lambda:eu-central-1:111122223333:function:astra-edge-invoke-turn/response-streaming-invocations"
      responseTransferMode = "STREAM"
      timeoutInMillis      = 300000
    }
    error_message = "Turns do not stream, or not for as long as the function may run."
  }

  assert {
    condition = jsondecode(aws_api_gateway_rest_api.this.body).paths["/workspaces/{workspaceId}"]["x-amazon-apigateway-any-method"]["x-amazon-apigateway-integration"] == {
      type                 = "aws_proxy"
      httpMethod           = "POST"
      uri                  = "arn:aws:apigateway:eu-central-1:lambda:path/2015-03-31/functions/arn:aws:lambda:eu-central-1:111122223333:function:astra-edge-provision/invocations"
      responseTransferMode = "BUFFERED"
      timeoutInMillis      = 29000
    }
    error_message = "Workspaces do not reach provision."
  }

  assert {
    condition     = [for p in jsondecode(aws_api_gateway_rest_api.this.body).paths["/workspaces/{workspaceId}/sessions/{proxy+}"]["x-amazon-apigateway-any-method"].parameters : p.name] == ["workspaceId", "proxy"]
    error_message = "A path's parameters are not declared."
  }

  assert {
    condition     = strcontains(jsondecode(aws_api_gateway_rest_api.this.body).paths["/{proxy+}"]["x-amazon-apigateway-any-method"]["x-amazon-apigateway-integration"].uri, "astra-edge-provision")
    error_message = "What no function answers is answered by nobody."
  }

  assert {
    condition = alltrue([
      for answer in values(jsondecode(aws_api_gateway_rest_api.this.body)["x-amazon-apigateway-gateway-responses"]) :
      jsondecode(answer.responseTemplates["application/json"]).status == answer.statusCode
    ])
    error_message = "An answer of API Gateway's own is no JSON, or says another status than it has."
  }

  assert {
    condition = alltrue([
      for problem in values(local.gateway_problems) :
      strcontains(file("../../shared/kernel/src/problem.rs"), "(\"${problem.code}\", ${problem.status}, \"${problem.title}\")")
    ])
    error_message = "A problem of API Gateway's own has a code, status or title that shared/kernel/src/problem.rs does not know."
  }

  assert {
    condition     = output.api_url == "https://mock.execute-api.eu-central-1.amazonaws.com/api" && output.domain_target == null
    error_message = "Without a domain the address is API Gateway's."
  }
}

run "a_domain_of_ones_own" {
  command = apply

  variables {
    domain = { name = "api.example.com", certificate_arn = "arn:aws:acm:eu-central-1:111122223333:certificate/0000" }
  }

  assert {
    condition     = output.api_url == "https://api.example.com" && aws_api_gateway_rest_api.this.disable_execute_api_endpoint && output.domain_target != null
    error_message = "With a domain it is the only address."
  }
}
