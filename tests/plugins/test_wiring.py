"""Variables of the roles: plugins/filter/wiring.py, and what group_vars/all/wiring.yml makes of an inventory by it."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.loader import filter_loader

from tests import ROOT
from tests.controller import run_play

filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
ip_addresses, in_url, host_addresses, target, probes, instances, in_turn, repeated, basic_auth_users = (
    filter_loader.get(name).j2_function
    for name in (
        "ip_addresses", "in_url", "host_addresses", "target", "probes", "instances", "in_turn", "repeated",
        "basic_auth_users",
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("candidates", "addresses"),
    [
        (["192.0.2.7"], ["192.0.2.7"]),
        (["2001:db8::1", "::1"], ["2001:db8::1", "::1"]),
        (["2001:DB8:0:0::5"], ["2001:db8::5"]),
        (["iris.example.com", "fortress", "192.0.2", "999.0.2.7", "10.0.0.0/8", ""], []),
        ([], []),
    ],
)
def test_an_address_is_told_from_a_name(candidates: list[str], addresses: list[str]) -> None:
    assert ip_addresses(candidates) == addresses


@pytest.mark.parametrize(
    ("address", "written"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8::1", "[2001:db8::1]"), ("iris.example.com", "iris.example.com")],
)
def test_an_ipv6_address_stands_in_brackets_before_a_port(address: str, written: str) -> None:
    assert in_url(address) == written


@pytest.mark.parametrize(
    ("address", "addresses"),
    [
        ("192.0.2.7", ["192.0.2.7"]),
        ("2001:db8::7", ["2001:db8::7"]),
        # Of the control node itself, whatever its name is.
        ("127.0.0.1", []),
        ("::1", []),
        ("localhost", []),
        ("nonesuch.invalid", []),
        ("an-alias-of-ssh", []),
        ("no name.at all", []),
        (f"{'x' * 70}.example.com", []),
        ("", []),
    ],
)
def test_hosts_reach_one_another_at_an_address_in_numbers(address: str, addresses: list[str]) -> None:
    assert host_addresses(address) == addresses


def test_instances_are_numbered_by_their_ports_on_each_host() -> None:
    assert instances("192.0.2.1", 8001, 2, "a") == [
        {"address": "192.0.2.1:8001", "labels": {"instance": "iris-api@1", "host": "a"}},
        {"address": "192.0.2.1:8002", "labels": {"instance": "iris-api@2", "host": "a"}},
    ]
    assert instances("2001:db8::2", 9000, 1, "b") == [
        {"address": "[2001:db8::2]:9000", "labels": {"instance": "iris-api@1", "host": "b"}},
    ]


def test_the_next_in_turn_is_of_another_host() -> None:
    assert in_turn([["a1", "a2", "a3"], ["b1"], ["c1", "c2"]]) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert in_turn([["a1", "a2"]]) == ["a1", "a2"]


def test_a_target_is_named_by_its_host() -> None:
    assert target("127.0.0.1", 9113, "a") == {"address": "127.0.0.1:9113", "labels": {"instance": "a"}}
    assert target("2001:db8::2", 9113, "b") == {"address": "[2001:db8::2]:9113", "labels": {"instance": "b"}}


def test_one_exporter_asks_every_gateway() -> None:
    assert probes(["g1", "g2"], ["https://192.0.2.1/probe", "https://[2001:db8::2]/probe"], "127.0.0.1:9115") == [
        {"address": "127.0.0.1:9115", "labels": {"instance": "g1", "__param_target": "https://192.0.2.1/probe"}},
        {"address": "127.0.0.1:9115", "labels": {"instance": "g2", "__param_target": "https://[2001:db8::2]/probe"}},
    ]


def test_what_is_there_twice_is_named_once() -> None:
    assert repeated(["b", "a", "b", "c", "a", "a"]) == ["a", "b"]
    assert repeated(["a", "b"]) == []


def test_users_have_a_previous_password_where_one_works() -> None:
    users = basic_auth_users(["iris", "rosa"], {"iris": "new", "rosa": "hers", "nobody": "x"}, {"iris": "old"})
    assert users == [
        {"name": "iris", "password": "new", "previous_password": "old"},
        {"name": "rosa", "password": "hers"},
    ]
    with pytest.raises(KeyError):
        basic_auth_users(["iris"], {})


# What the roles are told, by Ansible itself.

WIRING = yaml.safe_load((ROOT / "group_vars" / "all" / "wiring.yml").read_text())
SETTINGS = yaml.safe_load((ROOT / "group_vars" / "all" / "fortress.yml").read_text())
ONE = {"gateway": ["iris"], "api": ["iris"], "monitoring": ["iris"]}
SEVERAL = {"gateway": ["g1", "g2"], "api": ["a1", "a2"], "monitoring": ["m1"]}
ADDRESSES = {
    "iris": "192.0.2.10",
    "g1": "192.0.2.1",
    "g2": "192.0.2.2",
    "a1": "192.0.2.3",
    "a2": "192.0.2.4",
    "m1": "192.0.2.5",
    "b1": "192.0.2.6",
}


def wired(
    folder: Path, groups: dict[str, list[str]], own: dict[str, dict[str, Any]] | None = None, **settings: Any
) -> dict[str, dict[str, Any]]:
    """Return every role variable of every host, as a run has them; `own` are settings of one host."""
    names = [host for members in groups.values() for host in members]
    hosts = {host: {"ansible_host": ADDRESSES[host]} | (own or {}).get(host, {}) for host in names}
    children = {group: {"hosts": dict.fromkeys(members)} for group, members in groups.items()}
    (folder / "group_vars").mkdir(parents=True)
    (folder / "group_vars" / "all.yml").write_text(yaml.safe_dump(settings))
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": children}}))
    names = [name for name in WIRING if not name.startswith("_")] + ["_fortress_url", "_fortress_ca_file"]
    content = "{" + ", ".join(f"'{name}': {name}" for name in names) + "}"
    write = {
        "ansible.builtin.copy": {
            "dest": f"{folder}/{{{{ inventory_hostname }}}}.json",
            "content": f"{{{{ {content} | to_json }}}}",
        },
        "delegate_to": "localhost",
    }
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars": {"_fortress_missing_credentials": "random"},
        "tasks": [write],
    }
    done = run_play(play, "-i", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return {host: json.loads((folder / f"{host}.json").read_text()) for host in hosts}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the roles are told on a host that is everything."""
    return wired(tmp_path_factory.mktemp("one") / "site", ONE)["iris"]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the roles are told on five hosts."""
    return wired(tmp_path_factory.mktemp("several") / "site", SEVERAL)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the roles are told on such a host where every setting has another value."""
    folder = tmp_path_factory.mktemp("other") / "site"
    settings: dict[str, Any] = {
        "fortress_domain": "api.example.com",
        "fortress_trusted_networks": ["10.0.0.0/8"],
        "fortress_model_name": "wine",
        "fortress_model_version": "2.0.0",
        "fortress_api_instances": 2,
        "fortress_api_base_port": 7001,
        "fortress_request_deadline": 3,
        "fortress_max_body_bytes": 5000,
        "fortress_max_rows": 70,
        "fortress_max_values": 800,
        "fortress_max_bytes_in_flight": 70000,
        "fortress_users": ["iris", "rosa"],
        "fortress_passwords": {"rosa": "hers"},
        "fortress_previous_passwords": {"rosa": "her old one"},
        "fortress_grafana_password": "that of Grafana",
        "fortress_grafana_when_unreachable": "skip",
        "fortress_alert_receivers": [{"name": "team", "webhook_url": "https://example.com/hook"}],
        "fortress_alert_routes": [{"receivers": ["team"]}],
        "fortress_alert_smtp": {"server": "mail.example.com:25", "from": "a@example.com"},
        "fortress_alert_heartbeat_url": "https://example.com/heartbeat",
        "fortress_alertmanager_port": 9393,
        "fortress_prometheus_port": 9999,
        "fortress_grafana_port": 3333,
        "fortress_nginx_exporter_port": 9911,
        "fortress_node_exporter_port": 9910,
        "fortress_mtail_port": 3904,
        "fortress_blackbox_exporter_port": 9916,
        "fortress_secrets_dir": str(folder / "elsewhere"),
    }
    # The rest is not for roles: how the control node reaches the site, what it checks and what it prints.
    rest = {"address", "ca_file", "previous_password_days", "no_log", "replace_credentials"}
    assert settings.keys() | {f"fortress_{name}" for name in rest} == SETTINGS.keys()
    return wired(folder, ONE, **settings)["iris"]


