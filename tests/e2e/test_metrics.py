"""Prometheus of the distribution scrapes what a watch tells, and its alerts fire: the shipped rules, in shorter spans.

One watch, by both drop-ins at once: into the file that the distribution's node_exporter reads, and over HTTP.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

FOLDER = Path(__file__).parents[2] / "prometheus"
THERE = "/etc/prometheus/unitmem"
NAME = "e2e-metrics"
LEAK = "e2e-metrics-leak.service"
pytestmark = pytest.mark.suites("trixie")  # the other has no Prometheus

TEXTFILE = f"/var/lib/prometheus/node-exporter/unitmem-{NAME}.prom"

POLICY = f"""
interval: 1s
policies:
  - name: leak
    units: ["{LEAK}"]
    steps:
      - {{when: "unreclaimable > 40% of limit", do: log}}
      - {{when: "unreclaimable > 60% of limit", for: 1s, do: {{signal: SIGUSR1, to: main}}}}
      - {{when: "unreclaimable > 99% of limit", for: 1min, do: stop}}
"""
PROMETHEUS = """
global: {scrape_interval: 2s, evaluation_interval: 2s}
rule_files: [/etc/prometheus/unitmem/recording.yml, /etc/prometheus/unitmem/alerts.yml]
scrape_configs:
  - {job_name: node, static_configs: [{targets: ["127.0.0.1:9100"]}]}
  - {job_name: unitmem, static_configs: [{targets: ["127.0.0.1:9797"]}]}
"""
CONFIGURATION = {
    "/etc/prometheus/prometheus.yml": PROMETHEUS,
    "/etc/default/prometheus": 'ARGS="--web.listen-address=127.0.0.1:9090"\n',
    "/etc/default/prometheus-node-exporter": 'ARGS="--web.listen-address=127.0.0.1:9100'
    ' --collector.disable-defaults --collector.textfile"\n',
}
SERVICES = "prometheus.service prometheus-node-exporter.service"


def shorter(rules):
    """The same rules for a guest that has no hours."""
    rules = re.sub(r"\[(\d+)(m|h)\]", "[1m]", rules)
    return re.sub(r"for: \d+m\b", "for: 1s", rules)


def write(host, files):
    """{path: text}, in one go: each login costs."""
    steps = [word for path, text in files.items() for word in (str(Path(path).parent), text, path)]
    host.check_output(" && ".join(["mkdir -p %s && printf %%s %s >%s"] * len(files)), *steps)


@pytest.fixture(scope="module")
def prometheus(host):
    """Prometheus and node_exporter as Debian's services, for this test alone; not started yet."""
    host.check_output("; ".join(f"mv --no-clobber {path} {path}.before" for path in CONFIGURATION))
    write(host, CONFIGURATION)
    yield host
    restore = "; ".join(f"mv {path}.before {path}" for path in CONFIGURATION)
    host.run(
        f"systemctl kill --signal=SIGKILL {SERVICES}; systemctl stop {SERVICES};"
        f" rm -rf {THERE} /var/lib/prometheus/metrics2/*; {restore}"
    )


@pytest.fixture
def drop_ins(host):
    """Both, as they are shipped, for the watch of this test."""
    directory = f"/etc/systemd/system/unitmem@{NAME}.service.d"
    write(
        host, {f"{directory}/{path.name}": path.read_text() for path in FOLDER.glob("unitmem@.service.d/*")}
    )
    host.check_output("systemctl daemon-reload")
    yield
    host.run("rm -r %s; systemctl daemon-reload", directory)


def get(host, url, accept="*/*"):
    """What `url` answers in the guest; empty while nobody does."""
    script = (
        "import sys, urllib.request as r;"
        "print(r.urlopen(r.Request(sys.argv[1], headers={'Accept': sys.argv[2]}), timeout=60).read().decode(), end='')"
    )
    done = host.run("python3 -c %s %s %s", script, url, accept)
    return done.stdout if done.rc == 0 else ""


