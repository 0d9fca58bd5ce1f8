"""What the gateway's role writes, rendered by Ansible's own engine without a host and read as nginx reads it."""

from __future__ import annotations

import ipaddress
import itertools
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import crossplane
import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import action_loader, filter_loader
from ansible.template import Templar, trust_as_template
from gixy.core.config import Config
from gixy.core.manager import Manager

from tests import ROOT

ROLE = ROOT / "roles" / "nginx"
NGINX = "etc/nginx/nginx.conf"
RELEASES = ["12", "13"]
NEEDED: dict[str, Any] = {
    "nginx_basic_auth_users": [{"name": "iris", "password": "kT9xWq2LmZ7vRb4NsY8cDp"}],
    "nginx_basic_auth_salt": "a-secret-of-this-site",
}
# Another value for every public variable.
CHANGED: dict[str, Any] = {
    "nginx_server_name": "api.example.com",
    "nginx_server_addresses": ["192.0.2.7", "2001:db8::7"],
    "nginx_listen_addresses": ["192.0.2.7", "[2001:db8::7]"],
    "nginx_trusted_networks": ["10.20.0.0/16", "2001:db8::/32"],
    "nginx_certificate_file": "/etc/ssl/other.pem",
    "nginx_private_key_file": "/etc/ssl/other.key",
    "nginx_upstreams": ["10.20.0.5:9001", "10.20.0.6:9001"],
    "nginx_upstream_hosts": {"10.20.0.5:9001": "api1", "10.20.0.6:9001": "api2.example.com"},
    "nginx_upstream_timeout": "7s",
    "nginx_grafana_upstream": "10.20.0.9:3001",
    "nginx_basic_auth_users": [{"name": "rosa", "password": "Plenty-of-9-Zebras"}],
    "nginx_basic_auth_salt": "the-secret-of-another-site",
    "nginx_basic_auth_scheme": "sha512_crypt",
    "nginx_basic_auth_allow_weak_passwords": True,
    "nginx_probe_users": [{"name": "fortress-probe", "password": "9f86d081884c7d659a2feaa0c55ad015"}],
    "nginx_rate_limit_enabled": False,
    "nginx_rate_limit": "30r/m",
    "nginx_rate_limit_burst": 9,
    "nginx_rate_limit_status": 429,
    "nginx_client_max_body_size": "1m",
    "nginx_client_max_bytes_in_flight": "9m",
    "nginx_client_timeout": "33s",
    "nginx_keepalive_timeout": "44s",
    "nginx_hsts_max_age": 300,
    "nginx_log_file_size_mb": 10,
    "nginx_log_files": 3,
    "nginx_extra_config": "location = /robots.txt {\n    return 204;\n}",
}

Directive = dict[str, Any]
Render = Callable[..., Path]


def variables(release: str, settings: dict[str, Any]) -> dict[str, Any]:
    loader = DataLoader()
    known: dict[str, Any] = {"ansible_facts": {"distribution": "Debian", "distribution_major_version": release}}
    for part in ("defaults", "vars"):
        known |= loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True)
    return known | settings


def evaluate(expression: str, release: str = "13", **settings: Any) -> Any:
    filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
    return Templar(DataLoader(), variables(release, settings)).template(trust_as_template(f"{{{{ {expression} }}}}"))


@cache
def rendered(release: str, settings: str) -> dict[str, str]:
    """Render the role's whole tree once for each of the settings, which are JSON."""
    action_loader.add_directory(str(ROOT / "plugins" / "action"))
    config_tree = action_loader.get("config_tree", class_only=True)
    known = variables(release, json.loads(settings))
    return dict(config_tree.render_tree(ROLE, Templar(DataLoader(), known), known))


@pytest.fixture
def render(tmp_path: Path) -> Render:
    """Write the role's whole tree below a folder, exactly as config_tree renders it."""

    def render(release: str = "13", **settings: Any) -> Path:
        for path, text in rendered(release, json.dumps(settings)).items():
            target = tmp_path / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return tmp_path

    return render


PARSED: dict[tuple[tuple[Path, str], ...], list[Directive]] = {}


def parse(tree: Path) -> list[Directive]:
    """Read nginx.conf with everything it includes, a tree of the same content once."""
    files = sorted(file for file in tree.rglob("*") if file.is_file())
    content = tuple((file.relative_to(tree), file.read_text()) for file in files)
    if content not in PARSED:
        payload = crossplane.parse(str(tree / NGINX), combine=True)
        assert payload["status"] == "ok", payload["errors"]
        PARSED[content] = list(payload["config"][0]["parsed"])
    return PARSED[content]


def walk(block: list[Directive]) -> Iterator[Directive]:
    for directive in block:
        yield directive
        yield from walk(directive.get("block", []))


def find(block: list[Directive], name: str) -> list[list[str]]:
    """Return the arguments of every directive of a name, however deep."""
    return [directive["args"] for directive in walk(block) if directive["directive"] == name]


def own(block: list[Directive], name: str) -> list[list[str]]:
    """Return the arguments of the directives of a name that stand in this very block."""
    return [directive["args"] for directive in block if directive["directive"] == name]


def blocks(parsed: list[Directive], name: str) -> list[Directive]:
    return [directive for directive in walk(parsed) if directive["directive"] == name]


def server(parsed: list[Directive], listens: str) -> list[Directive]:
    """Return the block of our server on a port: the one that answers when no name is given."""
    found = [
        block["block"]
        for block in blocks(parsed, "server")
        if "block" in block
        and any(args[0].endswith(listens) and "default_server" in args for args in own(block["block"], "listen"))
    ]
    assert len(found) == 1
    return list(found[0])


def catch_all(parsed: list[Directive]) -> list[Directive]:
    """Return the block of the server for every foreign name."""
    [found] = [
        block["block"] for block in blocks(parsed, "server") if own(block.get("block", []), "ssl_reject_handshake")
    ]
    return list(found)


def locations(parsed: list[Directive]) -> dict[str, list[Directive]]:
    """Return the locations of the https server by what they match."""
    return {" ".join(block["args"]): block["block"] for block in blocks(server(parsed, ":443"), "location")}


def maps(parsed: list[Directive], target: str) -> dict[str, str]:
    [found] = [block for block in blocks(parsed, "map") if block["args"][1] == target]
    return {entry["directive"]: entry["args"][0] for entry in found["block"] if entry["args"]}


def chosen(parsed: list[Directive], target: str, value: str) -> str:
    """Return what a map makes of a value: nginx looks for the text itself first, then for the first pattern."""
    rules = maps(parsed, target)
    hits = [result for rule, result in rules.items() if rule[0:1] == "~" and re.search(rule[1:], value)]
    return str(rules.get(value, (hits or [rules["default"]])[0]))


