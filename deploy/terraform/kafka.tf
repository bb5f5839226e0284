# Kafka in the place of Kinesis: a way to its brokers, by the ports that they are named with. The topics are there already.

locals {
  kafka_secret   = try(coalesce(var.kafka.secret_arn, ""), "")
  kafka_password = "/etc/forebay/tls/kafka.password"
  # MSK whose users are roles: this is its cluster.
  msk_cluster = try(coalesce(var.kafka.iam_cluster_arn, ""), "")
  kafka_ports = var.kafka == null ? [] : distinct([for server in split(",", var.kafka.bootstrap_servers) : split(":", server)[1]])
}

resource "aws_vpc_security_group_egress_rule" "kafka" {
  for_each                     = toset(local.kafka_ports)
  security_group_id            = aws_security_group.instance.id
  description                  = "Kafka"
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.key)
  to_port                      = tonumber(each.key)
  referenced_security_group_id = var.kafka.security_group_id
}

resource "aws_vpc_security_group_ingress_rule" "kafka" {
  for_each                     = toset(local.kafka_ports)
  security_group_id            = var.kafka.security_group_id
  description                  = "Gateways of ${var.name}"
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.key)
  to_port                      = tonumber(each.key)
  referenced_security_group_id = aws_security_group.instance.id
}
