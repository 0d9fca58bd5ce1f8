"""The filter that makes the htpasswd file: repeatable, and without weak passwords."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible.plugins.loader import filter_loader
from passlib import hash as hashers

from tests import ROOT

filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
htpasswd = filter_loader.get("htpasswd").j2_function

SALT = "a-secret-of-this-site"
GENERATED = "kT9xWq2LmZ7vRb4NsY8cDp"  # 22 of 62: 131 bits
CHOSEN = "Plenty-of-9-Zebras"
VERIFIERS = {
    "ssha": ("{SSHA}", hashers.ldap_salted_sha1),
    "apr1": ("$apr1$", hashers.apr_md5_crypt),
    "sha512_crypt": ("$6$", hashers.sha512_crypt),
}


def line(password: str, scheme: str = "ssha", name: str = "iris", salt: str = SALT) -> str:
    return str(htpasswd([{"name": name, "password": password}], salt, scheme))


@pytest.mark.parametrize("scheme", VERIFIERS)
def test_a_password_is_accepted_and_no_other_is(scheme: str) -> None:
    prefix, verifier = VERIFIERS[scheme]
    name, _, digest = line(GENERATED, scheme).strip().partition(":")
    assert name == "iris"
    assert digest.startswith(prefix)
    assert verifier.verify(GENERATED, digest)
    assert not verifier.verify(GENERATED + "x", digest)


@pytest.mark.parametrize("scheme", VERIFIERS)
def test_a_second_run_writes_the_same_line(scheme: str) -> None:
    assert line(GENERATED, scheme) == line(GENERATED, scheme)


def test_whatever_changes_shows_in_the_line() -> None:
    lines = {
        line(GENERATED),
        line(GENERATED[::-1]),
        line(GENERATED, "apr1"),
        line(GENERATED, "sha512_crypt"),
        line(GENERATED, name="rosa"),
        line(GENERATED, salt="another-site"),
    }
    assert len({text.partition(":")[2] for text in lines}) == 6


def test_a_user_may_have_a_scheme_of_their_own() -> None:
    users = [{"name": "robot", "password": GENERATED}, {"name": "rosa", "password": CHOSEN, "scheme": "sha512_crypt"}]
    robot, rosa = htpasswd(users, SALT).splitlines()
    assert robot.startswith("robot:{SSHA}")
    assert rosa.startswith("rosa:$6$")


@pytest.mark.parametrize("scheme", VERIFIERS)
@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("admin", "admin"),
        ("iris", "password"),
        ("iris", "P@ssw0rd123!"),
        ("iris", "changeme"),
        ("iris", "iris2026"),
        ("rosalinde-gartner", "rosalinde-gartner"),
        ("iris", "123456789012"),
        ("iris", "abababababababababababababab"),
        ("iris", "short9Z"),
        ("iris", "Summer2026!!"),
        ("iris", "qwertyuiop123"),
        ("iris", "0123456789abcdef0123456789abcdef"),
    ],
)
def test_what_an_attacker_tries_first_is_refused_under_every_scheme(name: str, password: str, scheme: str) -> None:
    with pytest.raises(AnsibleFilterError, match="nginx_basic_auth_allow_weak_passwords") as refusal:
        line(password, scheme, name)
    assert f"'{name}'" in str(refusal.value)
    if password not in (name, "password"):
        assert password not in str(refusal.value)


@pytest.mark.parametrize("password", [CHOSEN, "correct horse battery staple again", "c0a7f52e91b86d3407ea5c2f9d16b83"])
def test_a_password_that_a_person_chose_needs_a_slow_scheme(password: str) -> None:
    with pytest.raises(AnsibleFilterError, match="sha512_crypt"):
        line(password, "ssha")
    assert line(password, "sha512_crypt").startswith("iris:$6$")


@pytest.mark.parametrize(
    "password", [GENERATED, GENERATED * 4, "c0a7f52e91b86d3407ea5c2f9d16b83e", "x8Kq!" * 2 + "Zr5+wP2#mN9d"]
)
def test_a_generated_password_may_have_a_fast_one(password: str) -> None:
    assert line(password).startswith("iris:{SSHA}")


@pytest.mark.parametrize(
    "enough",
    [
        "orbit velvet cactus lantern mosaic harbor pepper quartz saddle willow",
        "orbit-velvet-cactus-lantern-mosaic-harbor-pepper-quartz-saddle-willow",
        "9f86d081884c7d659a2feaa0c55ad015",
        GENERATED,
    ],
)
def test_a_fast_scheme_takes_128_random_bits_and_no_fewer(enough: str) -> None:
    """A word has 13, a hexadecimal digit 4, one of letters and digits 6."""
    assert line(enough).startswith("iris:{SSHA}")
    less = enough.rpartition(" ")[0] or enough.rpartition("-")[0] or enough[:-1]
    with pytest.raises(AnsibleFilterError, match="too weak for ssha"):
        line(less)
    assert line(less, "sha512_crypt").startswith("iris:$6$")


def test_one_variable_lets_weak_passwords_pass() -> None:
    assert htpasswd([{"name": "admin", "password": "admin"}], SALT, allow_weak=True).startswith("admin:{SSHA}")


@pytest.mark.parametrize("name", ["", "a:b", "a b", "#a", "a\nb", "ümlaut"])
def test_a_name_that_would_break_the_file_is_refused(name: str) -> None:
    with pytest.raises(AnsibleFilterError, match="user name"):
        line(GENERATED, name=name)


@pytest.mark.parametrize("password", ["", None, "with\nnewline-kT9xWq2LmZ7vRb4NsY8cDp", "nul\0kT9xWq2LmZ7vRb4NsY8cDp"])
def test_an_empty_or_unprintable_password_is_refused_always(password: str | None) -> None:
    with pytest.raises(AnsibleFilterError, match="empty or has control characters"):
        htpasswd([{"name": "iris", "password": password}], SALT, allow_weak=True)


def test_a_name_listed_twice_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="more than once"):
        htpasswd([{"name": "iris", "password": GENERATED}] * 2, SALT)


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AnsibleFilterError, match="ssha, apr1, sha512_crypt"):
        line(GENERATED, "plain")


def test_a_previous_password_makes_a_file_of_its_own_for_those_who_have_one() -> None:
    users = [
        {"name": "iris", "password": GENERATED, "previous_password": GENERATED[::-1]},
        {"name": "robot", "password": GENERATED},
        {"name": "rosa", "password": GENERATED, "previous_password": CHOSEN, "scheme": "sha512_crypt"},
    ]
    iris, rosa = htpasswd(users, SALT, previous=True).splitlines()
    assert hashers.ldap_salted_sha1.verify(GENERATED[::-1], iris.removeprefix("iris:"))
    assert rosa.startswith("rosa:$6$")
    assert htpasswd(users, SALT).count("\n") == 3
    assert htpasswd(users[1:2], SALT, previous=True) == ""


def test_a_previous_password_must_be_as_good_as_any() -> None:
    for previous in ("", "iris2026"):
        with pytest.raises(AnsibleFilterError, match="'iris'"):
            htpasswd([{"name": "iris", "password": GENERATED, "previous_password": previous}], SALT, previous=True)
