# What each variable changes, and what is refused. Nothing is asked of AWS: `terraform test`.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { id = "eu-central-1" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
}

variables {
  vpc_id             = "vpc-1"
  subnet_ids         = ["subnet-1", "subnet-2"]
  ami                = "ami-0123456789abcdef0"
  package            = { url = "https://example.com/forebay.deb", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }
  server_secret_arn  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:server-AbCdEf"
  devices_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:devices-AbCdEf"
}

run "defaults" {
  command = plan

  assert {
    condition     = aws_lb.this.internal == false && aws_lb_listener.this.port == 8443
    error_message = "Devices come from the internet, at 8443."
  }
  assert {
    condition     = toset(aws_autoscaling_group.this.vpc_zone_identifier) == toset(var.subnet_ids)
    error_message = "Instances stand where the balancer does, unless told otherwise."
  }
  assert {
    condition     = output.environment.FOREBAY_STREAMS == "telemetry=forebay-telemetry"
    error_message = "One stream, named after the gateway."
  }
  assert {
    condition     = length(local.stream_key_allowed) + length(local.secrets_key_allowed) == 0
    error_message = "AWS's own keys need no right."
  }
}

run "keys_of_ones_own" {
  command = plan
  variables {
    stream_kms_key_arn  = "arn:aws:kms:eu-central-1:123456789012:key/1"
    secrets_kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/2"
  }

  assert {
    condition = (local.stream_key_allowed[0].Action == ["kms:GenerateDataKey"] && local.stream_key_allowed[0].Resource == [var.stream_kms_key_arn]
    && local.secrets_key_allowed[0].Action == ["kms:Decrypt"] && local.secrets_key_allowed[0].Resource == [var.secrets_kms_key_arn])
    error_message = "Each key for what it is needed for."
  }
  assert {
    condition     = module.stream["telemetry"].kms_key_id == var.stream_kms_key_arn
    error_message = "The stream is encrypted with the key."
  }
}

run "an_image_that_has_everything" {
  command = plan
  variables {
    package = null
  }

  assert {
    condition     = keys(aws_vpc_security_group_egress_rule.endpoints) == ["443"]
    error_message = "Without a package, Debian's mirrors are not needed."
  }
}

run "a_port_below_1024" {
  command = plan
  variables {
    port = 443
  }

  assert {
    condition     = strcontains(local.unprivileged_ports, "= 443\n") && aws_lb_target_group.this.port == 443
    error_message = "The gateway is not root, and must be let."
  }
}

run "without_a_list_of_revoked_certificates" {
  command = plan
  variables {
    crl = false
  }

  assert {
    condition     = !can(output.environment.FOREBAY_TLS_CRL)
    error_message = "There is no such file then."
  }
}

run "a_longer_drain" {
  command = plan
  variables {
    drain_seconds = 120
  }

  assert {
    condition     = tonumber(aws_lb_target_group.this.deregistration_delay) == 180 && strcontains(local.unit, "TimeoutStopSec=135s")
    error_message = "Balancer and systemd wait for it."
  }
}

run "refused_reserved" {
  command = plan
  variables {
    settings = { FOREBAY_LISTEN = "0.0.0.0:443" }
  }
  expect_failures = [var.settings]
}

run "refused_spool" {
  command = plan
  variables {
    settings = { FOREBAY_SPOOL_DIR = "/var/lib/forebay/spool" }
  }
  expect_failures = [var.settings]
}

run "refused_crl_beside_the_secret" {
  command = plan
  variables {
    crl      = false
    settings = { FOREBAY_TLS_CRL = "/etc/crl.pem" }
  }
  expect_failures = [var.settings]
}

run "refused_empty_setting" {
  command = plan
  variables {
    settings = { FOREBAY_DEVICE_RATE = "" }
  }
  expect_failures = [var.settings]
}

run "refused_line_break" {
  command = plan
  variables {
    settings = { FOREBAY_DEVICE_RATE = "1\nFOREBAY_ACK=queued" }
  }
  expect_failures = [var.settings]
}

run "refused_name" {
  command = plan
  variables {
    settings = { PATH = "/tmp" }
  }
  expect_failures = [var.settings]
}

run "refused_plain_http" {
  command = plan
  variables {
    package = { url = "http://example.com/forebay.deb", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }
  }
  expect_failures = [var.package]
}

run "refused_checksum" {
  command = plan
  variables {
    package = { url = "https://example.com/forebay.deb", sha256 = "e3b0" }
  }
  expect_failures = [var.package]
}

run "refused_ranges" {
  command = plan
  variables {
    name               = "A_NAME"
    subnet_ids         = ["subnet-1"]
    allowed_cidrs      = ["everyone"]
    port               = 9444
    ami                = "debian"
    size               = { min = 3, max = 2 }
    cpu_target         = 100
    drain_seconds      = 0.5
    streams            = ["telemetry", "telemetry"]
    certificate_days   = 0
    server_secret_arn  = "forebay/server"
    devices_secret_arn = "forebay/devices"
  }
  expect_failures = [
    var.name, var.subnet_ids, var.allowed_cidrs, var.port, var.ami, var.size, var.cpu_target, var.drain_seconds, var.streams,
    var.certificate_days, var.server_secret_arn, var.devices_secret_arn,
  ]
}