def log_format(parsed: list[Directive], wanted: str) -> str:
    """Return what a line of a log is made of, with nginx' variables."""
    [parts] = [parts for name, *parts in find(parsed, "log_format") if name == wanted]
    return "".join(part for part in parts if part != "escape=json")


def test_every_public_variable_is_changed_in_these_tests() -> None:
    specified = DataLoader().load_from_file(str(ROLE / "meta" / "argument_specs.yml"))
    assert set(CHANGED) == set(specified["argument_specs"]["main"]["options"])


@pytest.mark.parametrize("name", [name for name in CHANGED if "basic_auth" not in name])
def test_a_changed_variable_changes_the_configuration(render: Render, name: str) -> None:
    def text() -> str:
        return "\n".join(path.read_text() for path in sorted(tree.rglob("*")) if path.is_file())

    tree = render()
    before = text()
    render(**{name: CHANGED[name]})
    assert text() != before


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("settings", [{}, CHANGED], ids=["defaults", "all-changed"])
def test_gixy_finds_nothing(render: Render, release: str, settings: dict[str, Any]) -> None:
    tree = render(release, **settings)
    with Manager(config=Config(severity="LOW", allow_includes=True)) as manager, (tree / NGINX).open("rb") as stream:
        manager.audit(str(tree / NGINX), stream, is_stdin=False)
        issues = [(type(plugin).__name__, plugin.issues) for plugin in manager.results if plugin.issues]
    assert issues == []


@pytest.mark.parametrize("release", RELEASES)
def test_the_tree_needs_nothing_but_itself_the_certificate_and_debians_folders(render: Render, release: str) -> None:
    """Relative includes are what makes it possible to check the whole tree before it goes live."""
    tree = render(release)
    for args in find(parse(tree), "include"):
        assert not args[0].startswith("/")
    assert "include" not in {name for path in tree.rglob("mime.types") for name in path.read_text().split()}
    assert [path.name for path in tree.rglob("sites-*")] == []


def test_http2_is_switched_on_in_each_releases_words_and_for_tls_alone(render: Render) -> None:
    old = parse(render("12"))
    assert {args[0]: "http2" in args for args in find(old, "listen")} == {"0.0.0.0:80": False, "0.0.0.0:443": True}
    assert find(old, "http2") == []
    new = parse(render("13"))
    assert not any("http2" in args for args in find(new, "listen"))
    for block in (server(new, ":443"), catch_all(new)):
        assert own(block, "http2") == [["on"]]
    assert own(server(new, ":80"), "http2") == []


def test_tls_is_mozillas_intermediate_as_far_as_openssl_goes(render: Render) -> None:
    for release, curves in (
        ("12", "X25519:prime256v1:secp384r1"),
        ("13", "?X25519MLKEM768:X25519:prime256v1:secp384r1"),
    ):
        parsed = parse(render(release))
        assert find(parsed, "ssl_protocols") == [["TLSv1.2", "TLSv1.3"]]
        assert find(parsed, "ssl_ecdh_curve") == [[curves]]
        [[ciphers]] = find(parsed, "ssl_ciphers")
        assert all(
            re.fullmatch(r"ECDHE-(ECDSA|RSA)-(AES(128|256)-GCM-SHA\d+|CHACHA20-POLY1305)", c)
            for c in ciphers.split(":")
        )
        assert len(ciphers.split(":")) == 6


def test_predict_is_matched_exactly_and_nothing_else_reaches_the_api(render: Render) -> None:
    found = locations(parse(render()))
    assert set(found) == {
        "@retry",
        "@bad_gateway",
        "@gateway_timeout",
        "@error",
        "@limited",
        "@drop_challenge",
        "@previous_password",
        "= /_error",
        "= /predict",
        "= /health",
        "~ ^/(ping|v2/health/(live|ready))$",
        "~ ^/(v[12](/.*)?|invocations|version)$",
        r"~ ^/(docs(/.*)?|openapi\.json)$",
        "^~ /grafana/",
        "/",
    }
    proxied = {name: own(block, "proxy_pass") for name, block in found.items() if own(block, "proxy_pass")}
    assert proxied.pop("^~ /grafana/") == [["http://grafana"]]
    assert all(target == [["http://iris_api"]] for target in proxied.values())
    assert len(proxied) == 7


def test_a_password_is_asked_for_wherever_the_api_does_work(render: Render) -> None:
    found = locations(parse(render()))
    asking = {name for name, block in found.items() if own(block, "auth_basic")}
    previous = "@previous_password"
    assert asking == {
        "= /predict",
        "~ ^/(v[12](/.*)?|invocations|version)$",
        r"~ ^/(docs(/.*)?|openapi\.json)$",
        previous,
    }
    for name in asking:
        assert own(found[name], "auth_basic_user_file") == [
            ["fortress-previous.htpasswd" if name == previous else "fortress.htpasswd"]
        ]


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/v2", "GET, HEAD"),
        ("/v2/models", "GET, HEAD"),
        ("/v2/models/iris", "GET, HEAD"),
        ("/v2/models/iris/config", "GET, HEAD"),
        ("/v2/models/iris/versions/1.0.0/config", "GET, HEAD"),
        ("/v2/models/iris/infer", "POST"),
        ("/v2/models/iris/versions/1.0.0/infer", "POST"),
        ("/v2/repository/index", "POST"),
    ],
)
def test_each_path_of_the_protocol_reaches_the_api_with_a_password(render: Render, path: str, method: str) -> None:
    parsed = parse(render())
    found = locations(parsed)
    patterns = [name for name in found if name.startswith("~ ")]
    block = found[next(name for name in patterns if re.search(name.removeprefix("~ "), path))]
    assert own(block, "auth_basic_user_file") == [["fortress.htpasswd"]]
    assert own(block, "proxy_pass") == [["http://iris_api"]]
    # TRACE is answered by nginx itself, whose header Allow is that of the instances.
    allowed = maps(parsed, "$fortress_allow")
    rule = next(rule for rule in allowed if rule.startswith("~") and re.search(rule[1:], f"405::{path}"))
    assert allowed[rule] == method


def test_who_fails_at_the_current_password_is_asked_for_the_previous_one_and_for_nothing_else(render: Render) -> None:
    parsed = parse(render())
    found = locations(parsed)
    [http] = blocks(parsed, "http")
    for name, block in found.items():
        if own(block, "auth_basic_user_file") == [["fortress.htpasswd"]]:
            pages = own(block, "error_page")
            assert pages[0] == ["401", "=", "@drop_challenge"], name
            assert ["502", "504", "=", "$fortress_after_failure"] in pages, name
            for page in own(http["block"], "error_page"):
                assert page in [*pages, ["502", "504", "@error"]], f"{name} has lost some"
    assert {"return", "proxy_pass"}.isdisjoint(directive["directive"] for directive in found["@drop_challenge"])
    assert own(found["@drop_challenge"], "root") == [["/dev/null"]]
    assert own(found["@drop_challenge"], "try_files")[0][-1] == "@previous_password"
    assert not {"satisfy", "allow"} & {entry["directive"] for entry in found["@previous_password"]}
    assert "@drop_challenge" not in [page[-1] for page in own(found["@previous_password"], "error_page")]


