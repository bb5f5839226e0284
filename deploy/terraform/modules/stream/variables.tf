variable "name" {
  description = "Name of the Kinesis stream."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]{1,128}$", var.name))
    error_message = "A stream's name is 1 to 128 of A-Z a-z 0-9 _ . -"
  }
}

variable "retention_hours" {
  description = "How long the stream keeps a reading, 24 to 8760 hours."
  type        = number
  default     = 24

  validation {
    condition     = var.retention_hours >= 24 && var.retention_hours <= 8760
    error_message = "Kinesis keeps records for 24 to 8760 hours."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the stream; null is AWS's own for Kinesis."
  type        = string
  default     = null
}

variable "alarm_topic_arns" {
  description = "SNS topics that alarms are sent to."
  type        = list(string)
  default     = []
}
