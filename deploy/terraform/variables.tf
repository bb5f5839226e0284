variable "name" {
  description = "Name of everything, and prefix of the streams' names."
  type        = string
  default     = "forebay"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,19}$", var.name))
    error_message = "At most 20 of a-z, 0-9 and -, the first a letter: a balancer's name has 32 characters."
  }
}

# --- Network

variable "vpc_id" {
  description = "VPC of the balancer and the instances."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of the balancer, one a zone: public ones, unless it is internal."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "Two zones at least: one may be lost."
  }
}

variable "instance_subnet_ids" {
  description = "Subnets of the instances, in the zones of subnet_ids; null is the same ones. They need a way to AWS's endpoints."
  type        = list(string)
  default     = null
}

variable "public_addresses" {
  description = "Give instances public addresses, where their subnets have no NAT gateway. Nothing but the balancer reaches them."
  type        = bool
  default     = false
}

variable "internal" {
  description = "A balancer that only the VPC and what is connected to it can reach."
  type        = bool
  default     = false
}

variable "allowed_cidrs" {
  description = "IPv4 networks that may reach the gateway's port."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for cidr in var.allowed_cidrs : can(cidrnetmask(cidr))])
    error_message = "Networks are written like 198.51.100.0/24."
  }
}

variable "ipv6" {
  description = "A second balancer, for IPv6 by TCP: HTTP/1.1 and HTTP/2. The subnets need IPv6, those of the instances too."
  type        = bool
  default     = false
}

variable "allowed_ipv6_cidrs" {
  description = "IPv6 networks that may reach the gateway's port, where ipv6 is set."
  type        = list(string)
  default     = ["::/0"]

  validation {
    condition     = alltrue([for cidr in var.allowed_ipv6_cidrs : can(cidrhost(cidr, 0)) && strcontains(cidr, ":")])
    error_message = "Networks are written like 2001:db8::/32."
  }
}

variable "port" {
  description = "Port for TCP and UDP, at the balancer and at the instances: HTTP/3 is announced for the port that it is served on."
  type        = number
  default     = 8443

  validation {
    condition     = var.port >= 1 && var.port <= 65535 && var.port != 9444
    error_message = "A port is 1 to 65535; 9444 is the admin address."
  }
}

variable "stickiness" {
  description = "Keep a source address at one instance, so that QUIC survives a change of the device's port and an idle time above 120 s. Switch it off where a large part of the fleet shares an address."
  type        = bool
  default     = true
}

# --- Instances

variable "ami" {
  description = "Image of Debian 12 or later, or one made from it. A new one replaces the instances, one after the other."
  type        = string

  validation {
    condition     = can(regex("^ami-[0-9a-f]{8,17}$", var.ami))
    error_message = "An image's id is written like ami-0123456789abcdef0."
  }
}

variable "root_device_name" {
  description = "Root device of the image; `aws ec2 describe-images` tells it."
  type        = string
  default     = "/dev/xvda"
}

variable "instance_type" {
  description = "Type of the instances, of the image's and the package's architecture."
  type        = string
  default     = "c7g.large"
}

variable "package" {
  description = "Debian package of Forebay: where to fetch it when an instance first boots, and its SHA-256. null: the image has it, and awscli."
  type        = object({ url = string, sha256 = string })

  validation {
    condition     = var.package == null || can(regex("^https://[^\\s'\"\\\\]+$", var.package.url))
    error_message = "The package comes over https."
  }
  validation {
    condition     = var.package == null || can(regex("^[0-9a-f]{64}$", var.package.sha256))
    error_message = "A SHA-256 is 64 hex digits, in lower case."
  }
}

variable "size" {
  description = "Fewest and most instances."
  type        = object({ min = number, max = number })
  default     = { min = 2, max = 6 }

  validation {
    condition     = var.size.min >= 1 && var.size.max >= var.size.min
    error_message = "At least one, and no more at least than at most."
  }
}

variable "cpu_target" {
  description = "Load in percent at which the group keeps its instances."
  type        = number
  default     = 50

  validation {
    condition     = var.cpu_target >= 10 && var.cpu_target <= 90
    error_message = "10 to 90 percent."
  }
}

variable "drain_seconds" {
  description = "FOREBAY_DRAIN_TIMEOUT: how long a gateway may take to end. The balancer and systemd wait longer than that."
  type        = number
  default     = 30

  validation {
    condition     = var.drain_seconds >= 1 && var.drain_seconds <= 600 && floor(var.drain_seconds) == var.drain_seconds
    error_message = "1 to 600 whole seconds."
  }
}

# --- Gateway