@pytest.mark.parametrize("status", [503, 429])
def test_a_connection_ends_with_the_answer_of_the_limit(render: Render, status: int) -> None:
    parsed = parse(render(nginx_rate_limit_status=status))
    [http] = blocks(parsed, "http")
    [page] = [page for page in own(http["block"], "error_page") if str(status) in page]
    assert page == [str(status), "$fortress_error_page"]
    [chosen] = [block for block in blocks(parsed, "map") if block["args"][-1] == "$fortress_error_page"]
    assert {each["directive"]: each["args"] for each in chosen["block"]} == {
        "default": ["@error"],
        "rate_limited": ["@limited"],
    }
    limited = locations(parsed)["@limited"]
    assert own(limited, "keepalive_timeout") == [["0"]]


@pytest.mark.parametrize("settings", [{}, CHANGED], ids=["defaults", "all-changed"])
def test_nothing_that_is_protected_answers_by_return(render: Render, settings: dict[str, Any]) -> None:
    """A location answered by return runs neither the limit nor the password nor allow and deny."""
    guards = {"limit_req", "auth_basic", "allow", "deny"}
    for block in blocks(parse(render(**settings)), "location"):
        names = {directive["directive"] for directive in block["block"]}
        assert not (guards & names and {"return", "rewrite"} & names), block["args"]


@pytest.mark.parametrize("settings", [{}, CHANGED], ids=["defaults", "all-changed"])
def test_headers_are_added_in_one_place_so_that_none_is_lost(render: Render, settings: dict[str, Any]) -> None:
    parsed = parse(render(**settings))
    [http] = blocks(parsed, "http")
    added = 9 if settings.get("nginx_upstream_hosts") else 8
    assert len(own(http["block"], "add_header")) == len(find(parsed, "add_header")) == added
    assert all(args[-1] == "always" for args in find(parsed, "add_header"))


@pytest.mark.parametrize(
    ("asked", "header", "served_by"),
    [
        ("192.0.2.3:8001", "iris-api@1", "iris-api@1.a1"),
        ("192.0.2.3:8001, 192.0.2.4:8001", "iris-api@1", "iris-api@1.a2.example.com"),
        ("192.0.2.4:8001 : 192.0.2.4:8001 : [2001:db8::5]:8001", "iris-api@1", "iris-api@1.a3"),
        # Not in the list, by nginx_extra_config say; nobody was left; Grafana, which names nobody; nginx itself.
        ("192.0.2.9:8001", "iris-api@4", "iris-api@4"),
        ("192.0.2.3:8001 : iris_api", "", ""),
        ("192.0.2.5:3000", "", ""),
        ("", "", ""),
    ],
)
def test_of_instances_on_several_hosts_the_answer_names_the_host(
    render: Render, asked: str, header: str, served_by: str
) -> None:
    """By whoever answered last. The instances themselves, and those of one host, say iris-api@N."""
    assert "$fortress_served_by" not in str(parse(render()))
    hosts = {"192.0.2.3:8001": "a1", "192.0.2.4:8001": "a2.example.com", "[2001:db8::5]:8001": "a3"}
    parsed = parse(render(nginx_upstream_hosts=hosts))
    [http] = blocks(parsed, "http")
    assert ["X-Served-By", "$fortress_served_by", "always"] in own(http["block"], "add_header")
    for block in locations(parsed).values():
        if own(block, "proxy_pass") == [["http://iris_api"]]:
            assert ["X-Served-By"] in own(block, "proxy_hide_header")
    known = {"$upstream_addr": asked, "$upstream_http_x_served_by": header}

    def value(variable: str) -> str:
        if variable in known:
            return known[variable]
        rules = maps(parsed, variable)
        [block] = [block for block in blocks(parsed, "map") if block["args"][1] == variable]
        assert "volatile" in {directive["directive"] for directive in block["block"]}
        key = value(block["args"][0])
        hits = [
            match.expand(rules[rule].replace("$1", r"\1"))
            for rule in rules
            if rule[0:1] == "~" and (match := re.search(rule[1:], key))
        ]
        result = rules.get(key, (hits or [rules["default"]])[0])
        return re.sub(r"\$[a-z_]+", lambda name: value(name[0]), result)

    assert value("$fortress_served_by") == served_by


def test_a_browser_is_told_to_run_nothing_and_to_frame_nothing(render: Render) -> None:
    parsed = parse(render(nginx_hsts_max_age=300))
    assert {name: value for name, value, _ in find(parsed, "add_header")} == {
        "Allow": "$fortress_allow",
        "X-Request-ID": "$fortress_request_id",
        "Retry-After": "$fortress_retry_after",
        "Strict-Transport-Security": "$fortress_hsts",
        "Content-Security-Policy": "$fortress_csp",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
    }
    assert maps(parsed, "$fortress_hsts") == {"default": "", "on": "max-age=300"}
    # The pages of the API and Grafana have a policy of their own.
    assert maps(parsed, "$fortress_csp") == {"default": "", "": "$fortress_own_csp"}
    assert maps(parsed, "$fortress_own_csp") == {
        "default": "default-src 'none'; frame-ancestors 'none'",
        "~^/grafana/": "",
    }
    assert find(parsed, "server_tokens") == [["off"]]


def test_the_limit_is_10_a_second_and_a_burst_of_5_for_each_address(render: Render) -> None:
    parsed = parse(render())
    assert ["$fortress_client", "zone=predict:10m", "rate=10r/s"] in find(parsed, "limit_req_zone")
    assert find(parsed, "limit_req_status") == [["503"]]
    found = locations(parsed)
    for name in ("= /predict", "~ ^/(v[12](/.*)?|invocations|version)$"):
        assert own(found[name], "limit_req") == [["zone=predict", "burst=5", "nodelay"]]
    for name, block in found.items():
        # Whoever nginx sends to these was counted where the request came in.
        if own(block, "proxy_pass") == [["http://iris_api"]] and name not in ("@previous_password", "@retry"):
            assert own(block, "limit_req"), f"{name} reaches the API without a limit"


def test_each_kind_of_request_is_counted_apart_and_a_refused_one_is_told_when_to_come_again(render: Render) -> None:
    """A browser that reads the documentation must not take away what /predict may be asked."""
    parsed = parse(render(nginx_rate_limit="30r/m"))
    assert find(parsed, "limit_req_zone") == [
        ["$fortress_client", "zone=predict:10m", "rate=30r/m"],
        ["$fortress_client", "zone=pages:10m", "rate=30r/m"],
        ["$fortress_client", "zone=unmatched:10m", "rate=50r/s"],
        ["$fortress_untrusted_client", "zone=untrusted:10m", "rate=50r/s"],
    ]
    assert maps(parsed, "$fortress_retry_after") == {"default": "", "~^REJECTED:": "2", "~:REJECTED$": "1"}
    assert maps(parsed, "$fortress_untrusted_client") == {"1": "$fortress_client", "default": ""}


