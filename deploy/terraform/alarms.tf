# What to be told of; the alarms of the streams stand with them. Prometheus has more to say: deploy/prometheus.

locals {
  metrics_namespace = "Forebay"
  balancer_dimensions = {
    LoadBalancer = aws_lb.this.arn_suffix
    TargetGroup  = aws_lb_target_group.this.arn_suffix
  }
}

# The instances report it every five minutes.
resource "aws_cloudwatch_metric_alarm" "unready" {
  alarm_name          = "${var.name}-unready"
  alarm_description   = "A gateway cannot make readings safe: it cannot reach its stream, or has ended. Its /readyz and its log say why."
  namespace           = local.metrics_namespace
  metric_name         = "Ready"
  dimensions          = { Gateway = var.name }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 300
  evaluation_periods  = 2
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
}

resource "aws_cloudwatch_metric_alarm" "dead" {
  alarm_name          = "${var.name}-dead"
  alarm_description   = "A gateway does not serve, and its machine has not been replaced yet. Its log says why."
  namespace           = "AWS/NetworkELB"
  metric_name         = "UnHealthyHostCount"
  dimensions          = local.balancer_dimensions
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 5
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
}

resource "aws_cloudwatch_metric_alarm" "too_few" {
  alarm_name          = "${var.name}-too-few"
  alarm_description   = "Fewer gateways serve than the group has at least."
  namespace           = "AWS/NetworkELB"
  metric_name         = "HealthyHostCount"
  dimensions          = local.balancer_dimensions
  statistic           = "Maximum"
  comparison_operator = "LessThanThreshold"
  threshold           = var.size.min
  period              = 60
  evaluation_periods  = 5
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
}

# The instances report the certificate that is in force. Silence is an alarm too: nothing is renewed then.
resource "aws_cloudwatch_metric_alarm" "certificate" {
  alarm_name          = "${var.name}-certificate"
  alarm_description   = "The server's certificate ends soon, or no gateway has reported for an hour."
  namespace           = local.metrics_namespace
  metric_name         = "CertificateDaysLeft"
  dimensions          = { Gateway = var.name }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = var.certificate_days
  period              = 3600
  evaluation_periods  = 1
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  depends_on          = [aws_autoscaling_group.this]
}
