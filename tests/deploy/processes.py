"""What stands beside a gateway: a Kafka broker and a Prometheus, on free ports, ended with their tests."""

import json
import re
import signal
import subprocess
import urllib.parse
import urllib.request

import yaml
from conftest import DEPLOY, PATIENCE, TOOLS, eventually, free_port, run, tool

RULES = [DEPLOY / "prometheus/recording.rules.yml", DEPLOY / "prometheus/alerts.rules.yml"]


class Broker:
    """One KRaft node, with a topic `telemetry` unless told otherwise."""

    def __init__(self, folder, topic="telemetry"):
        self.address = f"127.0.0.1:{free_port()}"
        controller = f"127.0.0.1:{free_port()}"
        settings = {
            "process.roles": "broker,controller", "node.id": 1, "log.dirs": folder / "log",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}", "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"1@{controller}", "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1, "transaction.state.log.replication.factor": 1,
            "share.coordinator.state.topic.replication.factor": 1,
        }
        (folder / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self.java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{TOOLS}/kafka/lib/*"]
        cluster = "MkU3OEVBNTcwNTJENDM2Qg"
        run(*self.java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", folder / "server.properties")
        with open(folder / "kafka.log", "w") as log:
            self.process = subprocess.Popen(
                [*self.java, "kafka.Kafka", folder / "server.properties"], stdout=log, stderr=log, cwd=folder)
        if topic:
            # It waits for the broker to answer.
            run(*self.java, "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", self.address,
                "--create", "--topic", topic, "--partitions", "2")

    def alter(self, topic, setting):
        """Sets one of the topic's settings, as name=value."""
        self._configure(topic, "--add-config", setting)

    def restore(self, topic, setting):
        """Takes it back to the broker's own."""
        self._configure(topic, "--delete-config", setting.split("=")[0])

    def _configure(self, topic, how, setting):
        run(*self.java, "kafka.admin.ConfigCommand", "--bootstrap-server", self.address, "--alter", "--entity-type", "topics",
            "--entity-name", topic, how, setting)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        self.process.kill()
        self.process.wait(PATIENCE)


# A target of a test may stand for a gateway of another version.
ELDER = [{"source_labels": ["__name__", "as_version"], "regex": "forebay_build_info;(.+)", "target_label": "version"},
         {"regex": "as_version", "action": "labeldrop"}]


class Prometheus:
    """It scrapes one gateway twice a second, by the configuration and the rules that are deployed. Alerts need to be true for
    as long as `alerts_after` says, where it is given, in the place of minutes; and rules look back for `window` seconds in the
    place of minutes, hours and days, and ten times as far for what is usual."""

    def __init__(self, folder, gateway, alerts_after=None, window=None):
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        del config["scrape_configs"][0]["static_configs"]
        self.targets = folder / "targets.json"
        config["scrape_configs"][0] |= {"file_sd_configs": [{"files": [str(self.targets)]}], "metric_relabel_configs": ELDER}
        self.watch(gateway.admin)
        config["rule_files"] = [str(folder / file.name) for file in RULES]
        for file in RULES:
            (folder / file.name).write_text(yaml.safe_dump(rules(file, alerts_after, window)))
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.log = folder / "prometheus.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [tool("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
                 f"--web.listen-address=127.0.0.1:{port}"], stderr=log)
        eventually("a first scrape", lambda: self.may_ask("forebay_sink_up"))

    def watch(self, *addresses, elder=None):
        """Scrapes these from now on, and one as if it were of an older version."""
        targets = [{"targets": [*addresses]}] + ([{"targets": [elder], "labels": {"as_version": "0.0.9"}}] if elder else [])
        beside = self.targets.with_suffix(".new")
        beside.write_text(json.dumps(targets))
        beside.rename(self.targets)

    def ask(self, expr):
        query = urllib.parse.urlencode({"query": expr})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    def may_ask(self, expr):
        try:
            return self.ask(expr)
        except OSError:
            assert self.process.poll() is None, self.log.read_text()

    def alerts(self, state):
        return {sample["metric"]["alertname"] for sample in self.ask(f'ALERTS{{alertstate="{state}"}}')}

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)


def rules(file, alerts_after, window):
    groups = yaml.safe_load(file.read_text())
    for rule in [rule for group in groups["groups"] for rule in group["rules"] if window]:
        usual = rule["expr"].replace("[1d] offset", f"[{10 * window}s] offset")
        rule["expr"] = re.sub(r"\boffset \d+[mh]", f"offset {window}s", re.sub(r"\[\d+[mhd]\]", f"[{window}s]", usual))
    for rule in [rule for group in groups["groups"] for rule in group["rules"] if "for" in rule and alerts_after]:
        rule["for"] = alerts_after
    return groups