def test_only_grafana_may_be_sent_more_than_a_prediction_takes(render: Render) -> None:
    parsed = parse(render(nginx_client_max_body_size="1m"))
    [http] = blocks(parsed, "http")
    assert own(http["block"], "client_max_body_size") == own(http["block"], "client_body_buffer_size") == [["1m"]]
    found = {name: own(block, "client_max_body_size") for name, block in locations(parsed).items()}
    assert found.pop("^~ /grafana/") == [["10m"]]
    # What matches nothing is answered by 404 whatever comes with it, and none of that is read.
    assert found.pop("/") == [["0"]]
    assert not any(found.values())


def test_no_request_is_answered_without_being_counted(render: Render) -> None:
    """Whatever a client can ask for by itself passes a limit, and so nothing of it is answered by return."""
    parsed = parse(render())
    for block in blocks(parsed, "server"):
        if "block" not in block:
            continue
        assert own(block["block"], "return") == []
        for location in blocks(block["block"], "location"):
            name, names = " ".join(location["args"]), {directive["directive"] for directive in location["block"]}
            if name.startswith("@") or "internal" in names:
                continue
            assert "limit_req" in names, name
            assert "return" not in names, name


def test_a_client_by_ipv6_is_a_network_of_64_bits(render: Render) -> None:
    parsed = parse(render())
    assert {args[0] for args in find(parsed, "limit_req_zone")} == {"$fortress_client", "$fortress_untrusted_client"}
    [block] = [block for block in blocks(parsed, "map") if block["args"][1] == "$fortress_client"]
    assert block["args"][0] == "$binary_remote_addr"
    rules = maps(parsed, "$fortress_client")
    assert rules.pop("default") == "$binary_remote_addr"
    [(pattern, network)] = rules.items()
    match = re.search(pattern[1:].replace("?<", "?P<").encode(), ipaddress.ip_address("2001:db8:a:b:1:2:3:4").packed)
    assert match and match[network[1:]] == ipaddress.ip_address("2001:db8:a:b::").packed[:8]
    assert not re.search(pattern[1:].replace("?<", "?P<").encode(), ipaddress.ip_address("192.0.2.10").packed)


@pytest.mark.parametrize(
    ("limit", "fits", "too_large"),
    [
        ("60k", [0, 9, 60000, 61440, "0061440"], [61441, 61450, 61500, 62000, 70000, 100000, 99999999999, "0061441"]),
        ("999", [999, 99], [1000, 10000]),
        ("1m", [1048576, 1000000, 999999], [1048577, 1048580, 1048600, 1049000, 1050000, 1100000, 2000000, 10485760]),
        (61440, [61440], [61441]),
    ],
)
def test_a_body_that_announces_itself_as_too_large_is_refused_before_nginx_logs_it(
    render: Render, limit: object, fits: list[object], too_large: list[object]
) -> None:
    parsed = parse(render(nginx_client_max_body_size=limit))
    [pattern] = [rule[1:] for rule, result in maps(parsed, "$fortress_too_large").items() if result == "1"]
    assert not [length for length in ["", *fits] if re.search(pattern, f"/predict:{length}")]
    assert [length for length in too_large if re.search(pattern, f"/predict:{length}")] == too_large
    [condition] = [block for block in server(parsed, ":443") if block["directive"] == "if"]
    assert (condition["args"], own(condition["block"], "return")) == (["$fortress_too_large"], [["413"]])


def test_large_bodies_of_one_client_are_counted(render: Render) -> None:
    assert find(parse(render()), "limit_conn") == [["large", "273"]]
    parsed = parse(render(nginx_client_max_body_size="4m", nginx_client_max_bytes_in_flight="17m"))
    assert find(parsed, "limit_conn") == [["large", "4"]]
    assert find(parsed, "limit_conn_zone") == [["$fortress_large_client", "zone=large:10m"]]
    assert find(parsed, "limit_conn_status") == [["503"]]
    assert maps(parsed, "$fortress_large_client") == {"1": "$fortress_client", "default": ""}
    rules = maps(parsed, "$fortress_large")
    # A body may come without a length.
    assert (rules.pop("default"), rules.pop("POST:")) == ("0", "1")
    [(pattern, result)] = rules.items()
    assert result == "1"
    found = [
        length
        for length in ("", 0, 65536, "065536", 65537, 100000, 4000000)
        if re.search(pattern[1:], f"POST:{length}")
    ]
    assert found == [65537, 100000, 4000000]
    parsed = parse(render(nginx_client_max_body_size="4m", nginx_client_max_bytes_in_flight="1m"))
    assert find(parsed, "limit_conn") == [["large", "1"]]


@pytest.mark.parametrize("off", [False, "false", "no"])
def test_one_variable_switches_the_limit_off(render: Render, off: object) -> None:
    """What is no way to an instance stays limited: no load test needs it, and each request is a line in the log."""
    limits = find(parse(render(nginx_rate_limit_enabled=off)), "limit_req")
    assert {args[0] for args in limits} == {"zone=unmatched", "zone=untrusted"}


@pytest.mark.parametrize(
    ("rate", "seconds"), [("10r/s", 1), ("1r/s", 1), ("60r/m", 1), ("30r/m", 2), ("7r/m", 9), ("1r/m", 60)]
)
def test_retry_after_names_the_seconds_until_the_next_request_may_pass(rate: str, seconds: int) -> None:
    assert evaluate("_nginx_retry_after", nginx_rate_limit=rate) == seconds


def test_nothing_that_an_instance_answers_is_asked_again_or_counted_against_it(render: Render) -> None:
    parsed = parse(render())
    [http] = blocks(parsed, "http")
    assert own(http["block"], "proxy_next_upstream_tries") == [["2"]]
    assert find(parsed, "proxy_intercept_errors") == []
    for name, block in locations(parsed).items():
        if own(block, "proxy_pass") == [["http://iris_api"]]:
            assert own(block, "proxy_next_upstream") == [["timeout", "non_idempotent"]]
            assert own(block, "proxy_next_upstream_tries") == ([["1"]] if name == "@retry" else [])
            assert own(block, "proxy_http_version") == [["1.1"]]
            assert ["Connection", ""] in own(block, "proxy_set_header")


