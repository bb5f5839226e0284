"""The Terraform module for AWS: its example planned with AWS's own provider, the streams applied to a Kinesis that is none, a gateway
that has the planned environment, and what the plan must hold. tests/deploy/test_instance.py has what an instance does."""

import base64
import functools
import gzip
import http.client
import json
import re
import shutil

import hcl2
import pytest
from conftest import DEPLOY, FOREBAY, ROOT, Gateway, run
from kinesis import REGION, Kinesis
from terraform import SOURCE, Plan, Terraform, program
from units import complaints

FILES = sorted(SOURCE.rglob("*.tf"))
PACKAGE = {"url": "https://packages.example.com/forebay_arm64.deb", "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
SECRET = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:forebay"
VARIABLES = {
    "region": REGION, "vpc_id": "vpc-1", "public_subnet_ids": ["subnet-1", "subnet-2"], "private_subnet_ids": ["subnet-3", "subnet-4"],
    "ami": "ami-0123456789abcdef0", "package": PACKAGE,
    "server_secret_arn": f"{SECRET}/server-AbCdEf", "devices_secret_arn": f"{SECRET}/devices-AbCdEf",
}
STREAMS = ["forebay-telemetry", "forebay-alarms"]
STREAM_CALLS = {"kinesis:PutRecords", "kinesis:DescribeStreamSummary", "kinesis:ListShards"}  # docs/kinesis.md

# https://docs.aws.amazon.com/elasticloadbalancing/latest/network/load-balancer-cloudwatch-metrics.html and
# https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html
METRICS = {
    ("AWS/NetworkELB", "UnHealthyHostCount"), ("AWS/NetworkELB", "HealthyHostCount"), ("Forebay", "CertificateDaysLeft"),
    ("Forebay", "Ready"),
    ("AWS/Kinesis", "WriteProvisionedThroughputExceeded"), ("AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds"),
}


@functools.cache
def parsed(file):
    return hcl2.loads(file.read_text())


def names(file, kind):
    return {name.strip('"') for block in parsed(file).get(kind, []) for name in block}


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES}), ids=lambda folder: folder.name)
def test_every_variable_is_declared_and_used(folder):
    """Also where there is no Terraform: all files are read."""
    text = "\n".join(file.read_text() for file in folder.glob("*.tf"))
    declared = set().union(*(names(file, "variable") for file in folder.glob("*.tf")))
    assert declared == set(re.findall(r"\bvar\.(\w+)", text))
    calls = [call for file in folder.glob("*.tf") for call in parsed(file).get("module", [])]
    for arguments in [arguments for call in calls for arguments in call.values()]:
        source = folder / arguments["source"].strip('"')
        given = {name for name in arguments if name not in ("source", "for_each") and not name.startswith("__")}
        assert given <= names(source / "variables.tf", "variable"), source


def test_the_readme_names_variables_and_outputs_that_there_are():
    readme = (SOURCE / "README.md").read_text()
    used = re.search(r"```hcl\n(module.*?\n)```", readme, re.S)[1]
    (call,) = hcl2.loads(used)["module"]
    (arguments,) = call.values()
    assert {name for name in arguments if name != "source" and not name.startswith("__")} <= names(SOURCE / "variables.tf", "variable")
    for kind in ("variable", "output"):
        listed = set(re.findall(r"^\| `(\w+)` \|", readme.split(f"## {kind.title()}s")[1].split("\n## ")[0], re.M))
        assert listed == names(SOURCE / f"{kind}s.tf", kind)


def test_it_is_formatted():
    run(program(), "fmt", "-check", "-recursive", "-diff", SOURCE)


@pytest.fixture(scope="module")
def kinesis():
    kinesis = Kinesis()
    yield kinesis
    kinesis.stop()


@pytest.fixture(scope="module")
def example(folder, kinesis):
    """The example, its streams applied."""
    far = {"skip_credentials_validation": True, "skip_requesting_account_id": True, "skip_metadata_api_check": True}
    provider = {"aws": far | {"endpoints": {"kinesis": kinesis.url}}}
    terraform = Terraform(folder / "terraform", "examples/complete", provider=provider)
    (terraform.folder / "test.auto.tfvars.json").write_text(json.dumps(VARIABLES))
    streams = [f'-target=module.forebay.module.stream["{name}"].aws_kinesis_stream.this' for name in ("telemetry", "alarms")]
    terraform("apply", "-auto-approve", "-refresh=false", *streams)
    yield terraform
    terraform("destroy", "-auto-approve", "-refresh=false", *streams)
    assert kinesis.streams() == [], "what was applied is destroyed"


