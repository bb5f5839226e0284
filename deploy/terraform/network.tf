# TCP and UDP come in at one port of the balancer, and go on to the same port of an instance with their source address kept.
# Instances take traffic from the balancer alone.

locals {
  protocols = ["tcp", "udp"]
  entrances = { for pair in setproduct(local.protocols, var.allowed_cidrs) : join(" ", pair) => pair }
}

resource "aws_lb" "this" {
  name                             = var.name
  load_balancer_type               = "network"
  internal                         = var.internal
  subnets                          = var.subnet_ids
  security_groups                  = [aws_security_group.balancer.id]
  enable_cross_zone_load_balancing = true
}

resource "aws_lb_listener" "this" {
  load_balancer_arn = aws_lb.this.arn
  port              = var.port
  protocol          = "TCP_UDP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}

resource "aws_lb_target_group" "this" {
  name                 = "${var.name}-${var.port}"
  vpc_id               = var.vpc_id
  target_type          = "instance"
  port                 = var.port
  protocol             = "TCP_UDP"
  preserve_client_ip   = true # limits by address count devices, not balancers
  deregistration_delay = local.deregistration_seconds
  # By then the gateway has gone: a flow that the balancer remembers would lead a device to nobody.
  connection_termination = true

  stickiness {
    enabled = var.stickiness
    type    = "source_ip"
  }

  # It serves, and does not drain. Whether it is ready is no question here: while the stream is away, a device is better told to wait
  # than refused.
  health_check {
    protocol            = "HTTP"
    port                = local.admin_port
    path                = "/servez"
    matcher             = "200"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "Devices to the balancer of ${var.name}"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "devices" {
  for_each          = local.entrances
  security_group_id = aws_security_group.balancer.id
  description       = "Devices"
  ip_protocol       = each.value[0]
  from_port         = var.port
  to_port           = var.port
  cidr_ipv4         = each.value[1]
}

resource "aws_vpc_security_group_egress_rule" "gateways" {
  for_each                     = toset(local.protocols)
  security_group_id            = aws_security_group.balancer.id
  description                  = "Gateways"
  ip_protocol                  = each.key
  from_port                    = var.port
  to_port                      = var.port
  referenced_security_group_id = aws_security_group.instance.id
}

resource "aws_vpc_security_group_egress_rule" "health" {
  security_group_id            = aws_security_group.balancer.id
  description                  = "Health check"
  ip_protocol                  = "tcp"
  from_port                    = local.admin_port
  to_port                      = local.admin_port
  referenced_security_group_id = aws_security_group.instance.id
}

resource "aws_security_group" "instance" {
  name        = "${var.name}-instance"
  description = "The balancer to the gateways of ${var.name}"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "balancer" {
  for_each                     = toset(local.protocols)
  security_group_id            = aws_security_group.instance.id
  description                  = "Devices, by the balancer"
  ip_protocol                  = each.key
  from_port                    = var.port
  to_port                      = var.port
  referenced_security_group_id = aws_security_group.balancer.id
}

resource "aws_vpc_security_group_ingress_rule" "health" {
  security_group_id            = aws_security_group.instance.id
  description                  = "Health check of the balancer"
  ip_protocol                  = "tcp"
  from_port                    = local.admin_port
  to_port                      = local.admin_port
  referenced_security_group_id = aws_security_group.balancer.id
}

resource "aws_vpc_security_group_egress_rule" "endpoints" {
  # 80: the mirrors of Debian, when a package is installed at boot.
  for_each          = toset(var.package == null ? ["443"] : ["443", "80"])
  security_group_id = aws_security_group.instance.id
  description       = each.key == "443" ? "AWS" : "Debian"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.key)
  to_port           = tonumber(each.key)
  cidr_ipv4         = "0.0.0.0/0"
}
