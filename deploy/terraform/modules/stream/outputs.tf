output "name" {
  description = "Name of the stream."
  value       = aws_kinesis_stream.this.name
}

output "arn" {
  description = "ARN of the stream."
  value       = aws_kinesis_stream.this.arn
}

output "kms_key_id" {
  description = "Key that encrypts the stream."
  value       = aws_kinesis_stream.this.kms_key_id
}
