"""The Helm chart and the kustomize base: linted and rendered by the tools' own code, validated against the schemas of
Kubernetes, and looked at for what they promise."""

import json
import os
import re

import helm_python
import kubernetes_validate
import pytest
import yaml
from conftest import DEPLOY, FOREBAY, run, tool

CHART = DEPLOY / "helm/forebay"
KUSTOMIZE = DEPLOY / "kustomize"
VERSION = "1.34"
CUSTOM = {"Certificate", "ServiceMonitor"}  # their schemas come with their operators

KAFKA = {
    "sink": {"type": "kafka", "kafka": {"bootstrapServers": "kafka:9092"}},
    "tls": {"clientCa": {"secretName": "forebay-client-ca"}},
}
EVERYTHING = {
    "image": {"repository": "registry.example.com/forebay", "tag": "1", "pullSecrets": [{"name": "registry"}]},
    "sink": {"type": "kinesis", "kinesis": {"region": "eu-central-1"}},
    "streams": "telemetry,alarms",
    "config": {"FOREBAY_DEVICE_RATE": "10", "FOREBAY_SPOOL_KEY_FILE": "/etc/forebay/spool/key", "AWS_MAX_ATTEMPTS": "5"},
    "secrets": {"spool": "spool-key"},
    "tls": {
        "clientCa": {"secretName": "devices"}, "crl": {"secretName": "crl"},
        "server": {"secretName": "server", "certManager": {
            "enabled": True, "issuerRef": {"name": "letsencrypt"}, "dnsNames": ["ingest.example.com"]}},
    },
    "service": {"annotations": {"a": "b"}, "loadBalancerSourceRanges": ["10.0.0.0/8"]},
    "spool": {"enabled": True, "storageClass": "fast"},
    "shutdown": {"preStopSeconds": 30, "drainSeconds": 60},
    "autoscaling": {"enabled": True, "inFlightBytes": "64Mi"},
    "networkPolicy": {"egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}]},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/forebay"}},
    "spread": {"whenUnsatisfiable": "DoNotSchedule"},
    "nodeSelector": {"disk": "nvme"}, "tolerations": [{"key": "ingest", "operator": "Exists"}],
    "podAnnotations": {"a": "b"}, "priorityClassName": "high",
}
BARE = KAFKA | {
    "service": {"type": "ClusterIP", "http3": False}, "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False}, "shutdown": {"preStopSeconds": 0, "drainSeconds": 5},
}
SCALED = KAFKA | {"autoscaling": {"enabled": True}, "sink": {
    "type": "kafka", "kafka": {"bootstrapServers": "kafka:9092", "credentialsSecret": "kafka"}}}
SETS = {"kafka": KAFKA, "everything": EVERYTHING, "bare": BARE, "scaled": SCALED}


def render(values, name="forebay"):
    """Every object that the chart makes, by kind and name."""
    with helm_python.Chart.load(str(CHART)) as chart:
        chart.validate_schema(chart.merge_values(values))
        files = chart.render(values, name=name, namespace="ingest")
    objects = [found for file, text in files.items() if not file.endswith(".txt")
               for found in yaml.safe_load_all(text) if found]
    return {(found["kind"], found["metadata"]["name"]): found for found in objects}


def pod(objects):
    workload = objects.get(("Deployment", "forebay")) or objects[("StatefulSet", "forebay")]
    return workload["spec"]["template"]["spec"]


