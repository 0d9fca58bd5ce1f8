"""What the role base reads from its settings: plugins/filter/base.py."""

from __future__ import annotations

import pytest
from ansible.plugins.loader import filter_loader

from tests import ROOT

filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
ca_certificate_path, no_networks, not_networks = (
    filter_loader.get(name).j2_function for name in ("ca_certificate_path", "no_networks", "not_networks")
)


@pytest.mark.parametrize("file", ["proxy.pem", "/etc/pki/proxy.crt", "certificates/proxy", "proxy.cer"])
def test_a_ca_certificate_ends_in_crt_whatever_it_was_called(file: str) -> None:
    assert ca_certificate_path(file) == "/usr/local/share/ca-certificates/proxy.crt"


def test_a_name_may_have_dots() -> None:
    assert ca_certificate_path("ca.example.com.pem") == "/usr/local/share/ca-certificates/ca.example.com.crt"


@pytest.mark.parametrize(
    "network", ["192.0.2.7", "10.20.0.0/16", "10.20.0.1/16", "2001:db8::/32", "::1", "::ffff:192.0.2.7"]
)
def test_addresses_and_networks_of_both_families_are_networks(network: str) -> None:
    assert not_networks([network]) == []


@pytest.mark.parametrize(
    "text",
    [
        "balancer.example.com",
        "",
        "192.0.2",
        "192.0.2.7/33",
        "10.0.0.0/255.0.0.0",
        "2001:db8::/129",
        "fe80::1%eth0",
        "::1/",
        "999.0.2.7",
    ],
)
def test_what_nft_could_not_read_is_no_network(text: str) -> None:
    assert not_networks(["192.0.2.7", text, "::1"]) == [text]


def test_each_variable_that_has_one_is_named() -> None:
    networks = {"a": ["::1"], "b": ["::1", "office", "shop"], "c": "10.0.0.0/8"}
    assert no_networks(networks) == ["b has office, shop", "c has 10.0.0.0/8"]


def test_a_text_in_place_of_a_list_is_none() -> None:
    assert not_networks("10.0.0.0/8") == ["10.0.0.0/8"]