def test_nobody_is_waited_for_longer_than_told(render: Render) -> None:
    parsed = parse(render(nginx_client_timeout="33s", nginx_keepalive_timeout="44s", nginx_upstream_timeout="7s"))
    [http] = blocks(parsed, "http")
    for name in ("client_header_timeout", "client_body_timeout", "send_timeout"):
        assert find(parsed, name) == own(http["block"], name) == [["33s"]], name
    assert find(parsed, "keepalive_timeout")[0] == own(http["block"], "keepalive_timeout")[0] == ["44s"]
    # Otherwise the kernel would go on for minutes with what a client that is gone has not taken.
    assert own(http["block"], "reset_timedout_connection") == [["on"]]
    # An old worker ends after a reload, however long somebody stays connected to it.
    assert own(parsed, "worker_shutdown_timeout") == [["10s"]]
    for name, block in locations(parsed).items():
        if own(block, "proxy_pass") == [["http://iris_api"]]:
            # So short that a host that is down costs a request a second.
            assert own(block, "proxy_connect_timeout") == [["1s"]], name
            assert own(block, "proxy_send_timeout") == own(block, "proxy_read_timeout") == [["7s"]], name


@pytest.mark.parametrize(
    ("asked", "sent", "status", "decision"),
    [
        # Nobody has seen the request, or one instance has.
        ("127.0.0.1:8001", "0", "502", "@retry"),
        ("127.0.0.1:8001", "412", "502", "@retry"),
        ("127.0.0.1:8001, 127.0.0.1:8002", "0, 0", "504, 504", "@retry"),
        ("127.0.0.1:8001, 127.0.0.1:8002", "412, 0", "504, 502", "@retry"),
        ("127.0.0.1:8001 : 127.0.0.1:8002 : 127.0.0.1:8001", "0 : 0 : 412", "502 : 502 : 502", "@retry"),
        ("[::1]:8001, [::1]:8002", "0, 0", "504, 504", "@retry"),
        ("127.0.0.1:8001 : 127.0.0.1:8001", "412 : 412", "502 : 502", "@retry"),
        ("[::1]:8001 : [::1]:8001", "412 : 412", "502 : 502", "@retry"),
        ("127.0.0.1:8001 : 127.0.0.1:8001 : 127.0.0.1:8001", "412 : 0 : 412", "502 : 502 : 502", "@retry"),
        # Two have: a third one would be at risk.
        ("127.0.0.1:8001, 127.0.0.1:8002", "412, 412", "504, 502", "@bad_gateway"),
        ("127.0.0.1:8001, 127.0.0.1:8002", "412, 412", "504, 504", "@gateway_timeout"),
        ("127.0.0.1:8001, 127.0.0.1:8002 : 127.0.0.1:8003", "0, 412 : 412", "504, 502 : 502", "@bad_gateway"),
        ("127.0.0.1:8001 : 127.0.0.1:8001 : 127.0.0.1:8002", "12 : 12 : 12", "502 : 502 : 502", "@bad_gateway"),
        # One has, again and again: it may have been killed by it each time, or be frozen.
        ("127.0.0.1:8001 : 127.0.0.1:8001 : 127.0.0.1:8001", "12 : 12 : 12", "502 : 502 : 502", "@bad_gateway"),
        ("127.0.0.1:8001 : 127.0.0.1:8001", "412 : 412", "504 : 504", "@gateway_timeout"),
        # Nobody is left.
        ("iris_api", "0", "502", "@bad_gateway"),
        ("127.0.0.1:8001, 127.0.0.1:8002 : iris_api", "0, 0 : 0", "504, 504 : 502", "@bad_gateway"),
        # There is an end to it.
        (" : ".join(["127.0.0.1:8001"] * 6), " : ".join("0" * 6), " : ".join(["502"] * 6), "@retry"),
        (" : ".join(["127.0.0.1:8001"] * 7), " : ".join("0" * 7), " : ".join(["502"] * 7), "@bad_gateway"),
    ],
)
def test_a_request_goes_on_until_two_instances_have_seen_it(
    render: Render, asked: str, sent: str, status: str, decision: str
) -> None:
    parsed = parse(render())
    known = {"$upstream_addr": asked, "$upstream_bytes_sent": sent, "$upstream_status": status}

    def decide(variable: str) -> str:
        [block] = [block for block in blocks(parsed, "map") if block["args"][1] == variable]
        # Otherwise the first decision would be kept for the whole request.
        assert "volatile" in {directive["directive"] for directive in block["block"]}
        key = re.sub(r"\$\w+", lambda name: known[name[0]], block["args"][0])
        result = chosen(parsed, variable, key)
        return decide(result) if result.startswith("$") else result

    assert decide("$fortress_after_failure") == decision


def test_the_truth_table_of_the_documentation_is_the_one_of_the_configuration() -> None:
    def table(file: Path) -> list[list[str]]:
        lines = [line.lstrip("# ") for line in file.read_text().splitlines()]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        start = next(index for index, row in enumerate(rows) if row[:2] == ["Cause", "Who answers"])
        return [row for row in rows[start:] if len(row) == len(rows[start]) and set(row[0]) != {"-"}]

    decided = table(ROLE / "templates/etc/nginx/fortress.d/upstreams.conf")
    assert len(decided) > 20
    assert table(ROOT / "docs" / "faults.md") == decided


def test_instances_take_turns_over_connections_that_stay_open(render: Render) -> None:
    [upstream] = [block["block"] for block in blocks(parse(render()), "upstream") if block["args"] == ["iris_api"]]
    assert [args[0] for args in own(upstream, "server")] == ["127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003"]
    assert all(args[1:] == ["max_fails=3", "fail_timeout=2s"] for args in own(upstream, "server"))
    assert own(upstream, "zone")  # one round robin for all workers
    assert own(upstream, "keepalive") == [["32"]]
    [[timeout]] = own(upstream, "keepalive_timeout")
    assert int(timeout.removesuffix("s")) < 75  # an instance hangs up after 75 s, nginx must before
    assert {directive["directive"] for directive in upstream} & {"ip_hash", "least_conn", "hash", "random"} == set()


def test_the_password_ends_at_the_gateway(render: Render) -> None:
    """Grafana would take it for a login of its own; the API has no use for it."""
    for name, block in locations(parse(render())).items():
        if own(block, "proxy_pass"):
            assert ["Authorization", ""] in own(block, "proxy_set_header"), name


def test_no_header_of_the_client_is_believed(render: Render) -> None:
    for name, block in locations(parse(render())).items():
        if own(block, "proxy_pass"):
            headers = dict(own(block, "proxy_set_header"))
            assert headers["Host"] == headers["X-Forwarded-Host"] == "$host", name
            assert headers["X-Forwarded-For"] == "$remote_addr", name
            assert headers["X-Forwarded-Proto"] == "$scheme", name


def test_a_request_id_is_the_clients_only_if_it_is_harmless(render: Render) -> None:
    choice = maps(parse(render()), "$fortress_request_id")
    pattern = choice["default"] == "$request_id" and next(key for key in choice if key.startswith("~"))
    assert pattern and re.fullmatch(pattern[1:].strip("^$"), "order-17.b_A")
    for bad in ("", "a b", 'a"b', "a\nb", "x" * 129, "<script>"):
        assert not re.fullmatch(pattern[1:].strip("^$"), bad)


