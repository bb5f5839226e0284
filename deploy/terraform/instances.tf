# The instances: what each is given at boot, and how the group keeps, replaces and adds them. They hold nothing: there is no spool,
# for an instance's disk ends with it.

locals {
  certificates = "/etc/forebay/tls/current"

  # A balancer takes a while until it sends traffic to a new target; before that no other one should go.
  warmup_seconds = 180

  # What settings cannot name: the module needs to know it.
  listen = var.ipv6 ? "[::]" : "0.0.0.0"
  own_environment = merge(
    {
      FOREBAY_LISTEN        = "${local.listen}:${var.port}"
      FOREBAY_ADMIN_LISTEN  = "${local.listen}:${local.admin_port}"
      FOREBAY_TLS_CERT      = "${local.certificates}/server.pem"
      FOREBAY_TLS_KEY       = "${local.certificates}/server.key"
      FOREBAY_TLS_CLIENT_CA = "${local.certificates}/devices-ca.pem"
      FOREBAY_SINK          = var.kafka == null ? "kinesis" : "kafka"
      FOREBAY_STREAMS       = join(",", [for name in var.streams : "${name}=${var.kafka == null ? module.stream[name].name : "${var.name}-${name}"}"])
      FOREBAY_DRAIN_TIMEOUT = "${var.drain_seconds}s"
    },
    var.crl ? { FOREBAY_TLS_CRL = "${local.certificates}/devices-crl.pem" } : {},
    var.kafka == null ? { AWS_REGION  = data.aws_region.current.id } : {
      FOREBAY_KAFKA_BOOTSTRAP_SERVERS = var.kafka.bootstrap_servers
      FOREBAY_KAFKA_SECURITY_PROTOCOL = local.kafka_secret == "" && local.msk_cluster == "" ? "ssl" : "sasl_ssl"
      FOREBAY_KAFKA_SSL_CA_LOCATION   = "/etc/ssl/certs/ca-certificates.crt"
    },
    local.kafka_secret == "" ? {} : {
      FOREBAY_KAFKA_SASL_MECHANISMS    = "SCRAM-SHA-512"
      FOREBAY_KAFKA_SASL_PASSWORD_FILE = local.kafka_password
    },
    local.msk_cluster == "" ? {} : {
      AWS_REGION                    = data.aws_region.current.id
      FOREBAY_KAFKA_SASL_MECHANISMS = "AWS_MSK_IAM"
    },
  )
  reserved = sort(distinct(concat(keys(local.own_environment), [
    "AWS_REGION", "FOREBAY_TLS_CRL", "FOREBAY_KAFKA_SASL_USERNAME", "FOREBAY_KAFKA_SASL_PASSWORD",
    "FOREBAY_KAFKA_SASL_PASSWORD_FILE",
  ])))
  # The audit log goes to the journal, and with it to CloudWatch Logs.
  environment = merge({ FOREBAY_AUDIT_LOG = "stdout" }, var.settings, local.own_environment)

  # For files/instance.py and files/boot.
  instance_environment = {
    AWS_REGION     = data.aws_region.current.id
    GATEWAY        = var.name
    SERVER_SECRET  = var.server_secret_arn
    DEVICES_SECRET = var.devices_secret_arn
    KAFKA_SECRET   = local.kafka_secret
    LOG_GROUP      = aws_cloudwatch_log_group.this.name
    SESSIONS_URL   = var.session_manager ? "https://s3.${data.aws_region.current.id}.${data.aws_partition.current.dns_suffix}/amazon-ssm-${data.aws_region.current.id}/latest" : ""
    PACKAGE_URL    = try(var.package.url, "")
    PACKAGE_SHA256 = try(var.package.sha256, "")
  }

  # It needs no service that fetches: after a reboot the files on disk serve, whether Secrets Manager answers or not.
  unit = <<-E
    [Service]
    EnvironmentFile=
    EnvironmentFile=/etc/forebay/gateway.env
    EnvironmentFile=-/etc/forebay/kafka.env
    TimeoutStopSec=${var.drain_seconds + 15}s
  E

  # Ports below 1024 are root's otherwise, which the gateway is not.
  unprivileged_ports = "net.ipv4.ip_unprivileged_port_start = ${min(var.port, 1024)}\n"

  files = {
    "/etc/forebay/gateway.env"                       = { mode = "0600", text = join("", [for name, value in local.environment : "${name}=${value}\n"]) }
    "/etc/forebay/instance.env"                      = { mode = "0644", text = join("", [for name, value in local.instance_environment : "${name}='${value}'\n"]) }
    "/etc/sysctl.d/61-forebay-port.conf"             = { mode = "0644", text = local.unprivileged_ports }
    "/etc/systemd/system/forebay.service.d/aws.conf" = { mode = "0644", text = local.unit }
    "/etc/systemd/system/forebay-lifecycle.service"  = { mode = "0644", text = file("${path.module}/files/forebay-lifecycle.service") }
    "/etc/systemd/system/forebay-logs.service"       = { mode = "0644", text = file("${path.module}/files/forebay-logs.service") }
    "/etc/systemd/system/forebay-tls.service"        = { mode = "0644", text = file("${path.module}/files/forebay-tls.service") }
    "/etc/systemd/system/forebay-tls.timer"          = { mode = "0644", text = file("${path.module}/files/forebay-tls.timer") }
    "/usr/local/lib/forebay/boot"                    = { mode = "0755", text = file("${path.module}/files/boot") }
    "/usr/local/lib/forebay/instance"                = { mode = "0755", text = file("${path.module}/files/instance.py") }
  }

  # cloud-init reads YAML, and JSON is YAML; it unpacks what is compressed.
  user_data = base64gzip("#cloud-config\n${jsonencode({
    write_files = [for path, file in local.files : { path = path, permissions = file.mode, content = file.text }]
    runcmd      = [["/usr/local/lib/forebay/boot"]]
  })}\n")
}

