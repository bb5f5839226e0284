"""The Helm chart and the kustomize base: linted and rendered by the tools' own code, validated against the schemas of
Kubernetes, and looked at for what they promise."""

import json
import math
import os
import re

import helm_python
import kubernetes_validate
import pytest
import yaml
from conftest import DEPLOY, FOREBAY, run, tool
from processes import RULES

CHART = DEPLOY / "helm/forebay"
KUSTOMIZE = DEPLOY / "kustomize"
VERSION = "1.34"
CUSTOM = {"Certificate", "ServiceMonitor", "PodMonitor", "PrometheusRule"}  # their schemas come with their operators

KAFKA = {
    "sink": {"type": "kafka", "kafka": {"bootstrapServers": "kafka:9092"}},
    "tls": {"clientCa": {"secretName": "forebay-client-ca"}},
}
EVERYTHING = {
    "image": {"repository": "registry.example.com/forebay", "digest": f"sha256:{'0' * 64}", "pullSecrets": [{"name": "registry"}]},
    "sink": {"type": "kinesis", "kinesis": {"region": "eu-central-1"}},
    "streams": "telemetry,alarms",
    "config": {"FOREBAY_DEVICE_RATE": "10", "FOREBAY_SPOOL_KEY_FILE": "/etc/forebay/spool/key", "AWS_MAX_ATTEMPTS": "5",
               "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"},
    "extraEnv": [{"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
                 {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://$(HOST_IP):4318"}],
    "envFrom": [{"configMapRef": {"name": "more"}}],
    "listenAddress": "::", "workers": 4, "connectionsMax": 2000,
    "resources": {"requests": {"cpu": 4, "memory": "2Gi"}, "limits": {"memory": "2Gi"}},
    "secrets": {"spool": "spool-key"},
    "tls": {
        "clientCa": {"secretName": "devices"}, "crl": {"secretName": "crl"},
        "server": {"secretName": "server", "certManager": {
            "enabled": True, "issuerRef": {"name": "letsencrypt"}, "dnsNames": ["ingest.example.com"]}},
    },
    "service": {
        "annotations": {"a": "b"}, "labels": {"c": "d"}, "loadBalancerSourceRanges": ["10.0.0.0/8"], "nodePort": 30443,
        "loadBalancerClass": "example.com/layer-4", "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]},
    "spool": {"enabled": True, "storageClass": "fast"},
    "shutdown": {"preStopSeconds": 30, "drainSeconds": 60},
    "autoscaling": {"enabled": True, "inFlightBytes": "64Mi"},
    "networkPolicy": {"egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}]},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}}, "dashboard": {"enabled": True},
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/forebay"}},
    "spread": {"whenUnsatisfiable": "DoNotSchedule"},
    "nodeSelector": {"disk": "nvme"}, "tolerations": [{"key": "ingest", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}]}]}}},
    "podAnnotations": {"a": "b"}, "podLabels": {"team": "ingest"}, "commonLabels": {"cost": "7"}, "priorityClassName": "high",
    "podSecurityContext": {"supplementalGroups": [7]}, "securityContext": {"runAsUser": 1000},
    "extraVolumes": [{"name": "kafka-ca", "configMap": {"name": "kafka-ca"}}],
    "extraVolumeMounts": [{"name": "kafka-ca", "mountPath": "/etc/kafka-ca", "readOnly": True}],
}
BARE = KAFKA | {
    "service": {"type": "ClusterIP", "http3": False}, "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False}, "shutdown": {"preStopSeconds": 0, "drainSeconds": 5}, "resources": {"requests": None, "limits": None},
    "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}, "podMonitor": {"enabled": True},
}
SCALED = KAFKA | {"autoscaling": {"enabled": True}, "sink": {
    "type": "kafka", "kafka": {"bootstrapServers": "kafka:9092", "credentialsSecret": "kafka"}}}
SETS = {"kafka": KAFKA, "everything": EVERYTHING, "bare": BARE, "scaled": SCALED}


