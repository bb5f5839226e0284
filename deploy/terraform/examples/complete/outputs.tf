output "dns_name" {
  description = "Name of the balancer."
  value       = module.forebay.dns_name
}

output "stream_arns" {
  description = "The Kinesis streams, for their consumers."
  value       = module.forebay.stream_arns
}

output "environment" {
  description = "What the gateway's environment is."
  value       = module.forebay.environment
}
