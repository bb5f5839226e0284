"""The Compose file: its schema, and that what it names is there."""

import yaml
from conftest import DEPLOY, FOREBAY, ROOT, run, tool

FILE = DEPLOY / "compose/compose.yaml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]


def test_schema():
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", FILE)


def test_what_is_mounted_or_built_from_is_there():
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("../"):
                assert (FILE.parent / source).exists(), source
        if build := service.get("build"):
            assert (FILE.parent / build["context"] / build["dockerfile"]).exists()
    assert (ROOT / ".dockerignore").exists()


def test_the_gateways_environment_is_one_that_it_accepts():
    environment = {name: str(value) for name, value in SERVICES["forebay"]["environment"].items()}
    assert "FOREBAY_KAFKA_BOOTSTRAP_SERVERS=kafka:9092" in run(FOREBAY, "check", env=environment)


def test_the_commands_that_make_certificates_work(folder):
    for name in ("pki-authority", "pki-server", "pki-devices"):
        command = [part.replace("/pki", str(folder / "composed")) for part in SERVICES[name]["command"]]
        run(FOREBAY, *command)
    assert (folder / "composed/devices/plc-7.key").exists()


def test_prometheus_scrapes_the_address_that_the_gateway_has():
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    target = config["scrape_configs"][0]["static_configs"][0]["targets"][0]
    host, port = target.split(":")
    assert host in SERVICES and SERVICES[host]["environment"]["FOREBAY_ADMIN_LISTEN"].endswith(f":{port}")


def test_only_the_gateway_is_open_to_the_network():
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert name == "forebay" or port.startswith("127.0.0.1:"), f"{name}: {port}"


def test_grafana_finds_its_data_and_its_dashboards():
    provisioning = DEPLOY / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    host, port = source["url"].removeprefix("http://").split(":")
    assert host in SERVICES and port == "9090", "Prometheus' own port: its command names no other"
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["../grafana/provisioning"] == "/etc/grafana/provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards/forebay.yml").read_text())["providers"]
    assert provider["options"]["path"] == mounts["../grafana/dashboards"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana/dashboards" / home.removeprefix(mounts["../grafana/dashboards"] + "/")).exists()