def render(values, name="forebay", chart=CHART):
    """Every object that the chart makes, by kind and name."""
    with helm_python.Chart.load(str(chart)) as chart:
        chart.validate_schema(chart.merge_values(values))
        files = chart.render(values, name=name, namespace="ingest")
    objects = [found for file, text in files.items() if not file.endswith(".txt")
               for found in yaml.safe_load_all(text) if found]
    return {(found["kind"], found["metadata"]["name"]): found for found in objects}


def pod(objects):
    workload = objects.get(("Deployment", "forebay")) or objects[("StatefulSet", "forebay")]
    return workload["spec"]["template"]["spec"]


def variables(objects):
    """As the kubelet works them out."""
    container = pod(objects)["containers"][0]
    return {entry["name"]: entry["value"] if "value" in entry else worked_out(entry["valueFrom"], container) for entry in container["env"]}


def worked_out(source, container):
    if "fieldRef" in source:
        return "127.0.0.1"
    resource = source["resourceFieldRef"]
    assert (resource["containerName"], resource["divisor"]) == (container["name"], "1")
    kind, name = resource["resource"].split(".")
    # What has a limit alone has it as its request too.
    resources = {"requests": container["resources"].get("limits", {}) | container["resources"].get("requests", {})}
    text = str(resources[kind][name])
    return str(math.ceil(float(text.removesuffix("m")) / (1000 if text.endswith("m") else 1)))


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
        assert not name.startswith("FOREBAY_") or f"{name}={value}" in effective


MIB = 1024 ** 2
UNITS = {"Mi": MIB, "Gi": 1024 * MIB, "G": 10**9}