def variables(objects):
    return {entry["name"]: entry["value"] for entry in pod(objects)["containers"][0]["env"]}


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_chart_is_linted_and_its_objects_are_valid(values):
    report = helm_python.lint(str(CHART), values, strict=True, kube_version=f"v{VERSION}.0")
    assert not report["errors"], report
    objects = render(values)
    assert len(objects) >= 4
    for (kind, _), found in objects.items():
        if kind not in CUSTOM:
            kubernetes_validate.validate(found, VERSION, strict=True)


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_the_gateway_accepts_its_environment(values):
    environment = variables(render(values))
    effective = run(FOREBAY, "check", env=environment)
    for name, value in environment.items():
        assert name.startswith("AWS_") or f"{name}={value}" in effective


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_what_holds_whatever_the_values(values):
    objects = render(values)
    spec = pod(objects)
    container = spec["containers"][0]
    assert spec["enableServiceLinks"] is False, "FOREBAY_PORT would keep the gateway from starting"
    assert spec["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    drain = int(variables(objects)["FOREBAY_DRAIN_TIMEOUT"].removesuffix("s"))
    late = 3  # shutdown.rs: for answers, after the deadline
    assert spec["terminationGracePeriodSeconds"] > sleep + drain + late, "the gateway would be killed while it drains"
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert not any("subPath" in mount for mount in mounts.values()), "a file by itself is never changed in place"
    claims = objects.get(("StatefulSet", "forebay"), {}).get("spec", {}).get("volumeClaimTemplates", [])
    provided = {volume["name"] for volume in spec["volumes"]} | {claim["metadata"]["name"] for claim in claims}
    assert set(mounts) == provided
    for name in ("FOREBAY_TLS_CERT", "FOREBAY_TLS_KEY", "FOREBAY_TLS_CLIENT_CA", "FOREBAY_TLS_CRL", "FOREBAY_SPOOL_DIR",
                 "FOREBAY_SPOOL_KEY_FILE"):
        if path := variables(objects).get(name):
            assert any(path.startswith(mount["mountPath"] + "/") for mount in mounts.values()), name
    selector = objects[("Service", "forebay")]["spec"]["selector"]
    labels = (objects.get(("Deployment", "forebay")) or objects[("StatefulSet", "forebay")])["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()


def test_one_port_for_both_protocols():
    ports = render(KAFKA)[("Service", "forebay")]["spec"]["ports"]
    assert [(port["port"], port["protocol"]) for port in ports] == [(8443, "TCP"), (8443, "UDP")]
    ports = render(BARE)[("Service", "forebay")]["spec"]["ports"]
    assert [(port["port"], port["protocol"]) for port in ports] == [(8443, "TCP")]
    assert variables(render(BARE))["FOREBAY_HTTP3"] == "false"


def test_a_spool_makes_a_stateful_set_that_keeps_its_disks():
    objects = render(EVERYTHING)
    spec = objects[("StatefulSet", "forebay")]["spec"]
    assert ("Deployment", "forebay") not in objects and ("Service", spec["serviceName"]) in objects
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    scaler = objects[("HorizontalPodAutoscaler", "forebay")]["spec"]
    assert scaler["scaleTargetRef"]["kind"] == "StatefulSet"
    assert scaler["behavior"]["scaleDown"] == {"selectPolicy": "Disabled"}
    assert [metric["type"] for metric in scaler["metrics"]] == ["Resource", "Pods"]
    assert variables(objects)["FOREBAY_SPOOL_BYTES_MAX"] == "10GiB"


def test_the_volume_holds_the_spool_and_what_lies_beside_it():
    values = yaml.safe_load((CHART / "values.yaml").read_text())["spool"]
    gib = lambda text: int(re.match(r"\d+", text)[0])
    assert gib(values["size"]) >= gib(values["bytesMax"]) * 9 / 8 + 0.25


def test_no_gateway_goes_before_another_is_ready():
    objects = render(KAFKA)
    deployment = objects[("Deployment", "forebay")]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert objects[("PodDisruptionBudget", "forebay")]["spec"]["maxUnavailable"] == 1
    assert ("PodDisruptionBudget", "forebay") not in render(BARE)
    assert "replicas" not in render(SCALED)[("Deployment", "forebay")]["spec"], "it would fight with the autoscaler"


def test_what_values_stand_for_cannot_be_set_beside_them():
    schema = json.loads((CHART / "values.schema.json").read_text())
    refused = set(schema["properties"]["config"]["propertyNames"]["not"]["enum"])
    configured = set(KAFKA.get("config", {})) | set(EVERYTHING["config"])
    made = set(variables(render(KAFKA))) | set(variables(render(EVERYTHING)))
    assert refused == made - configured
    environment = variables(render(EVERYTHING))
    assert (environment["FOREBAY_DRAIN_TIMEOUT"], environment["FOREBAY_DEVICE_RATE"]) == ("60s", "10")
    assert environment["AWS_REGION"] == "eu-central-1" and "FOREBAY_KAFKA_BOOTSTRAP_SERVERS" not in environment


def test_only_those_who_monitor_reach_the_admin_address():
    rules = render(KAFKA)[("NetworkPolicy", "forebay")]["spec"]["ingress"]
    admin = [rule for rule in rules if any(port["port"] == 9444 for port in rule["ports"])]
    assert len(admin) == 1 and admin[0]["from"]


def test_secrets_come_from_secrets():
    container = pod(render(SCALED))["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "kafka"}}]


def test_operators_objects():
    objects = render(EVERYTHING)
    certificate = objects[("Certificate", "forebay")]["spec"]
    assert certificate["secretName"] == "server" and certificate["dnsNames"] == ["ingest.example.com"]
    monitor = objects[("ServiceMonitor", "forebay")]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    labels = objects[("Service", "forebay-pods")]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("wrong", [
    {}, {"sink": {"type": "kafka", "kafka": {"bootstrapServers": ""}}}, {"sink": {"type": "file"}},
    {"sink": {"type": "kinesis", "kinesis": {"region": ""}}}, {"replica": 3}, {"config": {"DEVICE_RATE": "1"}},
    {"config": {"FOREBAY_DRAIN_TIMEOUT": "5m"}}, {"secrets": {"server": "other"}},
    {"tls": {"clientCa": {"secretName": "a"}, "server": {"secretName": "b", "certManager": {"enabled": True}}}},
    {"shutdown": {"drainSeconds": 0}}, {"spool": {"bytesMax": "10Gi"}},
], ids=str)
def test_wrong_values_are_refused(wrong):
    values = (KAFKA | wrong) if wrong else {}
    with helm_python.Chart.load(str(CHART)) as chart, pytest.raises(helm_python.HelmError):
        chart.validate_schema(chart.merge_values(values))


def test_a_release_of_another_name():
    assert ("Deployment", "edge-forebay") in render(KAFKA, name="edge")


def test_kustomize_base_is_what_the_chart_makes():
    values = yaml.safe_load((KUSTOMIZE / "base/values.yaml").read_text())
    objects = render(values).values()
    for found in objects:
        for labels in (found["metadata"]["labels"], found["spec"]["template"]["metadata"]["labels"] if found["kind"] == "Deployment" else {}):
            labels.pop("app.kubernetes.io/managed-by", None)
            labels.pop("helm.sh/chart", None)
    text = "# Made from the chart; see kustomization.yaml.\n" + yaml.safe_dump_all(objects, sort_keys=False)
    file = KUSTOMIZE / "base/forebay.yaml"
    if os.environ.get("UPDATE_DOCS"):
        file.write_text(text)
    assert file.read_text() == text, "run UPDATE_DOCS=1 scripts/check-deploy.sh -k kustomize"


def test_kustomize_overlay():
    text = run(tool("kubectl"), "kustomize", KUSTOMIZE / "overlays/example")
    objects = list(yaml.safe_load_all(text))
    for found in objects:
        kubernetes_validate.validate(found, VERSION, strict=True)
        assert found["metadata"]["namespace"] == "ingest"
    deployment = next(found for found in objects if found["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example.com/forebay:0.1.0" and deployment["spec"]["replicas"] == 5
    run(FOREBAY, "check", env={entry["name"]: entry["value"] for entry in container["env"]})
