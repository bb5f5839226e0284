# What an instance may do, and nothing else: the calls of the gateway (docs/kinesis.md) and those of files/instance.py.

locals {
  # Of any account: a role has rights in its own only.
  groups = "arn:${data.aws_partition.current.partition}:autoscaling:${data.aws_region.current.id}:*:autoScalingGroup"

  streams_allowed = [{
    Sid      = "Streams"
    Effect   = "Allow"
    Action   = ["kinesis:PutRecords", "kinesis:DescribeStreamSummary", "kinesis:ListShards"]
    Resource = [for name in var.streams : module.stream[name].arn]
  }]
  secrets_allowed = [{
    Sid      = "Secrets"
    Effect   = "Allow"
    Action   = ["secretsmanager:GetSecretValue"]
    Resource = distinct([var.server_secret_arn, var.devices_secret_arn])
  }]
  launch_allowed = [{
    Sid      = "Launch"
    Effect   = "Allow"
    Action   = ["autoscaling:CompleteLifecycleAction"]
    Resource = ["${local.groups}:*:autoScalingGroupName/${var.name}"]
  }]
  # A metric has no resource; its namespace is what can be held to.
  metrics_allowed = [{
    Sid       = "Metrics"
    Effect    = "Allow"
    Action    = ["cloudwatch:PutMetricData"]
    Resource  = ["*"]
    Condition = { StringEquals = { "cloudwatch:namespace" = local.metrics_namespace } }
  }]
  stream_key_allowed = [for key in compact([var.stream_kms_key_arn]) : {
    Sid      = "StreamKey"
    Effect   = "Allow"
    Action   = ["kms:GenerateDataKey"]
    Resource = [key]
  }]
  secrets_key_allowed = [for key in compact([var.secrets_kms_key_arn]) : {
    Sid      = "SecretsKey"
    Effect   = "Allow"
    Action   = ["kms:Decrypt"]
    Resource = [key]
  }]
}

resource "aws_iam_role" "instance" {
  name        = "${var.name}-instance"
  description = "Gateways of ${var.name}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "instance" {
  name = "gateway"
  role = aws_iam_role.instance.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      local.streams_allowed, local.secrets_allowed, local.launch_allowed, local.metrics_allowed,
      local.stream_key_allowed, local.secrets_key_allowed,
    )
  })
}

resource "aws_iam_instance_profile" "instance" {
  name = "${var.name}-instance"
  role = aws_iam_role.instance.name
}
