# What the instances write, kept when they are gone: a stream of this group for each.

resource "aws_cloudwatch_log_group" "this" {
  name              = "/forebay/${var.name}"
  retention_in_days = var.log_retention_days
}