def test_one_request_has_one_id_for_the_instance_the_log_and_the_client(render: Render) -> None:
    parsed = parse(render())
    assert '"request_id":"$fortress_request_id"' in log_format(parsed, "fortress")
    for name, block in locations(parsed).items():
        if own(block, "proxy_pass") == [["http://iris_api"]]:
            assert ["X-Request-ID", "$fortress_request_id"] in own(block, "proxy_set_header"), name
            assert own(block, "proxy_hide_header") == [["X-Request-ID"]], name


@pytest.mark.parametrize(
    ("asked", "logged"), [("previous:127.0.0.1:8001", "previous"), ("previous:", ""), (":127.0.0.1:8001", "")]
)
def test_a_previous_password_is_in_the_log_once_it_was_accepted(render: Render, asked: str, logged: str) -> None:
    """Who asked an instance was let in; who did not was refused."""
    assert chosen(parse(render()), "$fortress_accepted_password", asked) == logged


def test_foreign_names_get_no_certificate_and_no_response(render: Render) -> None:
    foreign = catch_all(parse(render()))
    assert own(foreign, "server_name") == [["~."]]
    found = {" ".join(block["args"]): block["block"] for block in blocks(foreign, "location")}
    assert own(found["/"], "try_files") == [["/none", "@error"]]
    # No error page either.
    assert [own(found[name], "return") for name in ("@error", "= /_error")] == [[["444"]]] * 2
    assert own(foreign, "ssl_reject_handshake") == [["on"]]
    assert not any("default_server" in args for args in own(foreign, "listen"))
    assert own(foreign, "ssl_certificate") == []


def test_plain_http_is_sent_to_a_name_of_ours_and_keeps_its_method(render: Render) -> None:
    parsed = parse(render(nginx_server_addresses=["192.0.2.7", "2001:db8::7"]))
    plain = {" ".join(block["args"]): block["block"] for block in blocks(server(parsed, ":80"), "location")}
    assert own(plain["/"], "try_files") == [["/none", "@https"]]
    assert own(plain["@https"], "return") == [["308", "https://$fortress_https_host$request_uri"]]
    assert maps(parsed, "$fortress_https_host") == {
        "default": "iris.fortress.test",
        "192.0.2.7": "192.0.2.7",
        "[2001:db8::7]": "[2001:db8::7]",
    }
    [names] = own(server(parsed, ":443"), "server_name")
    assert names == ["iris.fortress.test", "192.0.2.7", "[2001:db8::7]"]


def test_only_trusted_networks_see_the_status_page_and_grafana(render: Render) -> None:
    parsed = parse(render(nginx_trusted_networks=["10.20.0.0/16"]))
    status = next(
        block["block"] for block in blocks(server(parsed, ":80"), "location") if block["args"] == ["=", "/nginx_status"]
    )
    for block in (status, locations(parsed)["^~ /grafana/"]):
        rules = [(d["directive"], d["args"][0]) for d in block if d["directive"] in ("allow", "deny")]
        assert rules == [("allow", "127.0.0.0/8"), ("allow", "::1"), ("allow", "10.20.0.0/16"), ("deny", "all")]


def test_without_grafana_there_is_no_way_to_it(render: Render) -> None:
    parsed = parse(render(nginx_grafana_upstream=""))
    assert "^~ /grafana/" not in locations(parsed)
    assert [block["args"] for block in blocks(parsed, "upstream")] == [["iris_api"]]


def test_every_error_of_nginx_is_json_in_one_shape(render: Render) -> None:
    parsed = parse(render())
    answered = {int(code) for args in find(parsed, "error_page") for code in args if code.isdigit()}
    assert answered >= {400, 401, 403, 404, 405, 408, 413, 414, 429, 494, 497, 500, 502, 503, 504}
    codes = maps(parsed, "$fortress_error_code")
    sentences = maps(parsed, "$fortress_error")
    assert set(codes.values()) - {"error"} == set(sentences) - {"default"}
    [body] = maps(parsed, "$fortress_error_body").values()
    for code, sentence in sentences.items():
        filled = (
            body.replace("$fortress_error_code", code)
            .replace("$fortress_request_id", "r1")
            .replace("$fortress_error", sentence)
        )
        assert set(json.loads(filled)) == {"error", "code", "request_id"}
    for block in (server(parsed, ":80"), server(parsed, ":443")):
        assert {"@error", "= /_error"} <= {" ".join(location["args"]) for location in blocks(block, "location")}


def test_errors_that_may_come_before_the_path_go_to_a_path(render: Render) -> None:
    """A named location can't take a request whose path is not known yet: nginx would answer 500."""
    target = {code: args[-1] for args in find(parse(render()), "error_page") for code in args if code.isdigit()}
    assert {target[code] for code in ("400", "414", "494", "497", "501", "505")} == {"/_error"}


def test_each_line_of_the_access_log_is_json(render: Render) -> None:
    parsed = parse(render())
    assert find(parsed, "log_format")[0][:2] == ["fortress", "escape=json"]
    entry = json.loads(re.sub(r"\$\w+", "1", log_format(parsed, "fortress")))
    assert set(entry) >= {
        "time", "msec", "remote_addr", "user", "method", "path", "status", "bytes", "request_time", "request_id",
        "upstream_addr", "upstream_status", "upstream_response_time", "http_version", "ssl_protocol",
    }  # fmt: skip
    assert all(isinstance(entry[number], int) for number in ("msec", "status", "bytes", "request_time"))


def test_no_text_of_a_client_is_longer_in_the_log_than_its_bound(render: Render) -> None:
    """With every byte written as six, and upstream fields of ten attempts, a line stays below 4096 bytes."""
    parsed = parse(render())
    length = 0
    for part in re.split(r"(\$\w+)", log_format(parsed, "fortress")):
        if not part.startswith("$logged_"):
            assert part not in {"$remote_user", "$request_uri", "$host", "$http_user_agent", "$request_method"}, part
            length += len(part)
            continue
        rules = maps(parsed, part)
        [source] = [block["args"][0] for block in blocks(parsed, "map") if block["args"][1] == part]
        assert rules.pop("default") == source
        [(pattern, shortened)] = rules.items()
        [bound] = map(int, re.findall(r"[{]0,(\d+)[}]", pattern))
        assert shortened == "$1..."
        cut = re.compile(pattern[1:].encode())  # over bytes, as nginx does it
        assert not cut.search(b"x" * bound)
        for text, kept in (
            (b"x\n" * bound, (b"x\n" * bound)[:bound]),
            (b"x" * (bound - 1) + "é".encode(), b"x" * (bound - 1)),
            (b"x" * (bound - 3) + "😀!".encode(), b"x" * (bound - 3)),
            (b"x" * (bound - 2) + "é!".encode(), b"x" * (bound - 2) + "é".encode()),
        ):
            match = cut.search(text)
            assert match and match[1] == kept, (part, text)
        length += 6 * bound if part in ("$logged_user", "$logged_agent") else 2 * bound
    # The rest: a request id of the client, numbers, and what nginx says about the instances it asked.
    assert length + 128 + 200 + 10 * 4 * 25 < 4096