variable "kafka" {
  description = "Kafka in the place of Kinesis, such as MSK: its brokers, by TLS; their security group; the secret of a SCRAM user, {\"username\", \"password\"}, and the key that encrypts it; or the ARN of the MSK cluster, which knows the instances by IAM. Without either no user is named."
  type = object({
    bootstrap_servers  = string
    security_group_id  = string
    secret_arn         = optional(string)
    secret_kms_key_arn = optional(string)
    iam_cluster_arn    = optional(string)
  })
  default = null

  validation {
    condition     = var.kafka == null || can(regex("^[A-Za-z0-9.-]+:[0-9]+(,[A-Za-z0-9.-]+:[0-9]+)*$", var.kafka.bootstrap_servers))
    error_message = "Brokers are written like b-1.example.com:9096,b-2.example.com:9096."
  }
  validation {
    condition     = try(var.kafka.secret_arn, null) == null || can(regex("^arn:[a-z-]+:secretsmanager:", var.kafka.secret_arn))
    error_message = "The whole ARN of a secret, with the six characters that AWS puts at its end."
  }
  validation {
    condition     = try(var.kafka.iam_cluster_arn, null) == null || can(regex("^arn:[a-z-]+:kafka:[a-z0-9-]+:[0-9]{12}:cluster/[^/]+/[^/]+$", var.kafka.iam_cluster_arn))
    error_message = "The whole ARN of an MSK cluster, with its name and its id."
  }
  validation {
    condition     = try(var.kafka.iam_cluster_arn, null) == null || try(var.kafka.secret_arn, null) == null
    error_message = "The brokers know the instances by a secret's user or by IAM, not by both."
  }
}

variable "streams" {
  description = "Streams as devices name them; the first is the default one. Each is a Kinesis stream, or a Kafka topic that is there, called <name>-<stream>."
  type        = list(string)
  default     = ["telemetry"]

  validation {
    condition     = length(var.streams) > 0 && length(distinct(var.streams)) == length(var.streams)
    error_message = "At least one stream, and none twice."
  }
  validation {
    condition     = alltrue([for stream in var.streams : can(regex("^[A-Za-z0-9_.-]{1,100}$", stream))])
    error_message = "A stream's name is 1 to 100 of A-Z a-z 0-9 _ . -"
  }
}

variable "stream_retention_hours" {
  description = "How long the streams keep a reading, 24 to 8760 hours."
  type        = number
  default     = 24
}

variable "stream_kms_key_arn" {
  description = "Key that encrypts the streams; null is AWS's own for Kinesis."
  type        = string
  default     = null
}

variable "server_secret_arn" {
  description = "Secret of the server: {\"certificate\": chain in PEM, \"key\": key in PEM}."
  type        = string

  validation {
    condition     = can(regex("^arn:[a-z-]+:secretsmanager:", var.server_secret_arn))
    error_message = "The whole ARN of a secret, with the six characters that AWS puts at its end."
  }
}

variable "devices_secret_arn" {
  description = "Secret of what devices are held to: {\"ca\": bundle in PEM, \"crl\": list in PEM, where there is one}."
  type        = string

  validation {
    condition     = can(regex("^arn:[a-z-]+:secretsmanager:", var.devices_secret_arn))
    error_message = "The whole ARN of a secret, with the six characters that AWS puts at its end."
  }
}

variable "secrets_kms_key_arn" {
  description = "Key that encrypts the secrets, where it is not AWS's own."
  type        = string
  default     = null
}

variable "crl" {
  description = "The devices' secret has a list of revoked certificates. Without one, no device can be locked out before its certificate ends."
  type        = bool
  default     = true
}

variable "settings" {
  description = "Further settings of the gateway: FOREBAY_*, AWS_*, OTEL_*. They stand in the launch template for all to read: no secrets."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^(FOREBAY|AWS|OTEL)_[A-Z0-9_]+$", name))])
    error_message = "Settings are FOREBAY_*, AWS_* and OTEL_*."
  }
  validation {
    condition     = alltrue([for name in keys(var.settings) : !contains(local.reserved, name)])
    error_message = "The module itself sets ${join(", ", local.reserved)}: see its other variables."
  }
  validation {
    condition     = alltrue([for name in keys(var.settings) : var.kafka != null || !can(regex("^FOREBAY_KAFKA_", name))])
    error_message = "Readings go to Kinesis, unless kafka says otherwise."
  }
  validation {
    condition     = alltrue([for name in keys(var.settings) : !can(regex("^FOREBAY_SPOOL_", name))])
    error_message = "There is no spool: an instance's disk ends with it, and readings that devices believe safe would end too."
  }
  validation {
    condition     = alltrue([for value in values(var.settings) : can(regex("^[^\\s'\"\\\\]([^\\r\\n'\"\\\\]*[^\\s'\"\\\\])?$", value))])
    error_message = "A value is not empty, and has no quotes, backslashes, line breaks or blanks around it."
  }
}

# --- Logs, sessions, alarms, tags

variable "log_retention_days" {
  description = "How long CloudWatch Logs keeps what the instances write."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "CloudWatch Logs keeps for 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365 days, and some longer times."
  }
}

variable "session_manager" {
  description = "Whoever IAM lets start a session can look at an instance. The agent of Session Manager is installed at the first boot, unless the image has it."
  type        = bool
  default     = true
}

variable "alarm_topic_arns" {
  description = "SNS topics that alarms are sent to."
  type        = list(string)
  default     = []
}

variable "certificate_days" {
  description = "Days before the end of the server's certificate from which on there is an alarm."
  type        = number
  default     = 14

  validation {
    condition     = var.certificate_days >= 1
    error_message = "One day at least."
  }
}

variable "tags" {
  description = "Tags of instances and their volumes; all else has the provider's default_tags."
  type        = map(string)
  default     = {}
}
