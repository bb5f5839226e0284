variable "region" {
  description = "Region of everything."
  type        = string
}

variable "vpc_id" {
  description = "VPC of the balancer and the instances."
  type        = string
}

variable "public_subnet_ids" {
  description = "Subnets of the balancer, one a zone."
  type        = list(string)
}

variable "private_subnet_ids" {
  description = "Subnets of the instances, in the same zones."
  type        = list(string)
}

variable "ami" {
  description = "Image of Debian 12 or later for arm64."
  type        = string
}

variable "package" {
  description = "Forebay's package for arm64, and its SHA-256."
  type        = object({ url = string, sha256 = string })
}

variable "server_secret_arn" {
  description = "Secret with the server's certificate and key."
  type        = string
}

variable "devices_secret_arn" {
  description = "Secret with the devices' authorities and their list of revoked certificates."
  type        = string
}