def ask(host, path):
    """The `data` of an answer of Prometheus; empty while it gives none."""
    answer = get(host, f"http://127.0.0.1:9090/api/v1/{path}")
    return json.loads(answer)["data"] if answer else {}


def series(families, name):
    """{labels: value} of a family's samples of the leak."""
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in families
        if family.name == name
        for sample in family.samples
        if sample.labels.get("unit") == LEAK
    }


def test_the_rules_pass_promtool(prometheus):
    """Their own tests, and whether what the dashboard asks is PromQL, by the distribution's promtool."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    asked = [
        re.sub(r"\$__\w+", "5m", target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]
    rules = [{"record": f"panel:{number}:x", "expr": expr} for number, expr in enumerate(asked)]
    panels = json.dumps({"groups": [{"name": "panels", "rules": rules}]})
    files = {path.name: path.read_text() for path in FOLDER.glob("*.yml")} | {"panels.yml": panels}
    write(prometheus, {f"{THERE}/{name}": text for name, text in files.items()})
    prometheus.check_output(
        f"cd {THERE} && promtool check rules recording.yml alerts.yml panels.yml"
        " && promtool test rules recording_test.yml alerts_test.yml"
    )


def test_a_leak_is_scraped_and_the_alert_fires(prometheus, drop_ins, unit, policy, eventually):
    host = prometheus
    write(
        host,
        {f"{THERE}/{name}": shorter((FOLDER / name).read_text()) for name in ("recording.yml", "alerts.yml")},
    )
    guard = policy(POLICY, NAME)
    host.check_output(f"systemctl start {SERVICES}")
    eventually(
        lambda: [one["value"][1] for one in ask(host, "query?query=sum(up)").get("result", ())] == ["2"],
        "Prometheus scrapes node_exporter and the watch",
    )
    unit("leak", "--start", "40M", "--rate", "1M/s", "--max", "110M", name=LEAK, MemoryMax="128M")

    def firing():
        alerts = ask(host, "alerts").get("alerts", [])
        return {
            (alert["labels"]["alertname"], alert["labels"]["job"])
            for alert in alerts
            if alert["state"] == "firing" and alert["labels"].get("unit") == LEAK
        }

    missing = {(name, job) for name in ("UnitmemUnitLeaking", "UnitmemActed") for job in ("node", "unitmem")}

    def have_fired():
        missing.difference_update(firing())
        return not missing

    eventually(have_fired, "the alerts fire for the leak, on both ways", ceiling=600)

    # types have come through both
    for metric in ("unitmem_actions_total", "unitmem_outcomes_total"):
        (known,) = ask(host, f"metadata?metric={metric}")[metric]
        assert known["type"] == "counter"
        assert known["help"] != ""

    # the official client reads either page, and both say the same
    text = host.check_output("cat %s", TEXTFILE)
    page = get(host, "http://127.0.0.1:9797/metrics", "application/openmetrics-text; version=1.0.0")
    assert page.endswith("# EOF\n")
    of_file, of_page = list(parse_text(text)), list(parse_openmetrics(page))
    assert {family.name for family in of_file} == {family.name for family in of_page}
    for families in (of_file, of_page):
        assert series(families, "unitmem_unit_limit_bytes") == {
            (("unit", LEAK), ("watch", NAME)): 128 * 2**20
        }
        actions = series(families, "unitmem_actions")
        assert sum(actions.values()) == 2, actions
    assert "unitmem_unit_high_bytes" not in {family.name for family in of_page}, "what is unknown is absent"

    # what it opens is that one port, and it stays within what is protected
    assert int(guard.read("memory.current")) < 48 * 2**20
    listening = host.check_output("ss --no-header --listening --tcp --numeric sport = :9797").split()
    assert [word for word in listening if ":9797" in word] == ["127.0.0.1:9797"]
    host.check_output("systemd-analyze security --no-pager --threshold=25 %s", guard.name)

    host.check_output("systemctl stop %s", guard.name)
    assert not host.file(TEXTFILE).exists
    assert get(host, "http://127.0.0.1:9797/metrics") == ""