@pytest.mark.parametrize(
    ("limit", "upstream", "number", "logged"),
    [
        ("PASSED", "", 17, True),
        ("DELAYED", "", 17, True),
        # Without a limit, where a load is measured.
        ("", "127.0.0.1:8001", 17, True),
        ("REJECTED", "", 1, True),
        ("REJECTED", "", 5, True),
        ("REJECTED", "", 6, False),
        ("", "", 17, False),
        ("", "", 99, False),
        ("REJECTED", "", 700, True),
        ("REJECTED", "", 1000, True),
    ],
)
def test_of_what_was_refused_uncounted_some_is_logged(
    render: Render, limit: str, upstream: str, number: int, logged: bool
) -> None:
    parsed = parse(render())
    counted = chosen(parsed, "$fortress_counted", f"HTTP/2.0:{limit}:{upstream}")
    assert chosen(parsed, "$fortress_log_it", f"{counted}:{number}") == str(int(logged))
    # Over HTTP/1 the limit ends the connection: there is no hundredth that would stand for it.
    counted = chosen(parsed, "$fortress_counted", f"HTTP/1.1:{limit}:{upstream}")
    assert chosen(parsed, "$fortress_log_it", f"{counted}:{number}") == str(int(logged or limit == "REJECTED"))
    # And what is counted are the same requests.
    assert find(parsed, "access_log")[:2] == [
        ["/var/log/nginx/access.log", "fortress", "if=$fortress_log_it"],
        ["/var/log/nginx/counts.log", "fortress_counts", "if=$fortress_log_it"],
    ]


@pytest.mark.parametrize(
    ("limit", "upstream", "by", "retried"),
    [
        ("PASSED", "127.0.0.1:8001", "upstream", ""),
        # Without a limit; a host of several instances; two that were asked, and two groups of them.
        ("", "[2001:db8::7]:8001", "upstream", ""),
        ("PASSED", "127.0.0.1:8001, 127.0.0.1:8002", "upstream", "retried"),
        ("DELAYED", "127.0.0.1:8001 : 127.0.0.1:3000", "upstream", "retried"),
        ("REJECTED", "", "limiter", ""),
        # A wrong password, and a path that nobody serves.
        ("", "", "gateway", ""),
        ("PASSED", "", "gateway", ""),
    ],
)
def test_nginx_says_who_answered(render: Render, limit: str, upstream: str, by: str, retried: str) -> None:
    parsed = parse(render())
    assert chosen(parsed, "$fortress_answered_by", f"{limit}:{upstream}") == by
    assert chosen(parsed, "$fortress_retried", upstream) == retried


def test_no_text_of_a_client_is_in_what_is_counted(render: Render) -> None:
    parsed = parse(render())
    for method, counted in (("GET", "$request_method"), ("BREW", "other"), ("", "other"), ("GETX", "other")):
        assert chosen(parsed, "$fortress_known_method", method) == counted
    assert set(re.findall(r"\$\w+", log_format(parsed, "fortress_counts"))) == {
        "$fortress_named", "$fortress_known_method", "$fortress_status", "$fortress_answered_by", "$fortress_weight",
        "$bytes_sent", "$request_time", "$fortress_accepted_password", "$fortress_retried",
    }  # fmt: skip


def test_the_log_that_the_package_does_not_bring_is_made_as_those_that_it_does(render: Render) -> None:
    [made] = [
        line for line in (render() / "etc/tmpfiles.d/fortress-nginx.conf").read_text().splitlines() if line[0] != "#"
    ]
    assert made.split()[:5] == ["f", "/var/log/nginx/counts.log", "0640", "www-data", "adm"]


@pytest.mark.parametrize(
    ("logged", "weights"),
    [
        # All that are refused on a connection, uncounted: as many as there were, at each line.
        ([1, 2, 3, 4, 5, 100, 200, 1000], [1, 1, 1, 1, 1, 95, 100, 100]),
    ],
)
def test_a_line_says_for_how_many_requests_it_stands(render: Render, logged: list[int], weights: list[int]) -> None:
    parsed = parse(render())

    def weight(value: str) -> int:
        return int(chosen(parsed, "$fortress_weight", value))

    assert [weight(f"0:{number}") for number in logged] == weights
    assert sum(weight(f"0:{number}") for number in [1, 2, 3, 4, 5, *range(100, 1001, 100)]) == 1000
    assert [weight(f"1:{number}") for number in logged] == [1] * len(logged)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/predict", "predict"),
        ("/predictXYZ", "other"),
        ("/health", "health"),
        ("/ping", "health"),
        ("/v2/health/ready", "health"),
        ("/v2", "v2"),
        ("/v2/models/iris/infer", "v2"),
        ("/v1/models/iris:predict", "v1"),
        ("/v10", "other"),
        ("/invocations", "invocations"),
        ("/version", "version"),
        ("/docs/start.js", "docs"),
        ("/openapi.json", "docs"),
        ("/grafana/api/health", "grafana"),
        ("/probe", "probe"),
        ("/", "other"),
        ("/wp-login.php", "other"),
    ],
)
def test_nginx_names_the_route_of_a_request_and_no_client_does(render: Render, path: str, route: str) -> None:
    parsed = parse(render(**{"nginx_probe_users": CHANGED["nginx_probe_users"]}))
    assert chosen(parsed, "$fortress_own_route", path) == route
    # And mtail has the series of each of them.
    presets = DataLoader().load_from_file(str(ROOT / "roles" / "mtail" / "defaults" / "main.yml"))["mtail_routes"]
    assert set(maps(parsed, "$fortress_own_route").values()) == set(presets)


def test_each_server_says_whose_requests_are_whose(render: Render) -> None:
    parsed = parse(render())
    names = [own(block, "set") for block in (server(parsed, ":443"), server(parsed, ":80"), catch_all(parsed))]
    assert names == [[["$fortress_route", name]] for name in ("$fortress_own_route", "redirect", "unmatched")]
    # Before a request that announces too large a body is answered: it belongs to its route too.
    https = [directive["directive"] for directive in server(parsed, ":443")]
    assert https.index("set") < https.index("if")
    rules = maps(parsed, "$fortress_named")
    assert (rules.pop("default"), rules.pop(""), len(rules)) == ("other", "malformed", 1)
    [pattern] = rules
    assert [name for name in ("reports", "v2", "A", 'x"', "x" * 32) if re.search(pattern[1:], name)] == [
        "reports",
        "v2",
    ]


