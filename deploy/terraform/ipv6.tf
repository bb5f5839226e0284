# A balancer of its own for IPv6, by TCP alone: the one for IPv4 keeps the devices' addresses for TCP and UDP, which a balancer of both
# families does for neither. Instances have an address of each family, and the gateway listens on both.

resource "aws_lb" "ipv6" {
  count                            = var.ipv6 ? 1 : 0
  name                             = "${var.name}-ipv6"
  load_balancer_type               = "network"
  ip_address_type                  = "dualstack"
  internal                         = var.internal
  subnets                          = var.subnet_ids
  security_groups                  = [aws_security_group.balancer.id]
  enable_cross_zone_load_balancing = true
}

resource "aws_lb_listener" "ipv6" {
  count             = var.ipv6 ? 1 : 0
  load_balancer_arn = aws_lb.ipv6[0].arn
  port              = var.port
  protocol          = "TCP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.ipv6[0].arn
  }
}

resource "aws_lb_target_group" "ipv6" {
  count                  = var.ipv6 ? 1 : 0
  name                   = "${var.name}-${var.port}-ipv6"
  vpc_id                 = var.vpc_id
  target_type            = "instance"
  ip_address_type        = "ipv6"
  port                   = var.port
  protocol               = "TCP"
  preserve_client_ip     = true
  deregistration_delay   = local.deregistration_seconds
  connection_termination = true

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

resource "aws_vpc_security_group_ingress_rule" "devices_ipv6" {
  for_each          = toset(var.ipv6 ? var.allowed_ipv6_cidrs : [])
  security_group_id = aws_security_group.balancer.id
  description       = "Devices, by IPv6"
  ip_protocol       = "tcp"
  from_port         = var.port
  to_port           = var.port
  cidr_ipv6         = each.value
}