def reached_by(told: dict[str, Any]) -> dict[int, set[str]]:
    """Return for each port that is guarded on a host the networks that the firewall lets through."""
    admissions = [{"ports": told["base_guarded_ports"], "networks": told["base_trusted_networks"]}]
    found: dict[int, set[str]] = {}
    for admission in admissions + told["base_port_clients"]:
        for port in admission["ports"]:
            found.setdefault(port, set()).update(admission["networks"])
    return found


TRUSTED = SETTINGS["fortress_trusted_networks"]


def addresses(*hosts: str) -> set[str]:
    return {ADDRESSES[host] for host in hosts}


def test_a_host_that_is_everything_trusts_private_networks_and_itself(one: dict[str, Any]) -> None:
    for network in TRUSTED:
        assert ipaddress.ip_network(network).is_private, network
        assert ipaddress.ip_network(network).prefixlen >= 12, network
    assert TRUSTED == ["172.16.0.0/12"]
    # Those that people look at; the others are for hosts of the inventory alone.
    names = ("prometheus", "alertmanager", "grafana", "nginx_exporter", "node_exporter")
    monitoring = {SETTINGS[f"fortress_{name}_port"] for name in names}
    assert len(monitoring) == 5
    reached = reached_by(one)
    assert set(reached) == {8001, 8002, 8003, 3903, 9115} | monitoring
    for port, networks in reached.items():
        assert networks == ({*TRUSTED, "192.0.2.10"} if port in monitoring else {"192.0.2.10"}), port
    variables = [name for name in one if name.endswith("_trusted_networks")]
    assert len(variables) == 6
    for name in variables:
        assert one[name] == ["172.16.0.0/12", "192.0.2.10"], name