def test_the_probe_has_a_user_and_a_limit_of_its_own(render: Render) -> None:
    assert "= /probe" not in locations(parse(render()))
    parsed = parse(render(nginx_probe_users=CHANGED["nginx_probe_users"], nginx_rate_limit_enabled=False))
    probe = locations(parsed)["= /probe"]
    assert own(probe, "auth_basic_user_file") == [["fortress-probe.htpasswd"]]
    assert [args[0] for args in own(probe, "limit_req")] == ["zone=probe"], "also where clients are not limited"
    assert own(probe, "proxy_pass") == [["http://iris_api"]]
    # A wrong password is final: there is no previous one.
    assert ["401", "=", "@drop_challenge"] not in own(probe, "error_page")
    using = [name for name, block in locations(parsed).items() if own(block, "auth_basic_user_file")]
    for name in using:
        asked = own(locations(parsed)[name], "auth_basic_user_file")
        assert (asked == [["fortress-probe.htpasswd"]]) == (name == "= /probe"), name
    line = evaluate("_nginx_probe_htpasswd", nginx_probe_users=CHANGED["nginx_probe_users"], **NEEDED)
    assert re.fullmatch(r"fortress-probe:\{SSHA\}\S+\n", line)


def test_the_kernel_bounds_a_log_and_a_timer_puts_it_aside_at_half_of_that(render: Render) -> None:
    tree = render(nginx_log_file_size_mb=10, nginx_log_files=3)
    unit = (tree / "etc/systemd/system/nginx.service.d/fortress.conf").read_text().splitlines()
    assert "LimitFSIZE=10M" in unit
    [wants] = [line.removeprefix("Wants=").split() for line in unit if line.startswith("Wants=")]
    assert "nginx-logrotate.timer" in wants
    # The error log is in the journal, from which it must not push out what others have written.
    assert {"LogRateLimitIntervalSec=30s", "LogRateLimitBurst=300"} <= set(unit)
    # Otherwise the kernel would end who reaches it.
    sockets = (tree / "etc/systemd/system/nginx.service.d/fortress-sockets.conf").read_text().splitlines()
    start = [line for line in sockets if line.startswith("ExecStart=")][-1]
    assert start.endswith(" -- /usr/bin/env --ignore-signal=XFSZ /usr/sbin/nginx -g 'daemon on; master_process on;'")
    rotation = (tree / "etc/logrotate.d/nginx").read_text().split("\n")
    assert {"    size 5120k", "    rotate 2"} <= set(rotation)
    # Addresses of clients are for administrators; nginx is told to go on in the new file, and interrupts nobody.
    assert "    create 0640 www-data adm" in rotation
    assert [line.split()[-4:-1] for line in rotation if "kill" in line] == [["kill", "-USR1", '"$(cat']]
    # The kernel's bound is reached in a minute of full load at the earliest.
    assert "OnCalendar=minutely" in (tree / "etc/systemd/system/nginx-logrotate.timer").read_text()


def test_nginx_has_connections_for_many_addresses_that_have_all_they_may(render: Render) -> None:
    parsed = parse(render())
    [[connections]], [[files]] = find(parsed, "worker_connections"), find(parsed, "worker_rlimit_nofile")
    base = DataLoader().load_from_file(str(ROOT / "roles" / "base" / "defaults" / "main.yml"))
    assert int(connections) >= 19 * base["base_connections_per_address"]
    assert int(files) >= 2 * int(connections)


def test_what_a_client_chooses_is_logged_as_far_as_it_is_utf_8(render: Render) -> None:
    parsed = parse(render())
    line = log_format(parsed, "fortress")
    patterns = set()
    for name, variable, _ in evaluate("_nginx_log_texts"):
        assert f"$logged_{name}" in line
        assert f"${variable}" not in line
        _, (one, passed), (other, shortened) = maps(parsed, f"$utf8_{name}").items()
        assert (passed, shortened) == (f"${variable}", "$1...")
        patterns.add((one[1:], other[1:]))
    [(whole, beginning)] = patterns
    # nginx matches bytes, and writes the end of the text as \z.
    valid, prefix = re.compile(whole.replace(r"\z", r"\Z").encode()), re.compile(beginning.encode())
    edges = bytes.fromhex("00 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 ff")
    for length in range(4):
        for start in map(bytes, itertools.product(edges, repeat=length)):
            for text in (start, start + b"\x80", start + b"\xbf"):
                try:
                    text.decode()
                    assert valid.search(text), text
                except UnicodeDecodeError as error:
                    assert not valid.search(text), text
                    found = prefix.match(text)
                    assert found, text
                    assert found[1] == text[: error.start]


def test_a_users_own_directives_stand_in_the_https_server(render: Render) -> None:
    found = locations(parse(render(nginx_extra_config=CHANGED["nginx_extra_config"])))
    assert own(found["= /robots.txt"], "return") == [["204"]]


def test_weak_passwords_stop_the_run_before_anything_is_written() -> None:
    with pytest.raises(AnsibleError, match="nginx_basic_auth_allow_weak_passwords"):
        evaluate("_nginx_htpasswd", **NEEDED | {"nginx_basic_auth_users": [{"name": "admin", "password": "admin"}]})
    assert evaluate("_nginx_htpasswd", **NEEDED).startswith("iris:{SSHA}")
    assert evaluate("_nginx_htpasswd", **CHANGED).startswith("rosa:$6$")
    weak = [{"name": "iris", "password": "kT9xWq2LmZ7vRb4NsY8cDp", "previous_password": "iris"}]
    with pytest.raises(AnsibleError, match="nginx_basic_auth_allow_weak_passwords"):
        evaluate("_nginx_previous_htpasswd", **NEEDED | {"nginx_basic_auth_users": weak})


@pytest.mark.parametrize(
    ("known", "running"),
    [
        ({"__nginx_service": {"changed": False}}, True),
        # Started by this run, with the configuration that this run wrote.
        ({"__nginx_service": {"changed": True}}, False),
        # Not installed by check mode.
        ({"__nginx_service": {"changed": False, "skipped": True}}, False),
        # It ran when the run began, so its role did not look again.
        ({"ansible_facts": {"survey": {"running": ["nginx.service"]}}}, True),
        (
            {
                "ansible_facts": {"survey": {"running": ["nginx.service"]}},
                "__nginx_service": {"changed": False, "skipped": True},
            },
            True,
        ),
        # It does not run, and the run has not come to the service.
        ({"ansible_facts": {"survey": {"running": ["prometheus.service"]}}}, False),
        ({"ansible_facts": {}}, False),
    ],
)
def test_nginx_is_reloaded_only_where_it_ran_before(known: dict[str, Any], running: bool) -> None:
    assert evaluate("_nginx_was_running", **known) is running
