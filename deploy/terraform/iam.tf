# What an instance may do, and nothing else: the calls of the gateway (docs/kinesis.md) and those of files/instance.py.

locals {
  # Of any account: a role has rights in its own only.
  groups = "arn:${data.aws_partition.current.partition}:autoscaling:${data.aws_region.current.id}:*:autoScalingGroup"

  streams_allowed = [for sink in(var.kafka == null ? ["kinesis"] : []) : {
    Sid      = "Streams"
    Effect   = "Allow"
    Action   = ["kinesis:PutRecords", "kinesis:DescribeStreamSummary", "kinesis:ListShards"]
    Resource = [for name in var.streams : module.stream[name].arn]
  }]
  # Of MSK by IAM. With the topic's settings the gateway finds at the start whether it takes the largest body.
  msk_allowed = flatten([for cluster in compact([local.msk_cluster]) : [
    {
      Sid      = "Cluster"
      Effect   = "Allow"
      Action   = ["kafka-cluster:Connect", "kafka-cluster:WriteDataIdempotently"]
      Resource = [cluster]
    },
    {
      Sid      = "Topics"
      Effect   = "Allow"
      Action   = ["kafka-cluster:DescribeTopic", "kafka-cluster:DescribeTopicDynamicConfiguration", "kafka-cluster:WriteData"]
      Resource = [for name in var.streams : "${replace(cluster, ":cluster/", ":topic/")}/${var.name}-${name}"]
    },
  ]])
  secrets_allowed = [{
    Sid      = "Secrets"
    Effect   = "Allow"
    Action   = ["secretsmanager:GetSecretValue"]
    Resource = distinct(compact([var.server_secret_arn, var.devices_secret_arn, local.kafka_secret]))
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
  logs_allowed = [{
    Sid      = "Logs"
    Effect   = "Allow"
    Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    Resource = ["arn:${data.aws_partition.current.partition}:logs:${data.aws_region.current.id}:*:log-group:/forebay/${var.name}:*"]
  }]
  # What Session Manager needs, and no more: AWS's own policy lets it read all parameters besides.
  sessions_allowed = [for agent in(var.session_manager ? ["ssm"] : []) : {
    Sid    = "Sessions"
    Effect = "Allow"
    Action = [
      "ssm:UpdateInstanceInformation", "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    ]
    Resource = ["*"]
  }]
  stream_key_allowed = [for key in compact([var.stream_kms_key_arn]) : {
    Sid      = "StreamKey"
    Effect   = "Allow"
    Action   = ["kms:GenerateDataKey"]
    Resource = [key]
  }]
  secrets_key_allowed = [for key in distinct(compact([var.secrets_kms_key_arn, try(var.kafka.secret_kms_key_arn, null)])) : {
    Sid      = "SecretsKey${key == var.secrets_kms_key_arn ? "" : "Kafka"}"
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
      local.streams_allowed, local.msk_allowed, local.secrets_allowed, local.launch_allowed, local.metrics_allowed, local.logs_allowed, local.sessions_allowed,
      local.stream_key_allowed, local.secrets_key_allowed,
    )
  })
}

resource "aws_iam_instance_profile" "instance" {
  name = "${var.name}-instance"
  role = aws_iam_role.instance.name
}
