# functions -> proxy -> database, and nothing else in. Functions go out to the model's provider and to AWS, through the subnets' NAT gateway.

resource "aws_security_group" "functions" {
  name        = "${var.name}-functions"
  description = "astra-edge: the functions"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "functions_https" {
  security_group_id = aws_security_group.functions.id
  description       = "Model providers, Secrets Manager, SQS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "functions_proxy" {
  security_group_id            = aws_security_group.functions.id
  description                  = "The proxy"
  referenced_security_group_id = aws_security_group.proxy.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_security_group" "proxy" {
  name        = "${var.name}-proxy"
  description = "astra-edge: RDS Proxy"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "proxy_functions" {
  security_group_id            = aws_security_group.proxy.id
  description                  = "The functions"
  referenced_security_group_id = aws_security_group.functions.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_vpc_security_group_egress_rule" "proxy_database" {
  security_group_id            = aws_security_group.proxy.id
  description                  = "The database"
  referenced_security_group_id = aws_security_group.database.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_security_group" "database" {
  name        = "${var.name}-database"
  description = "astra-edge: Postgres"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "database_proxy" {
  security_group_id            = aws_security_group.database.id
  description                  = "The proxy"
  referenced_security_group_id = aws_security_group.proxy.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_vpc_security_group_ingress_rule" "database_migrations" {
  for_each = var.migration_security_group_ids

  security_group_id            = aws_security_group.database.id
  description                  = "Where migrations run"
  referenced_security_group_id = each.key
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}
