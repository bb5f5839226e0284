# Forebay on AWS: a network balancer, a group of instances, and the Kinesis streams or the Kafka behind them.
#
#   network.tf    balancer, security groups        instances.tf  launch template, group, what an instance is given
#   iam.tf        what an instance may do          alarms.tf     what to be told of
#   ipv6.tf       a balancer for IPv6              kafka.tf      a way to the brokers
#   logs.tf       what instances write

data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  admin_port = 9444

  # What comes before the drain (the balancer stops sending new connections) and after it (late answers) takes a minute at most.
  deregistration_seconds = var.drain_seconds + 60
}

module "stream" {
  source   = "./modules/stream"
  for_each = toset(var.kafka == null ? var.streams : [])

  name             = "${var.name}-${each.key}"
  retention_hours  = var.stream_retention_hours
  kms_key_arn      = var.stream_kms_key_arn
  alarm_topic_arns = var.alarm_topic_arns
}
