output "dns_name" {
  description = "Name of the balancer: what the devices' host name is an alias of."
  value       = aws_lb.this.dns_name
}

output "zone_id" {
  description = "Hosted zone of the balancer, for an alias record of Route 53."
  value       = aws_lb.this.zone_id
}

output "ipv6_dns_name" {
  description = "Name of the balancer for IPv6, for an AAAA record; null without ipv6."
  value       = one(aws_lb.ipv6[*].dns_name)
}

output "log_group_name" {
  description = "Group of CloudWatch Logs that has what the instances write."
  value       = aws_cloudwatch_log_group.this.name
}

output "port" {
  description = "Port for TCP and UDP."
  value       = var.port
}

output "stream_arns" {
  description = "ARNs of the Kinesis streams, by the names that devices know; none with kafka."
  value       = { for name, stream in module.stream : name => stream.arn }
}

output "autoscaling_group_name" {
  description = "Group of the instances."
  value       = aws_autoscaling_group.this.name
}

output "role_name" {
  description = "Role of the instances, for policies of your own."
  value       = aws_iam_role.instance.name
}

output "instance_security_group_id" {
  description = "Security group of the instances, for a rule of your own that lets Prometheus reach port 9444."
  value       = aws_security_group.instance.id
}

output "environment" {
  description = "What the gateway's environment is: `forebay check` reads it."
  value       = local.environment
}
