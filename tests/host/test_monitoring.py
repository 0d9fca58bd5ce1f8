"""Hosts of the group monitoring: targets are scraped, failures become alerts, only trusted networks may connect."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import shlex
import ssl
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests import ROOT, operator, promtool
from tests.monitored import prometheus, query
from tests.promql import metrics

testinfra_hosts = ["ansible://monitoring"]

DASHBOARDS = sorted((ROOT / "roles/grafana/files/etc/grafana/dashboards").glob("*.json"))
EXPOSURE_LIMIT = 1.5
WATCHED = ["prometheus", "prometheus-nginx-exporter", "prometheus-node-exporter", "grafana-server"]
# Of these nobody asks but Prometheus.
INNER = ["mtail", "prometheus-blackbox-exporter"]
# It reaches its receivers wherever they are; the firewall says who reaches it.
UNITS = [*WATCHED, *INNER, "prometheus-alertmanager"]
QUERIES = [
    pytest.param(
        target["expr"],
        "noValue" in panel["fieldConfig"]["defaults"],
        id=f"{dashboard['title']}, {panel['title']}, {target['refId']}",
    )
    for dashboard in (json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS)
    for panel in dashboard["panels"]
    for target in panel["targets"]
]


def wait_for(what: Callable[[], Any], seconds: float) -> Any:
    """Return what is asked for as soon as it is true, or whatever it is when the time is over."""
    deadline = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def pid_of(host: Host, unit: str) -> int:
    return int(host.check_output(f"systemctl show {unit} --property=MainPID --value"))


@pytest.fixture(autouse=True)
def installed(host: Host, request: pytest.FixtureRequest) -> None:
    """Skip, with the reason, what asks for a unit that this host does not have."""
    unit = getattr(request.node, "callspec", None) and request.node.callspec.params.get("unit")
    if unit == "grafana-server":
        request.getfixturevalue("grafana")
    elif unit and not host.service(unit).exists:
        pytest.skip(f"{unit} is on another host")


@pytest.fixture
def grafana(host: Host) -> str:
    """Return the version of Grafana or of its stand-in."""
    version: str = host.run("dpkg-query --show --showformat='${Version}' grafana").stdout
    if not version:
        # A scenario either reaches the vendor's repository or offers the stand-in's.
        assert "MOLECULE_SCENARIO_NAME" not in os.environ, "neither Grafana nor its stand-in was installed"
        pytest.skip("Grafana is not installed: its vendor's repository can't be reached from here")
    return version


@pytest.fixture
def real_grafana(grafana: str) -> str:
    """Skip what only Grafana itself can answer."""
    if "standin" in grafana:
        pytest.skip("a stand-in is installed in Grafana's place: its vendor's repository can't be reached from here")
    return grafana


@pytest.fixture
def repository(host: Host, grafana: str) -> None:
    """Skip what is of a repository where Grafana came without one."""
    if not host.file("/etc/apt/sources.list.d/grafana.sources").exists:
        pytest.skip("Grafana was installed from a file (grafana_deb_file), and apt knows no repository of it")


@pytest.fixture
def play(inventory: str, tmp_path: Path, host: Host) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one role against this host with other settings than the inventory's."""

    def run(role: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        if not (tmp_path / "group_vars").exists():
            (tmp_path / "group_vars").symlink_to(ROOT / "group_vars")
        tasks = [
            {"ansible.builtin.package_facts": {"manager": "apt"}},
            {"ansible.builtin.import_role": {"name": role}},
        ]
        play = {"hosts": host.backend.host, "become": True, "gather_facts": False, "tasks": tasks}
        (tmp_path / "play.yml").write_text(json.dumps([play]))
        return operator.play(inventory, str(tmp_path / "play.yml"), **settings)

    return run


@pytest.fixture(scope="module")
def traffic() -> None:
    """Make some predictions through the gateway, so that there is something to see."""
    context = ssl.create_default_context(cafile=os.environ["FORTRESS_CA"])
    credentials = f"{os.environ['FORTRESS_USER']}:{os.environ['FORTRESS_PASSWORD']}".encode()
    for _ in range(6):
        request = urllib.request.Request(
            f"{os.environ['FORTRESS_URL']}/predict",
            data=b'{"petal_length": 6.5, "petal_width": 0.8}',
            headers={
                "Authorization": f"Basic {base64.b64encode(credentials).decode()}",
                "Content-Type": "application/json",
            },
        )
        urllib.request.urlopen(request, timeout=10, context=context).close()
        time.sleep(0.2)


# --- what is watched is seen -----------------------------------------------------------------------------------------


def test_nginx_is_seen_to_be_up(host: Host) -> None:
    assert [sample["value"][1] for sample in query(host, "nginx_up")] == ["1"]


def test_every_target_answers_within_ten_seconds(host: Host) -> None:
    def down() -> list[str]:
        targets = prometheus(host, "targets?state=active")["activeTargets"]
        return [f"{t['labels']['instance']}: {t['lastError']}" for t in targets if t["health"] != "up"]

    wait_for(lambda: not down(), 10)
    assert down() == []


def test_nothing_was_ever_scraped_that_is_not_of_the_site(host: Host) -> None:
    """Debian's own configuration has a node exporter at localhost:9100, whose figures grow old once it is replaced."""
    if host.file("/var/lib/fortress/before").exists:
        assert "localhost:9100" not in prometheus(host, "label/instance/values")
    else:
        pytest.skip("an earlier release provisioned it")


def test_what_serves_is_asked_every_three_seconds_and_what_watches_less_often(host: Host) -> None:
    targets = prometheus(host, "targets?state=active")["activeTargets"]
    assert {target["labels"]["job"]: target["scrapeInterval"] for target in targets} == {
        "prometheus": "15s",
        "alertmanager": "15s",
        "nginx": "3s",
        "iris-api": "3s",
        "node": "3s",
        "gateway": "3s",
        "probe": "15s",
    } | ({"grafana": "15s"} if host.package("grafana").is_installed else {})
    assert {t["labels"]["instance"] for t in targets if t["labels"]["job"] == "iris-api"} == {
        "iris-api@1",
        "iris-api@2",
        "iris-api@3",
    }


@pytest.mark.parametrize(("expression", "may_be_empty"), QUERIES)
def test_a_panel_has_something_to_show(host: Host, traffic: None, expression: str, may_be_empty: bool) -> None:
    """Or says in words what it means that it has nothing."""
    # What Grafana fills in before it asks: the gateways and hosts that are chosen, and four times the scrape interval.
    asked = expression.replace("$instance", ".*").replace("$host", ".*").replace("$__rate_interval", "1m")
    found = query(host, asked)  # An expression that can't be evaluated ends it here.
    assert found or may_be_empty or wait_for(lambda: query(host, asked), 30), f"no data: {asked}"


def test_the_history_is_bounded_and_nobody_can_stop_prometheus_over_http(host: Host) -> None:
    flags = prometheus(host, "status/flags")
    assert flags["storage.tsdb.retention.time"] == "15d"
    assert flags["storage.tsdb.retention.size"] == "5GiB"
    assert flags["web.enable-lifecycle"] == "false"
    assert flags["web.enable-admin-api"] == "false"
    quit_ = host.run(
        "curl --silent --output /dev/null --write-out '%{http_code}' --request POST http://127.0.0.1:9090/-/quit"
    )
    assert quit_.stdout == "403"


def test_a_full_disk_would_be_seen_and_home_is_not_hidden(host: Host) -> None:
    """The sandbox leaves the node exporter its view of the host's file systems."""
    samples = query(host, "node_filesystem_readonly")
    assert samples
    assert {sample["value"][1] for sample in samples if sample["metric"]["mountpoint"] in {"/", "/tmp"}} == {"0"}


# --- bad news becomes an alert ---------------------------------------------------------------------------------------


def test_the_rules_are_sound_and_fire_as_their_tests_say(host: Host, tmp_path: Path) -> None:
    """The tests run where promtool is, against the rules that are installed."""
    files = []
    for path in promtool.TESTS.glob("*.yml"):
        rules = host.file(f"/etc/prometheus/rules/{path.name}").content_string
        files += promtool.write_tests(tmp_path, path.name, rules)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(tmp_path, ".")
    directory = host.check_output("mktemp --directory")
    try:
        unpack = f"base64 -d | tar --extract --gzip --no-same-owner --directory={directory}"
        host.check_output(f"echo {base64.b64encode(packed.getvalue()).decode()} | {unpack}")
        settings = shlex.join(f"{name}={value}" for name, value in promtool.SETTINGS.items())
        tested = host.run(f"env --chdir={directory} {settings} promtool test rules {shlex.join(files)}")
        assert tested.stdout.count("SUCCESS") == len(files), tested.stdout + tested.stderr
        assert tested.rc == 0, tested.stdout + tested.stderr
    finally:
        host.run(f"rm -r {directory}")
    assert host.run("promtool check config /etc/prometheus/prometheus.yml").rc == 0


def test_a_host_that_went_down_in_order_has_said_so(host: Host) -> None:
    """While it went down, and for 5 minutes: so its alerts wait. Molecule reboots its machines before the tests."""
    file = host.file("/var/lib/prometheus/node-exporter/fortress_reboot.prom")
    booted = int(host.check_output("stat --format=%Y /proc/1"))
    made = host.file("/etc/systemd/system/prometheus-node-exporter.service.d/reboot.conf").mtime.timestamp()
    if booted < made:
        pytest.skip("it was not rebooted since it was provisioned")
    assert file.mode == 0o644
    name, end = file.content_string.split()
    assert name == "fortress_reboot_lease_end_seconds"
    assert booted < float(end) < booted + 300


# What not each site has, and why.
ABSENT = {
    "iris_api_predicted_values_total": "of models of numbers alone",
    "iris_api_predicted_value_training_ratio": "of models of numbers alone",
    "iris_api_training_rows": "of bundles that say of how many rows they are; earlier ones did not",
    "fortress_reboot_lease_end_seconds": "of hosts that have gone down in order once",
    "fortress_unit_memory_limit_bytes": "where the kernel keeps to limits",
    "iris_api_prediction_confidence_sum": "of models that give probabilities",
    "iris_api_prediction_confidence_count": "of models that give probabilities",
}


def test_every_metric_that_a_rule_asks_for_is_there(host: Host) -> None:
    """By promtool, and by Prometheus, a rule on a metric that does not exist is taken, and is silent for ever."""
    rules = [rule for group in prometheus(host, "rules")["groups"] for rule in group["rules"]]
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    asked = set().union(*(metrics(rule["query"]) for rule in rules)) - recorded
    missing = asked - set(prometheus(host, "label/__name__/values"))
    assert missing - ABSENT.keys() == set()


def test_every_rule_has_a_test(host: Host) -> None:
    tested = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests/rules").glob("*.yml"))
    rules = [rule for group in prometheus(host, "rules")["groups"] for rule in group["rules"]]
    alerts = [rule["name"] for rule in rules if rule["type"] == "alerting"]
    assert alerts
    assert [name for name in alerts if f"alertname: {name}" not in tested] == []


def test_an_instance_that_stops_becomes_an_alert(host: Host) -> None:
    if not host.service("iris-api@3").is_running:
        pytest.skip("the instances are on other hosts")
    alerts = 'ALERTS{alertname="IrisApiInstanceDown", instance="iris-api@3", alertstate="firing"}'
    host.check_output("systemctl stop iris-api@3")
    try:
        assert wait_for(lambda: query(host, alerts), 60)
    finally:
        host.check_output("systemctl start iris-api@3")


# --- the watchers come back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_a_watcher_runs_and_comes_up_at_boot(host: Host, unit: str) -> None:
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


@pytest.mark.parametrize("unit", UNITS)
def test_a_killed_watcher_comes_back_however_often(host: Host, unit: str) -> None:
    assert host.check_output(f"systemctl show {unit} --property=StartLimitIntervalUSec --value") == "0"
    before = pid_of(host, unit)
    host.check_output(f"kill -KILL {before}")
    assert wait_for(lambda: pid_of(host, unit) not in {0, before}, 10), "it did not come back"


def test_the_exporter_waits_for_an_nginx_that_is_late(host: Host) -> None:
    """Debian 12's version exits when nginx does not answer at its start."""
    if not host.service("nginx").exists:
        pytest.skip("the gateway is another host")
    host.check_output("systemctl stop nginx")
    try:
        host.run("systemctl restart prometheus-nginx-exporter")
        time.sleep(6)
    finally:
        host.check_output("systemctl start nginx")
    up = "curl --silent --max-time 2 http://127.0.0.1:9113/metrics | grep --quiet '^nginx_up 1'"
    assert wait_for(lambda: host.run(up).rc == 0, 10)


# --- the services are restricted to trusted networks ------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_a_watcher_is_sandboxed(host: Host, unit: str) -> None:
    report = host.check_output(f"systemd-analyze security {unit}")
    exposure = float(report.splitlines()[-1].partition(": ")[2].split()[0])
    assert exposure <= EXPOSURE_LIMIT


@pytest.mark.parametrize("unit", INNER)
def test_what_only_prometheus_asks_talks_to_no_trusted_network(host: Host, unit: str) -> None:
    shown = host.check_output(f"systemctl show {unit} --property=IPAddressDeny --property=IPAddressAllow")
    directives = dict(line.split("=", 1) for line in shown.splitlines())
    assert set(directives["IPAddressDeny"].split()) == {"0.0.0.0/0", "::/0"}
    assert not set(directives["IPAddressAllow"].split()) & {"0.0.0.0/0", "::/0", "172.16.0.0/12"}


@pytest.mark.parametrize("unit", WATCHED)
def test_a_watcher_talks_to_trusted_networks_and_loopback_alone(host: Host, unit: str) -> None:
    shown = host.check_output(f"systemctl show {unit} --property=IPAddressDeny --property=IPAddressAllow")
    directives = dict(line.split("=", 1) for line in shown.splitlines())
    assert set(directives["IPAddressDeny"].split()) == {"0.0.0.0/0", "::/0"}
    allowed = set(directives["IPAddressAllow"].split())
    assert {"127.0.0.0/8", "::1/128", "172.16.0.0/12"} <= allowed
    assert not allowed & {"0.0.0.0/0", "::/0"}


@pytest.mark.parametrize("unit", ["prometheus-nginx-exporter", "prometheus-node-exporter", *INNER])
def test_an_exporter_is_nobody_who_owns_anything(host: Host, unit: str) -> None:
    user = host.check_output(f"ps -o uid= -p {pid_of(host, unit)}").strip()
    owned = host.check_output("stat --format=%u /var/lib/prometheus")
    assert user not in {owned, "0"}


def test_a_broken_configuration_leaves_the_running_one(
    host: Host, play: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    before = (host.file("/etc/prometheus/prometheus.yml").sha256sum, pid_of(host, "prometheus"))
    done = play("prometheus", prometheus_scrape_interval="3 parsecs")
    assert done.returncode != 0
    assert "The new configuration is not valid, so nothing was changed" in done.stdout
    assert (host.file("/etc/prometheus/prometheus.yml").sha256sum, pid_of(host, "prometheus")) == before


@pytest.mark.one_release
def test_a_new_configuration_is_taken_without_a_restart(
    host: Host, play: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    before = pid_of(host, "prometheus")
    try:
        assert play("prometheus", prometheus_evaluation_interval="14s").returncode == 0
        assert wait_for(lambda: "evaluation_interval: 14s" in prometheus(host, "status/config")["yaml"], 10)
        assert pid_of(host, "prometheus") == before
    finally:
        assert play("prometheus").returncode == 0


# --- Grafana ---------------------------------------------------------------------------------------------------------


def test_grafana_answers_on_its_port_and_below_the_gateways_path(host: Host, grafana: str) -> None:
    login = "curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1:3000/grafana/login"
    assert wait_for(lambda: host.run(login).stdout == "200", 60)


@pytest.mark.parametrize("name", ["admin_password", "secret_key"])
def test_grafanas_secrets_are_for_grafana_alone(host: Host, grafana: str, name: str) -> None:
    file = host.file(f"/etc/grafana/secrets/{name}")
    assert (file.user, file.group, file.mode) == ("root", "grafana", 0o640)
    assert file.content_string.strip() not in host.file("/etc/grafana/grafana.ini").content_string


def test_apt_trusts_the_pinned_keys_for_grafana_and_no_other(host: Host, repository: None) -> None:
    """The keyring's name says which they are."""
    sources = host.file("/etc/apt/sources.list.d/grafana.sources").content_string
    (keyring,) = [line.removeprefix("Signed-By: ") for line in sources.splitlines() if line.startswith("Signed-By: ")]
    listing = host.check_output(f"gpg --homedir $(mktemp -d) --batch --show-keys --with-colons {keyring}").splitlines()
    primary = [fingerprint.split(":")[9] for key, fingerprint in itertools.pairwise(listing) if key.startswith("pub:")]
    assert keyring == f"/etc/apt/keyrings/grafana-{'-'.join(fingerprint[-16:] for fingerprint in primary)}.gpg"


@pytest.mark.one_release
def test_a_repository_without_a_pinned_key_is_refused(
    host: Host, repository: None, play: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """As after a rotation that nobody told us of, or with somebody between us and the vendor."""
    done = play("grafana", grafana_apt_key_fingerprints=["0123456789ABCDEF0123456789ABCDEF01234567"])
    assert done.returncode != 0
    assert "none of them is in grafana_apt_key_fingerprints" in " ".join(done.stdout.split())
    assert not host.file("/etc/apt/keyrings/grafana-89ABCDEF01234567.gpg").exists
    assert "89ABCDEF01234567" not in host.file("/etc/apt/sources.list.d/grafana.sources").content_string


def test_verify_passes_and_says_what_it_did_not_check(inventory: str, grafana: str) -> None:
    done = operator.play(inventory, "playbooks/verify.yml")
    assert done.returncode == 0, done.stdout
    assert ("SKIPPED: health, login, datasource and panels of Grafana" in done.stdout) == ("standin" in grafana)


@pytest.mark.usefixtures("real_grafana")
def test_grafana_is_healthy(host: Host) -> None:
    health = "curl --silent http://127.0.0.1:3000/grafana/api/health"
    assert wait_for(lambda: json.loads(host.check_output(health)).get("database") == "ok", 60)


@pytest.mark.usefixtures("real_grafana")
@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ("user", "login", "admin"),
        ("datasources/uid/fortress-prometheus", "type", "prometheus"),
        ("dashboards/uid/fortress-overview", "dashboard.title", "Overview"),
        ("dashboards/uid/fortress-nginx", "dashboard.title", "Gateway"),
        ("dashboards/uid/fortress-iris-api", "dashboard.title", "Iris API"),
        ("dashboards/uid/fortress-model", "dashboard.title", "Model"),
        ("dashboards/uid/fortress-host", "dashboard.title", "Host"),
        ("folders/fortress", "title", "Fortress"),
    ],
    ids=["login", "datasource", "Overview", "Gateway", "Iris API", "Model", "Host", "folder"],
)
def test_grafana_answers_its_administrator(host: Host, path: str, key: str, value: str) -> None:
    # The password comes from a file on the host, not by an argument that `ps` would show.
    netrc = "printf 'machine 127.0.0.1 login admin password %s' \"$(cat /etc/grafana/secrets/admin_password)\""
    answer = host.check_output(
        f"{netrc} | curl --silent --netrc-file /dev/stdin http://127.0.0.1:3000/grafana/api/{path}"
    )
    found: Any = json.loads(answer)
    for part in key.split("."):
        found = found[part]
    assert found == value


def test_the_metrics_of_an_instance_keep_prometheus_conventions(host: Host) -> None:
    metrics = host.run("curl --silent --fail http://127.0.0.1:8001/metrics").stdout
    assert "iris_api_requests_total" in metrics
    checked = host.run(f"promtool check metrics <<'END'\n{metrics}END")
    assert checked.rc == 0, checked.stderr
    assert checked.stdout + checked.stderr == ""