def test_a_port_is_open_to_the_roles_that_need_it(several: dict[str, dict[str, Any]]) -> None:
    """And to no host because it is in the inventory. A host's services reach one another at its address too."""
    for host in ("g1", "g2"):
        exporters = {*TRUSTED, *addresses(host, "m1")}
        assert reached_by(several[host]) == {9100: exporters, 9113: exporters, 3903: addresses("m1")}
    for host in ("a1", "a2"):
        instance = addresses(host, "g1", "g2", "m1")
        assert reached_by(several[host]) == {
            **dict.fromkeys((8001, 8002, 8003), instance),
            9100: {*TRUSTED, *addresses(host, "m1")},
        }
    assert reached_by(several["m1"]) == {
        9090: {*TRUSTED, *addresses("m1")},
        9093: {*TRUSTED, *addresses("m1")},
        3000: {*TRUSTED, *addresses("m1", "g1", "g2")},
        9100: {*TRUSTED, *addresses("m1")},
        9115: addresses("m1"),
    }


def test_a_unit_talks_with_the_roles_that_need_it(several: dict[str, dict[str, Any]]) -> None:
    """The second fence, around each service: whoever comes in by the firewall, or is asked by it, gets through.

    In the same order on each run: another one would be a change, and restart what is restarted for it.
    """
    for host in ("a1", "a2"):
        assert several[host]["iris_api_clients"] == [ADDRESSES[each] for each in (host, "g1", "g2", "m1")]
    for host, told in several.items():
        reached = reached_by(told)
        assert set(told["node_exporter_trusted_networks"]) == reached[9100]
        assert set(told["iris_api_clients"]) == addresses(host, "g1", "g2", "m1")
        assert set(told["nginx_exporter_trusted_networks"]) == {*TRUSTED, *addresses(host, "m1")}
        assert set(told["mtail_clients"]) == addresses(host, "m1")
        assert set(told["blackbox_exporter_gateways"]) == addresses(host, "g1", "g2")
        assert set(told["nginx_trusted_networks"]) == {*TRUSTED, *addresses(host)}
        assert set(told["prometheus_trusted_networks"]) == {*TRUSTED, *addresses(*several)}
        assert set(told["grafana_trusted_networks"]) == {*TRUSTED, *addresses(host, "g1", "g2")}