@pytest.mark.parametrize("resources, values, workers", [
    ({"requests": {"cpu": "1"}, "limits": {"memory": "512Mi"}}, {}, 1),
    ({"requests": {"cpu": "1500m"}, "limits": {"memory": "512Mi"}}, {}, 2),
    ({"requests": {"cpu": 0.5}, "limits": {"memory": "1.5Gi"}}, {}, 1),
    ({"requests": {"cpu": "1"}, "limits": {"memory": "512Mi"}}, {"service": {"http3": False}}, 1),
    ({"requests": None, "limits": {"cpu": 3, "memory": "2G"}}, {}, 3),
    ({"requests": {"cpu": "8"}, "limits": {"memory": "1Gi"}}, {"config": {"FOREBAY_MEMORY_MAX": "512MiB"}}, 8),
    ({"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}, {"workers": 16}, 16),
    ({"requests": {"cpu": "2"}, "limits": {"memory": 1073741824}}, {}, 2),
], ids=str)
def test_a_pod_fits_into_its_memory(resources, values, workers):
    """On a node of any number of cores. What things take is said in docs/operations.md (sizing) and docs/capacity.md."""
    objects = render(KAFKA | values | {"resources": resources})
    given, limit = variables(objects), str(resources["limits"]["memory"])
    limit = next((float(limit.removesuffix(unit)) * size for unit, size in UNITS.items() if limit.endswith(unit)), None) or float(limit)
    readings = 512 * MIB if "config" in values else limit / 4
    connection = 53 * 1024 if given["FOREBAY_HTTP3"] == "true" else 9 * 1024
    assert int(given["FOREBAY_WORKERS"]) == workers
    taken = 100 * MIB + 7 * MIB * workers + readings + connection * int(given["FOREBAY_CONNECTIONS_MAX"])
    assert 0.6 * limit < taken < 0.97 * limit
    run(FOREBAY, "check", env=given)


def test_connections_of_tcp_alone_stay_below_what_nodes_allow_to_be_open():
    large = {"resources": {"requests": {"cpu": "8"}, "limits": {"memory": "16Gi"}}, "service": {"http3": False}}
    assert int(variables(render(KAFKA | large))["FOREBAY_CONNECTIONS_MAX"]) < 65_536 * 3 / 4  # docs/configuration.md


def test_without_a_limit_the_gateway_finds_its_own_bounds():
    assert not {"FOREBAY_WORKERS", "FOREBAY_CONNECTIONS_MAX"} & set(variables(render(BARE)))


@pytest.mark.parametrize("resources, said", [
    ({"requests": None}, "give requests.cpu, or set workers"),
    ({"limits": {"memory": "128Mi"}}, "leave no room for connections"),
    ({"limits": {"memory": "half a gigabyte"}}, "write it like 512Mi"),
], ids=str)
def test_resources_that_cannot_be_reckoned_with_are_refused(resources, said):
    with pytest.raises(helm_python.HelmError, match=said):
        render(KAFKA | {"resources": resources})


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
    refused = set(schema["definitions"]["reserved"]["enum"])
    configured = set(KAFKA.get("config", {})) | set(EVERYTHING["config"])
    made = set(variables(render(KAFKA))) | set(variables(render(EVERYTHING)))
    extra = {entry["name"] for entry in EVERYTHING["extraEnv"]}
    assert refused == made - configured - extra
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
    both = pod(render(SCALED | {"envFrom": [{"secretRef": {"name": "more"}}]}))["containers"][0]
    assert both["envFrom"] == [{"secretRef": {"name": "kafka"}}, {"secretRef": {"name": "more"}}]


def test_values_reach_their_places():
    objects = render(EVERYTHING)
    spec, service = pod(objects), objects[("Service", "forebay")]
    container = spec["containers"][0]
    assert container["image"] == f"registry.example.com/forebay@sha256:{'0' * 64}"
    assert container["envFrom"] == EVERYTHING["envFrom"] and container["env"][-2:] == EVERYTHING["extraEnv"]
    assert spec["affinity"] == EVERYTHING["affinity"]
    assert spec["securityContext"]["supplementalGroups"] == [7] and spec["securityContext"]["runAsUser"] == 65532
    assert container["securityContext"]["runAsUser"] == 1000
    assert (service["spec"]["loadBalancerClass"], service["spec"]["ipFamilyPolicy"]) == ("example.com/layer-4", "RequireDualStack")
    assert service["spec"]["ipFamilies"] == ["IPv6", "IPv4"] and {port["nodePort"] for port in service["spec"]["ports"]} == {30443}
    assert service["metadata"]["labels"]["c"] == "d"
    labels = objects[("StatefulSet", "forebay")]["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "ingest" and all(found["metadata"]["labels"]["cost"] == "7" for found in objects.values())
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod(render(BARE))["securityContext"])


def test_a_dual_stack_service_meets_a_gateway_that_listens_on_ipv6():
    given = variables(render(EVERYTHING))
    assert (given["FOREBAY_LISTEN"], given["FOREBAY_ADMIN_LISTEN"]) == ("[::]:8443", "[::]:9444")


def test_operators_objects():
    objects = render(EVERYTHING)
    certificate = objects[("Certificate", "forebay")]["spec"]
    assert certificate["secretName"] == "server" and certificate["dnsNames"] == ["ingest.example.com"]
    monitor = objects[("ServiceMonitor", "forebay")]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    labels = objects[("Service", "forebay-pods")]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_a_pod_monitor_finds_the_pods():
    objects = render(BARE)
    monitor = objects[("PodMonitor", "forebay")]["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in pod(objects)["containers"][0]["ports"]}
    labels = objects[("Deployment", "forebay")]["spec"]["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items() and labels[monitor["jobLabel"]] == "forebay"


def test_a_packaged_chart_makes_the_same(folder):
    """Rules and dashboard are links in the source, and files in the package."""
    package = helm_python.package(str(CHART), destination=str(folder))
    assert render(EVERYTHING, chart=package) == render(EVERYTHING)


def test_rules_and_dashboard_are_those_of_the_repository(folder):
    objects = render(EVERYTHING)
    made = objects[("PrometheusRule", "forebay")]["spec"]
    assert made["groups"] == [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    (folder / "rules-of-the-chart.yml").write_text(yaml.safe_dump(made))
    run(tool("promtool"), "check", "rules", folder / "rules-of-the-chart.yml")
    dashboard = objects[("ConfigMap", "forebay-dashboard")]
    assert dashboard["data"] == {"forebay.json": (DEPLOY / "grafana/dashboards/forebay.json").read_text()}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize("wrong", [
    {}, {"sink": {"type": "kafka", "kafka": {"bootstrapServers": ""}}}, {"sink": {"type": "file"}},
    {"sink": {"type": "kinesis", "kinesis": {"region": ""}}}, {"replica": 3}, {"config": {"DEVICE_RATE": "1"}},
    {"config": {"FOREBAY_DRAIN_TIMEOUT": "5m"}}, {"secrets": {"server": "other"}},
    {"tls": {"clientCa": {"secretName": "a"}, "server": {"secretName": "b", "certManager": {"enabled": True}}}},
    {"shutdown": {"drainSeconds": 0}}, {"spool": {"bytesMax": "10Gi"}}, {"config": {"FOREBAY_WORKERS": "2"}},
    {"extraEnv": [{"name": "FOREBAY_LISTEN", "value": "0.0.0.0:443"}]}, {"image": {"digest": "latest"}}, {"workers": 257},
    {"service": {"ipFamilies": ["IPv6"]}}, {"service": {"ipFamilyPolicy": "RequireDualStack"}},
    {"podLabels": {"app.kubernetes.io/name": "other"}}, {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}},
], ids=str)
def test_wrong_values_are_refused(wrong):
    values = (KAFKA | wrong) if wrong else {}
    with helm_python.Chart.load(str(CHART)) as chart, pytest.raises(helm_python.HelmError):
        chart.validate_schema(chart.merge_values(values))


def test_a_release_of_another_name():
    assert ("Deployment", "edge-forebay") in render(KAFKA, name="edge")


def kustomized(*folders):
    """What the chart makes of the values of these folders, without what names Helm."""
    values = {}
    for folder in folders:
        values |= yaml.safe_load((KUSTOMIZE / folder / "values.yaml").read_text())
    objects = render(values)
    for found in objects.values():
        for labels in (found["metadata"]["labels"], found["spec"]["template"]["metadata"]["labels"] if found["kind"] == "Deployment" else {}):
            labels.pop("app.kubernetes.io/managed-by", None)
            labels.pop("helm.sh/chart", None)
    return objects


@pytest.mark.parametrize("folders", [("base",), ("base", "components/prometheus-operator")], ids=lambda folders: folders[-1])
def test_kustomize_has_what_the_chart_makes(folders):
    before = kustomized(*folders[:-1]) if len(folders) > 1 else {}
    objects = [found for key, found in kustomized(*folders).items() if key not in before]
    text = "# Made from the chart; see kustomization.yaml.\n" + yaml.safe_dump_all(objects, sort_keys=False, width=200)
    file = KUSTOMIZE / folders[-1] / "forebay.yaml"
    if os.environ.get("UPDATE_DOCS"):
        file.write_text(text)
    assert file.read_text() == text, "run UPDATE_DOCS=1 scripts/check-deploy.sh -k kustomize"


def test_kustomize_overlay():
    text = run(tool("kubectl"), "kustomize", KUSTOMIZE / "overlays/example")
    objects = {(found["kind"], found["metadata"]["name"]): found for found in yaml.safe_load_all(text)}
    for (kind, _), found in objects.items():
        if kind not in CUSTOM:
            kubernetes_validate.validate(found, VERSION, strict=True)
        assert found["metadata"]["namespace"] == "ingest"
    assert ("PodMonitor", "forebay") in objects and ("PrometheusRule", "forebay") in objects
    container = pod(objects)["containers"][0]
    assert container["image"] == "registry.example.com/forebay:0.1.0" and objects[("Deployment", "forebay")]["spec"]["replicas"] == 5
    given = variables(objects)
    run(FOREBAY, "check", env=given)
    taken = (100 + 256 + 7 * int(given["FOREBAY_WORKERS"])) * MIB + 53 * 1024 * int(given["FOREBAY_CONNECTIONS_MAX"])
    assert given["FOREBAY_WORKERS"] == "2" and taken < 1024 * MIB