@pytest.fixture(scope="module")
def plan(example):
    example("plan", "-out", "plan")
    return Plan(example("show", "-json", "plan"))


def test_it_is_valid(example):
    assert json.loads(example("validate", "-json"))["diagnostics"] == []


def test_variables(folder):
    """deploy/terraform/tests: what each one changes, and what is refused."""
    assert ", 0 failed" in Terraform(folder / "terraform")("test", "-no-color")


def test_streams_are_on_demand_and_encrypted(plan, kinesis):
    assert sorted(kinesis.streams()) == sorted(STREAMS)
    for stream in STREAMS:
        summary = kinesis.summary(stream)
        assert summary["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
        assert (summary["EncryptionType"], summary["KeyId"]) == ("KMS", "alias/aws/kinesis")
    made = {address: actions for address, actions in plan.actions.items() if "aws_kinesis_stream" in address}
    assert list(made.values()) == [["no-op"], ["no-op"]], "a second apply changes nothing"


def settings(plan):
    return plan.outputs["environment"]


def test_the_gateway_accepts_its_environment(plan):
    effective = run(FOREBAY, "check", env=settings(plan))
    for name, value in settings(plan).items():
        assert name.startswith("AWS_") or f"{name}={value}" in effective


@pytest.fixture(scope="module")
def calls(folder, plan, kinesis):
    """What a gateway with the planned environment asks of Kinesis while it puts a reading into a stream."""
    (folder / "planned").mkdir()
    here = {name: value for name, value in settings(plan).items() if not re.search(r"_LISTEN$|_TLS_", name)}
    aws = {"AWS_ENDPOINT_URL_KINESIS": kinesis.url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    before = len(kinesis.calls)
    gateway = Gateway(folder / "planned", **here, **aws)
    try:
        connection = http.client.HTTPSConnection("localhost", gateway.port, context=gateway.tls(), timeout=30)
        connection.request("POST", "/v1/telemetry", "a reading")
        assert connection.getresponse().status == 204
    finally:
        assert gateway.stop() == 0, "".join(gateway.log)
    return {f"kinesis:{operation}" for operation in kinesis.calls[before:]}


def test_a_gateway_puts_a_reading_into_the_stream(calls, kinesis):
    (record,) = kinesis.records("forebay-telemetry")
    assert b"a reading" in base64.b64decode(record["Data"])
    assert not kinesis.records("forebay-alarms")


def test_its_role_may_do_what_it_does_and_nothing_else(plan, calls):
    assert calls == STREAM_CALLS
    allow = {"Effect": "Allow"}
    assert json.loads(plan.one("aws_iam_role_policy")["policy"])["Statement"] == [
        allow | {"Sid": "Streams", "Action": ["kinesis:PutRecords", "kinesis:DescribeStreamSummary", "kinesis:ListShards"],
                 "Resource": [f"arn:aws:kinesis:{REGION}:000000000000:stream/{name}" for name in STREAMS]},
        allow | {"Sid": "Secrets", "Action": ["secretsmanager:GetSecretValue"],
                 "Resource": [VARIABLES["server_secret_arn"], VARIABLES["devices_secret_arn"]]},
        allow | {"Sid": "Launch", "Action": ["autoscaling:CompleteLifecycleAction"],
                 "Resource": [f"arn:aws:autoscaling:{REGION}:*:autoScalingGroup:*:autoScalingGroupName/forebay"]},
        allow | {"Sid": "Metrics", "Action": ["cloudwatch:PutMetricData"], "Resource": ["*"],
                 "Condition": {"StringEquals": {"cloudwatch:namespace": "Forebay"}}},
        allow | {"Sid": "Logs", "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                 "Resource": [f"arn:aws:logs:{REGION}:*:log-group:/forebay/forebay:*"]},
        allow | {"Sid": "Sessions", "Resource": ["*"], "Action": [
            "ssm:UpdateInstanceInformation", "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
            "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel"]},
    ]
    assert not plan.all("aws_iam_role_policy_attachment") and not plan.one("aws_iam_role").get("managed_policy_arns")
    trusted = json.loads(plan.one("aws_iam_role")["assume_role_policy"])["Statement"]
    assert [statement["Principal"] for statement in trusted] == [{"Service": "ec2.amazonaws.com"}]


def port_of(plan, name):
    return int(settings(plan)[name].rsplit(":", 1)[1])


def test_one_port_for_both_protocols(plan):
    listener, target = plan.one("aws_lb_listener"), plan.one("aws_lb_target_group")
    assert listener["protocol"] == target["protocol"] == "TCP_UDP"
    assert listener["port"] == target["port"] == port_of(plan, "FOREBAY_LISTEN")
    assert (target["preserve_client_ip"], target["target_type"]) == ("true", "instance")
    (stickiness,) = target["stickiness"]
    assert (stickiness["enabled"], stickiness["type"]) == (True, "source_ip")
    balancer = plan.one("aws_lb")
    assert balancer["load_balancer_type"] == "network" and balancer["enable_cross_zone_load_balancing"]


def test_a_machine_whose_gateway_is_dead_gets_no_devices_and_is_replaced(plan, gateway):
    """But none is whose stream is away: /servez is 200 then."""
    (check,) = plan.one("aws_lb_target_group")["health_check"]
    assert (check["protocol"], check["path"], check["matcher"]) == ("HTTP", "/servez", "200")
    assert int(check["port"]) == port_of(plan, "FOREBAY_ADMIN_LISTEN")
    assert gateway.ask_admin(check["path"])
    group = plan.one("aws_autoscaling_group")
    assert group["health_check_type"] == "ELB" and group["health_check_grace_period"] >= 120


def test_logs_leave_the_instance(plan):
    (group,) = plan.all("aws_cloudwatch_log_group").values()
    files = {file["path"]: file["content"] for file in cloud_config(plan)["write_files"]}
    assert f"LOG_GROUP='{group['name']}'" in files["/etc/forebay/instance.env"].splitlines() and group["retention_in_days"] == 30
    assert settings(plan)["FOREBAY_AUDIT_LOG"] == "stdout"


def test_files_on_disk_serve_while_secrets_manager_is_away(plan):
    """After a reboot too: nothing keeps the gateway from starting."""
    files = {file["path"]: file["content"] for file in cloud_config(plan)["write_files"]}
    drop_in = files["/etc/systemd/system/forebay.service.d/aws.conf"]
    assert not re.search(r"^(Requires|BindsTo|Requisite|PartOf|After)=", drop_in, re.M)


def open_to(plan, direction, *references):
    """Protocols and ports, of the rules from or to networks (none given), or from or to a group into another."""
    rules = plan.all(f"aws_vpc_security_group_{direction}_rule")
    found = set()
    for address, rule in rules.items():
        group, other = (plan.references(address, argument)[:1] for argument in ("security_group_id", "referenced_security_group_id"))
        assert rule["from_port"] == rule["to_port"] and bool(rule["cidr_ipv4"]) != bool(other)
        if (*group, *other) == tuple(f"aws_security_group.{name}.id" for name in references):
            found.add((rule["ip_protocol"], rule["from_port"]))
    return found


def test_the_internet_reaches_the_port_of_the_gateway_and_nothing_else(plan):
    port, admin = port_of(plan, "FOREBAY_LISTEN"), port_of(plan, "FOREBAY_ADMIN_LISTEN")
    assert open_to(plan, "ingress", "balancer") == {("tcp", port), ("udp", port)}
    assert open_to(plan, "ingress", "instance") == set()
    inside = {("tcp", port), ("udp", port), ("tcp", admin)}
    assert open_to(plan, "ingress", "instance", "balancer") == open_to(plan, "egress", "balancer", "instance") == inside
    assert open_to(plan, "egress", "instance") == {("tcp", 443), ("tcp", 80)} and open_to(plan, "egress", "balancer") == set()
    assert len(plan.all("aws_security_group")) == 2 and not plan.all("aws_security_group_rule")
    assert all(not group.get("ingress") for group in plan.all("aws_security_group").values())


def cloud_config(plan):
    packed = base64.b64decode(plan.one("aws_launch_template")["user_data"])
    first, _, rest = gzip.decompress(packed).decode().partition("\n")
    assert first == "#cloud-config" and len(packed) <= 16384 / 2, "there is room for settings"
    return json.loads(rest)


def test_an_instance_is_closed_and_its_disk_encrypted(plan):
    template = plan.one("aws_launch_template")
    (metadata,), (device,) = template["metadata_options"], template["block_device_mappings"]
    assert (metadata["http_tokens"], metadata["http_put_response_hop_limit"]) == ("required", 1)
    assert device["ebs"][0]["encrypted"] == "true"
    assert not template.get("key_name") and template["network_interfaces"][0]["associate_public_ip_address"] == "false"


def test_an_instance_is_given_the_environment(plan):
    files = {file["path"]: file for file in cloud_config(plan)["write_files"]}
    lines = files["/etc/forebay/gateway.env"]["content"].splitlines()
    assert dict(line.split("=", 1) for line in lines) == settings(plan)
    for name in ("boot", "instance"):
        assert files[f"/usr/local/lib/forebay/{name}"]["permissions"] == "0755"
    assert cloud_config(plan)["runcmd"] == [["/usr/local/lib/forebay/boot"]]


def test_its_units_are_what_systemd_understands(plan, folder):
    if not shutil.which("systemd-analyze"):
        pytest.skip("this machine has no systemd-analyze: THE UNITS WERE NOT LOOKED AT")
    home = folder / "instance-units"
    units = {file["path"]: file["content"] for file in cloud_config(plan)["write_files"] if file["path"].startswith("/etc/systemd/system/")}
    units["/etc/systemd/system/forebay.service"] = (DEPLOY / "systemd/forebay.service").read_text()
    for path, text in units.items():
        file = home / path.removeprefix("/etc/systemd/system/")
        file.parent.mkdir(parents=True, exist_ok=True)
        # Neither the programs nor the manual are installed here.
        file.write_text(re.sub(r"^Documentation=.*\n", "", re.sub(r"/usr/\S+/(?:forebay|instance)\b", str(FOREBAY), text), flags=re.M))
    assert len(units) == 6
    assert complaints(*home.glob("*.service"), *home.glob("*.timer")) == []


def test_a_drain_has_its_time(plan):
    """The balancer must still carry what is under way when the gateway ends; systemd must not kill it; docs: README, "A rollout"."""
    drain, late = int(settings(plan)["FOREBAY_DRAIN_TIMEOUT"].removesuffix("s")), 3  # src/gateway/shutdown.rs
    program = (SOURCE / "files/instance.py").read_text()
    before = sum(float(seconds) for seconds in re.findall(r'"(?:POLL|LEAD)_SECONDS", (\d+)\)', program))
    target = plan.one("aws_lb_target_group")
    assert before >= 30 and int(target["deregistration_delay"]) >= before + drain + late
    assert target["connection_termination"] is True
    unit = next(file["content"] for file in cloud_config(plan)["write_files"] if file["path"].endswith("aws.conf"))
    assert int(re.search(r"^TimeoutStopSec=(\d+)s$", unit, re.M)[1]) > drain + late


def test_a_rollout_starts_a_gateway_before_it_ends_one(plan):
    group = plan.one("aws_autoscaling_group")
    (refresh,), (hook,) = group["instance_refresh"], group["initial_lifecycle_hook"]
    (preferences,) = refresh["preferences"]
    assert preferences["min_healthy_percentage"] == 100 < preferences["max_healthy_percentage"] and preferences["auto_rollback"]
    assert (hook["lifecycle_transition"], hook["default_result"]) == ("autoscaling:EC2_INSTANCE_LAUNCHING", "ABANDON")
    program = (SOURCE / "files/instance.py").read_text()
    assert f'"--lifecycle-hook-name", "{hook["name"]}"' in program
    (tracking,) = plan.one("aws_autoscaling_policy")["target_tracking_configuration"]
    assert tracking["predefined_metric_specification"][0]["predefined_metric_type"] == "ASGAverageCPUUtilization"


def test_alarms_are_of_metrics_that_there_are_and_reach_somebody(plan):
    alarms = plan.all("aws_cloudwatch_metric_alarm")
    assert {(alarm["namespace"], alarm["metric_name"]) for alarm in alarms.values()} == METRICS
    assert len(alarms) == 4 + 2 * len(STREAMS)
    for address in ("unready", "dead", "too_few", "certificate"):
        assert plan.references(f"aws_cloudwatch_metric_alarm.{address}", "alarm_actions") == ["var.alarm_topic_arns"]
    certificate = alarms["aws_cloudwatch_metric_alarm.certificate"]
    program = (SOURCE / "files/instance.py").read_text()
    assert certificate["dimensions"] == {"Gateway": "forebay"} and 'f"Gateway={os.environ[\'GATEWAY\']}"' in program
    assert '"--namespace", "Forebay", "--metric-name", name' in program
    assert 'put_metric("Ready", ' in program and 'put_metric("CertificateDaysLeft", ' in program


def test_docs_say_what_the_role_may(plan):
    text = (ROOT / "docs/kinesis.md").read_text()
    assert set(re.findall(r'"(kinesis:\w+)"', text)) == STREAM_CALLS