def test_connections_are_limited_at_the_gateways(one: dict[str, Any], several: dict[str, dict[str, Any]]) -> None:
    assert one["base_limited_ports"] == [80, 443]
    limited = {host: told["base_limited_ports"] for host, told in several.items()}
    assert limited == {"g1": [80, 443], "g2": [80, 443], "a1": [], "a2": [], "m1": []}


def test_whatever_listens_is_guarded(one: dict[str, Any]) -> None:
    """Each port that a role is told to listen at is told to the firewall too."""
    listen = [value for name, value in one.items() if name.endswith("_listen_address")]
    ports = {int(address.rsplit(":", 1)[1]) for address in listen} | {one["grafana_port"]}
    ports |= {one["iris_api_base_port"] + number for number in range(one["iris_api_instances"])}
    assert len(ports) == 10
    assert set(reached_by(one)) == ports


def test_instances_listen_on_loopback_unless_another_host_is_the_gateway(
    one: dict[str, Any], several: dict[str, dict[str, Any]]
) -> None:
    assert one["iris_api_bind_address"] == "127.0.0.1"
    assert one["iris_api_clients"] == []
    for host, told in several.items():
        assert told["iris_api_bind_address"] == ADDRESSES[host]


def jobs(told: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {job["name"]: job["targets"] for job in told["prometheus_scrape_jobs"]}


def test_nginx_and_prometheus_know_every_instance(one: dict[str, Any], several: dict[str, dict[str, Any]]) -> None:
    """Those of a host are not side by side, or a request would be passed on from a lost host to the same one again."""
    assert one["nginx_upstreams"] == [f"127.0.0.1:{port}" for port in (8001, 8002, 8003)]
    upstreams = [f"{ADDRESSES[host]}:{port}" for port in (8001, 8002, 8003) for host in ("a1", "a2")]
    for told, expected in [(one, one["nginx_upstreams"]), *((told, upstreams) for told in several.values())]:
        assert told["nginx_upstreams"] == expected
        assert [target["address"] for target in jobs(told)["iris-api"]] == expected
    assert one["nginx_upstream_hosts"] == {}
    assert one["nginx_listen_addresses"] == ["0.0.0.0"]
    hosts = {address: "a1" if "192.0.2.3" in address else "a2" for address in upstreams}
    assert several["g1"]["nginx_upstream_hosts"] == hosts


def test_a_gateway_with_an_ipv6_address_listens_there_and_has_it_as_certificates_write_it(tmp_path: Path) -> None:
    groups = {group: ["a1"] for group in ("gateway", "api", "monitoring")}
    told = wired(tmp_path / "six", groups, {"a1": {"fortress_address": "2001:DB8:0:0::5"}})["a1"]
    assert told["nginx_listen_addresses"] == ["0.0.0.0", "[::]"]
    assert told["nginx_server_addresses"] == told["pki_ip_addresses"] == ["2001:db8::5"]


def test_prometheus_scrapes_every_host(one: dict[str, Any], several: dict[str, dict[str, Any]]) -> None:
    def targets_of(told: dict[str, Any], job: str) -> dict[str, str]:
        return {target["labels"]["instance"]: target["address"] for target in jobs(told)[job]}

    assert targets_of(one, "nginx") == {"iris": "127.0.0.1:9113"}
    assert targets_of(one, "node") == {"iris": "127.0.0.1:9100"}
    assert targets_of(several["m1"], "nginx") == {host: f"{ADDRESSES[host]}:9113" for host in ("g1", "g2")}
    assert targets_of(one, "gateway") == {"iris": "127.0.0.1:3903"}
    assert targets_of(several["m1"], "gateway") == {host: f"{ADDRESSES[host]}:3903" for host in ("g1", "g2")}
    assert targets_of(several["m1"], "node") == {host: f"{ADDRESSES[host]}:9100" for host in sorted(several)}
    assert several["g1"]["nginx_grafana_upstream"] == "192.0.2.5:3000"
    assert one["nginx_grafana_upstream"] == "127.0.0.1:3000"


def test_each_gateway_is_probed_from_the_monitoring_host(
    one: dict[str, Any], several: dict[str, dict[str, Any]]
) -> None:
    """By a user that is nobody else's, whose password gateway and monitoring host know without telling each other."""
    for told, hosts in ((one, ["iris"]), (several["m1"], ["g1", "g2"])):
        assert {target["labels"]["instance"]: target["labels"]["__param_target"] for target in jobs(told)["probe"]} == {
            host: f"https://{ADDRESSES[host]}/probe" for host in hosts
        }
        assert {target["address"] for target in jobs(told)["probe"]} == {told["blackbox_exporter_listen_address"]}
        assert told["blackbox_exporter_listen_address"].startswith("127.0.0.1:")
        assert told["blackbox_exporter_server_name"] == SETTINGS["fortress_domain"]
    [settings] = [job["settings"] for job in one["prometheus_scrape_jobs"] if job["name"] == "probe"]
    assert settings["params"] == {"module": ["gateway"]}
    for told in (one, *several.values()):
        [user] = told["nginx_probe_users"]
        assert user["name"] == told["blackbox_exporter_user"]
        assert user["name"] not in [each["name"] for each in told["nginx_basic_auth_users"]]
        assert re.fullmatch("[0-9a-f]{64}", user["password"])


def test_a_host_tells_the_states_of_the_units_that_it_has(
    one: dict[str, Any], several: dict[str, dict[str, Any]]
) -> None:
    everywhere = {"fortress-*", "prometheus-node-exporter.service"}
    own = {host: set(told["node_exporter_units"]) - everywhere for host, told in several.items()}
    assert own["a1"] == own["a2"] == {"iris-api@*.service", "iris-api.target", "iris-deploy*.service"}
    assert {"nginx.service", "mtail.service"} < own["g1"] == own["g2"]
    assert {"prometheus.service", "grafana-server.service"} < own["m1"]
    assert set(one["node_exporter_units"]) == everywhere | own["a1"] | own["g1"] | own["m1"]


def test_what_is_set_for_a_host_is_heard_by_those_who_talk_with_it(tmp_path: Path) -> None:
    """Numbers of instances, ports and addresses of one host, of IPv6 too, and a host that only others use."""
    own: dict[str, dict[str, Any]] = {
        "a1": {"fortress_api_instances": 1},
        "a2": {"fortress_api_base_port": 9001, "fortress_api_instances": 2, "fortress_address": "2001:db8::4"},
        "g2": {"fortress_nginx_exporter_port": 9114, "fortress_node_exporter_port": 9101},
        "m1": {"fortress_grafana_port": 3001, "fortress_prometheus_port": 9091, "fortress_address": "2001:db8::5"},
    }
    told = wired(tmp_path / "site", {**SEVERAL, "bastion": ["b1"]}, own)
    upstreams = ["192.0.2.3:8001", "[2001:db8::4]:9001", "[2001:db8::4]:9002"]
    assert told["g1"]["nginx_upstreams"] == upstreams
    assert told["g1"]["nginx_grafana_upstream"] == "[2001:db8::5]:3001"
    found = {name: [target["address"] for target in targets] for name, targets in jobs(told["m1"]).items()}
    assert found["iris-api"] == upstreams
    assert found["nginx"] == ["192.0.2.1:9113", "192.0.2.2:9114"]
    assert found["node"] == [
        "192.0.2.3:9100", "[2001:db8::4]:9100", "192.0.2.1:9100", "192.0.2.2:9101", "[2001:db8::5]:9100",
    ]  # fmt: skip
    labels = [target["labels"] for target in jobs(told["m1"])["iris-api"]]
    assert [(label["host"], label["instance"]) for label in labels] == [
        ("a1", "iris-api@1"), ("a2", "iris-api@1"), ("a2", "iris-api@2"),
    ]  # fmt: skip
    assert set(reached_by(told["a1"])) == {8001, 9100}
    assert set(reached_by(told["a2"])) == {9001, 9002, 9100}
    assert reached_by(told["a2"])[9002] == {*addresses("g1", "g2"), "2001:db8::4", "2001:db8::5"}
    assert set(reached_by(told["g2"])) == {3903, 9101, 9114}
    assert set(reached_by(told["m1"])) == {3001, 9091, 9093, 9100, 9115}
    assert told["m1"]["prometheus_external_url"] == "http://[2001:db8::5]:9091"
    assert told["a2"]["iris_api_bind_address"] == "2001:db8::4"


def test_users_passwords_and_secrets_reach_those_who_need_them(other: dict[str, Any]) -> None:
    iris, rosa = other["nginx_basic_auth_users"]
    assert (iris["name"], set(iris)) == ("iris", {"name", "password"})
    assert rosa == {"name": "rosa", "password": "hers", "previous_password": "her old one"}
    assert other["grafana_admin_password"] == "that of Grafana"
    made = {iris["password"], other["nginx_basic_auth_salt"], other["grafana_secret_key"]}
    assert len(made) == 3
    assert all(re.fullmatch("[A-Za-z0-9]{32}", value) for value in made)
    assert not Path(other["pki_secrets_dir"]).parent.exists()


def test_every_setting_of_a_site_reaches_its_role(other: dict[str, Any]) -> None:
    """A role's own default would hide that it does not, until somebody sets another value."""
    expected = {
        "grafana_domain": "api.example.com",
        "grafana_port": 3333,
        "grafana_prometheus_url": "http://127.0.0.1:9999",
        "grafana_root_url": "https://api.example.com/grafana/",
        "grafana_when_unreachable": "skip",
        "iris_api_base_port": 7001,
        "iris_api_instances": 2,
        "iris_api_max_body_bytes": 5000,
        "iris_api_max_rows": 70,
        "iris_api_max_values": 800,
        "iris_api_max_bytes_in_flight": 70000,
        "iris_api_model_name": "wine",
        "iris_api_model_version": "2.0.0",
        "iris_api_request_deadline": 3,
        "nginx_client_max_body_size": 5000,
        "nginx_client_max_bytes_in_flight": 70000,
        "nginx_exporter_listen_address": ":9911",
        "nginx_grafana_upstream": "127.0.0.1:3333",
        "nginx_server_name": "api.example.com",
        "nginx_trusted_networks": ["10.0.0.0/8", "192.0.2.10"],
        "nginx_upstream_timeout": "4s",
        "node_exporter_listen_address": ":9910",
        "mtail_listen_address": "127.0.0.1:3904",
        "blackbox_exporter_listen_address": "127.0.0.1:9916",
        "blackbox_exporter_server_name": "api.example.com",
        "pki_dns_names": ["api.example.com"],
        "pki_ip_addresses": ["192.0.2.10"],
        "prometheus_external_url": "http://192.0.2.10:9999",
        "prometheus_listen_address": ":9999",
        "prometheus_alertmanagers": ["127.0.0.1:9393"],
        "prometheus_external_labels": {"site": "api.example.com"},
        "alertmanager_listen_address": ":9393",
        "alertmanager_external_url": "http://192.0.2.10:9393",
        "alertmanager_receivers": [{"name": "team", "webhook_url": "https://example.com/hook"}],
        "alertmanager_routes": [{"receivers": ["team"]}],
        "alertmanager_smtp": {"server": "mail.example.com:25", "from": "a@example.com"},
        "alertmanager_heartbeat_url": "https://example.com/heartbeat",
    }
    assert {name: other[name] for name in expected} == expected
    assert other["pki_secrets_dir"].endswith("/elsewhere/pki")
    assert set(reached_by(other)) == {7001, 7002, 9999, 9393, 3333, 9911, 9910, 3904, 9916}


def test_the_gateway_waits_longer_than_an_instance_may_take(one: dict[str, Any]) -> None:
    assert one["iris_api_request_deadline"] == SETTINGS["fortress_request_deadline"]
    assert one["nginx_upstream_timeout"] == f"{SETTINGS['fortress_request_deadline'] + 1}s"
    assert one["nginx_client_max_body_size"] == one["iris_api_max_body_bytes"] == SETTINGS["fortress_max_body_bytes"]


# What must not be printed.

SECRET = re.compile(
    r"_fortress_passwords|_fortress_grafana_password|previous_passwords?\b|htpasswd|grafana_admin_password|grafana_secret_key"
    r"|blackbox_exporter_password"
    r"|'ansible.builtin.file', _pki_key_source"
)


def tasks(node: Any) -> list[dict[str, Any]]:
    """Return every task in a file of tasks or of plays, those in blocks too."""
    if not isinstance(node, list):
        return []
    found = []
    for entry in node:
        inner = [
            name
            for name in ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")
            if name in entry
        ]
        found += [task for name in inner for task in tasks(entry[name])] if inner else [entry]
    return found


def carries_a_secret(task: dict[str, Any]) -> bool:
    """Return whether a secret is among what Ansible would print of a task."""
    names = {
        "ansible.builtin.assert",
        "ansible.builtin.stat",
        "ansible.builtin.systemd_service",
        "credentials",
        "host_removal",
        "preflight",
    }
    if names & set(task):
        return False  # prints names of users, files and units
    for name, arguments in task.items():
        if name in ("when", "vars", "notify", "name", "no_log", "register") or name.startswith("community.crypto."):
            continue
        if name == "ansible.builtin.uri":  # the module itself hides url_password
            arguments = {key: value for key, value in arguments.items() if key != "url_password"}
        text = json.dumps(arguments)
        # A variable of the task stands for its value.
        text += "".join(json.dumps(value) for variable, value in task.get("vars", {}).items() if variable in text)
        if SECRET.search(text):
            return True
    return False


def test_tasks_that_carry_a_secret_are_not_logged() -> None:
    found = {}
    for path in [
        # Not those that begin with a dot: other tests write them meanwhile.
        *ROOT.glob("playbooks/**/[a-z]*.yml"),
        *ROOT.glob("roles/*/tasks/*.yml"),
        *ROOT.glob("roles/*/handlers/*.yml"),
    ]:
        for task in tasks(yaml.safe_load(path.read_text())):
            if carries_a_secret(task):
                found[f"{path.relative_to(ROOT)}: {task['name']}"] = task.get("no_log")
    assert len(found) >= 7, found
    for name, no_log in found.items():
        assert no_log in ("{{ fortress_no_log }}", "{{ fortress_no_log | default(true) }}"), name
    assert SETTINGS["fortress_no_log"] is True
