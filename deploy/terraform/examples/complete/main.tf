# Two streams, alarms by SNS, private instances that a NAT gateway or endpoints lead to AWS.

terraform {
  required_version = ">= 1.9"
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { Service = "forebay" }
  }
}

module "forebay" {
  source = "../.."

  vpc_id              = var.vpc_id
  subnet_ids          = var.public_subnet_ids
  instance_subnet_ids = var.private_subnet_ids

  ami     = var.ami
  package = var.package
  size    = { min = 2, max = 10 }

  streams            = ["telemetry", "alarms"]
  server_secret_arn  = var.server_secret_arn
  devices_secret_arn = var.devices_secret_arn
  alarm_topic_arns   = [aws_sns_topic.pager.arn]

  settings = {
    FOREBAY_DEVICE_RATE       = "0.2"
    FOREBAY_DEVICE_BURST      = "10"
    FOREBAY_KINESIS_AGGREGATE = "true"
    FOREBAY_STREAM_ACCESS     = "alarms:plant-*;telemetry:*"
  }
}

resource "aws_sns_topic" "pager" {
  name = "forebay-alarms"
}