resource "aws_launch_template" "this" {
  name                   = var.name
  image_id               = var.ami
  instance_type          = var.instance_type
  update_default_version = true
  user_data              = local.user_data

  iam_instance_profile {
    arn = aws_iam_instance_profile.instance.arn
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  network_interfaces {
    associate_public_ip_address = var.public_addresses
    ipv6_address_count          = var.ipv6 ? 1 : null
    primary_ipv6                = var.ipv6 ? true : null # by which a target group knows it
    security_groups             = [aws_security_group.instance.id]
    delete_on_termination       = true
  }

  block_device_mappings {
    device_name = var.root_device_name
    ebs {
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  # CPU by the minute: target tracking sees a storm of reconnects before it is over.
  monitoring {
    enabled = true
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume"])
    content {
      resource_type = tag_specifications.key
      tags          = merge({ Name = var.name }, var.tags)
    }
  }

  lifecycle {
    precondition {
      condition     = length(local.user_data) / 4 * 3 <= 16384
      error_message = "The settings are too long: an instance is given 16 KiB at most."
    }
  }
}

resource "aws_autoscaling_group" "this" {
  name                      = var.name
  min_size                  = var.size.min
  max_size                  = var.size.max
  vpc_zone_identifier       = coalesce(var.instance_subnet_ids, var.subnet_ids)
  target_group_arns         = concat([aws_lb_target_group.this.arn], aws_lb_target_group.ipv6[*].arn)
  default_instance_warmup   = local.warmup_seconds
  wait_for_capacity_timeout = "20m"
  # The balancer asks whether the gateway serves, not whether it is ready: a machine whose gateway is dead is replaced, and while the
  # stream is away none is, since new ones would be no better.
  health_check_type         = "ELB"
  health_check_grace_period = local.warmup_seconds

  launch_template {
    id      = aws_launch_template.this.id
    version = aws_launch_template.this.latest_version
  }

  # An instance counts once its gateway is ready, and says so itself; one that never is, is replaced, and stops a rollout.
  initial_lifecycle_hook {
    name                 = "ready"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
    heartbeat_timeout    = 600
    default_result       = "ABANDON"
  }

  # A changed template replaces instances: new ones first, the way back by itself where they do not become ready.
  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 150
      instance_warmup        = local.warmup_seconds
      skip_matching          = true
      auto_rollback          = true
    }
  }

  # Without its policy an instance fetches nothing, and would be given up.
  depends_on = [aws_iam_role_policy.instance, aws_lb_listener.this, aws_vpc_security_group_egress_rule.endpoints]
}

resource "aws_autoscaling_policy" "cpu" {
  name                   = "${var.name}-cpu"
  autoscaling_group_name = aws_autoscaling_group.this.name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.cpu_target
    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}