run "kafka" {
  command = plan
  variables {
    streams = ["telemetry", "alarms"]
    kafka = {
      bootstrap_servers  = "b-1.example.com:9096,b-2.example.com:9096"
      security_group_id  = "sg-brokers"
      secret_arn         = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:AmazonMSK_forebay-AbCdEf"
      secret_kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/3"
    }
    settings = { FOREBAY_KAFKA_COMPRESSION_TYPE = "zstd" }
  }

  assert {
    condition     = length(module.stream) == 0 && length(output.stream_arns) == 0 && length(local.streams_allowed) == 0
    error_message = "No Kinesis, and no right to it."
  }
  assert {
    condition = (output.environment.FOREBAY_SINK == "kafka" && output.environment.FOREBAY_STREAMS == "telemetry=forebay-telemetry,alarms=forebay-alarms"
      && output.environment.FOREBAY_KAFKA_SECURITY_PROTOCOL == "sasl_ssl" && output.environment.FOREBAY_KAFKA_SASL_MECHANISMS == "SCRAM-SHA-512"
      && output.environment.FOREBAY_KAFKA_SASL_PASSWORD_FILE == "/etc/forebay/tls/kafka.password"
    && !can(output.environment.FOREBAY_KAFKA_SASL_PASSWORD) && !can(output.environment.AWS_REGION))
    error_message = "The brokers by TLS and SCRAM; the password is not in the launch template."
  }
  assert {
    condition     = contains(local.secrets_allowed[0].Resource, var.kafka.secret_arn) && local.secrets_key_allowed[0].Resource == [var.kafka.secret_kms_key_arn]
    error_message = "An instance may read the user."
  }
  assert {
    condition     = keys(aws_vpc_security_group_egress_rule.kafka) == ["9096"] && aws_vpc_security_group_ingress_rule.kafka["9096"].security_group_id == "sg-brokers"
    error_message = "A way to the brokers and into them."
  }
}

run "kafka_without_a_user" {
  command = plan
  variables {
    kafka = { bootstrap_servers = "b-1.example.com:9094", security_group_id = "sg-brokers" }
  }

  assert {
    condition     = output.environment.FOREBAY_KAFKA_SECURITY_PROTOCOL == "ssl" && !can(output.environment.FOREBAY_KAFKA_SASL_MECHANISMS)
    error_message = "TLS alone."
  }
}

run "msk_by_iam" {
  command = plan
  variables {
    streams = ["telemetry", "alarms"]
    kafka = {
      bootstrap_servers = "b-1.example.com:9098"
      security_group_id = "sg-brokers"
      iam_cluster_arn   = "arn:aws:kafka:eu-central-1:123456789012:cluster/fleet/0a1b"
    }
  }

  assert {
    condition = (output.environment.FOREBAY_KAFKA_SECURITY_PROTOCOL == "sasl_ssl" && output.environment.FOREBAY_KAFKA_SASL_MECHANISMS == "AWS_MSK_IAM"
    && can(output.environment.AWS_REGION) && !can(output.environment.FOREBAY_KAFKA_SASL_PASSWORD_FILE))
    error_message = "Tokens of IAM, and no secret."
  }
  assert {
    condition = (local.msk_allowed[0].Resource == [var.kafka.iam_cluster_arn] && local.msk_allowed[1].Resource == [
      "arn:aws:kafka:eu-central-1:123456789012:topic/fleet/0a1b/forebay-telemetry",
      "arn:aws:kafka:eu-central-1:123456789012:topic/fleet/0a1b/forebay-alarms",
    ])
    error_message = "Rights on the cluster and its topics."
  }
  assert {
    condition     = length(local.secrets_allowed[0].Resource) == 2
    error_message = "No further secret."
  }
}

run "ipv6" {
  command = plan
  variables {
    ipv6 = true
  }

  assert {
    condition     = output.environment.FOREBAY_LISTEN == "[::]:8443" && output.environment.FOREBAY_ADMIN_LISTEN == "[::]:9444"
    error_message = "The gateway listens on both families."
  }
  assert {
    condition = (aws_lb.ipv6[0].ip_address_type == "dualstack" && aws_lb_listener.ipv6[0].protocol == "TCP"
    && aws_lb_target_group.ipv6[0].ip_address_type == "ipv6" && tobool(aws_launch_template.this.network_interfaces[0].primary_ipv6))
    error_message = "Devices' addresses are kept, by IPv6 to IPv6."
  }
  assert {
    condition     = keys(aws_vpc_security_group_ingress_rule.devices_ipv6) == ["::/0"]
    error_message = "Devices may come in."
  }
}

run "without_sessions" {
  command = plan
  variables {
    session_manager = false
  }

  assert {
    condition     = length(local.sessions_allowed) == 0 && local.instance_environment.SESSIONS_URL == ""
    error_message = "No right, and no agent."
  }
}

run "refused_kafka_beside_kinesis" {
  command = plan
  variables {
    settings = { FOREBAY_KAFKA_BOOTSTRAP_SERVERS = "b-1.example.com:9096" }
  }
  expect_failures = [var.settings]
}

run "refused_kafka_password" {
  command = plan
  variables {
    kafka    = { bootstrap_servers = "b-1.example.com:9096", security_group_id = "sg-brokers" }
    settings = { FOREBAY_KAFKA_SASL_PASSWORD = "a" }
  }
  expect_failures = [var.settings]
}

run "refused_msk_by_both" {
  command = plan
  variables {
    kafka = {
      bootstrap_servers = "b-1.example.com:9098"
      security_group_id = "sg-brokers"
      secret_arn        = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:AmazonMSK_forebay-AbCdEf"
      iam_cluster_arn   = "arn:aws:kafka:eu-central-1:123456789012:cluster/fleet/0a1b"
    }
  }
  expect_failures = [var.kafka]
}

run "refused_ranges_of_logs_ipv6_and_kafka" {
  command = plan
  variables {
    log_retention_days = 8
    allowed_ipv6_cidrs = ["10.0.0.0/8"]
    kafka              = { bootstrap_servers = "b-1.example.com", security_group_id = "sg-brokers" }
  }
  expect_failures = [var.log_retention_days, var.allowed_ipv6_cidrs, var.kafka]
}
