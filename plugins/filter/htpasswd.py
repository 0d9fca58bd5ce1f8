"""Turn a list of users into the text of an htpasswd file, the same text for the same users on every run."""

from __future__ import annotations

import hmac
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from ansible.errors import AnsibleFilterError
from passlib import hash as hashers

DOCUMENTATION = r"""
name: htpasswd
short_description: The text of an htpasswd file for nginx
description:
  - Salts are derived from a secret of the site, the user and the password, so a second run gives the same text
    and a changed password, scheme or secret gives another.
  - Rejects what an attacker would guess, unless allow_weak is set.
positional: _input
options:
  _input:
    description: Users, each with name and password, and with a scheme and a previous_password where there is one.
    type: list
    elements: dict
    required: true
  salt:
    description: A random secret of the site.
    type: str
    required: true
  scheme:
    description: How the passwords are hashed.
    type: str
    choices: [ssha, apr1, sha512_crypt]
    default: ssha
  allow_weak:
    description: Accept weak passwords.
    type: bool
    default: false
  previous:
    description: Take each user's previous_password instead, and leave out who has none.
    type: bool
    default: false
author: Fortress
"""

EXAMPLES = r"""
text: "{{ [{'name': 'iris', 'password': secret}] | htpasswd(salt=site_salt) }}"
"""

RETURN = r"""
_value:
  description: The lines of the file.
  type: str
"""

FAST = ("ssha", "apr1")  # as cheap for nginx on each request as for whoever tries to guess
ENOUGH_FOR_FAST = 128  # random bits
# zxcvbn's greatest: 10^10 guesses or more, which a slow scheme makes too many.
UNGUESSABLE = 4
# What zxcvbn takes; the rest of a longer password makes it only better.
LONGEST_JUDGED = 72
# Beside the user's own name, what whoever guesses a password of such a site tries.
TRIED_HERE = ("changeit", "default", "fortress", "iris", "nginx", "placeholder")
CRYPT_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def htpasswd(
    users: Sequence[Mapping[str, Any]],
    salt: str,
    scheme: str = "ssha",
    allow_weak: bool = False,
    previous: bool = False,
) -> str:
    """Return one line `name:hash` for each user, or for each that has a previous password."""
    names = [str(user.get("name", "")) for user in users]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9._@+-]+", name):
            raise AnsibleFilterError(f"The user name {name!r} has other characters than letters, digits and . _ @ + -")
        if names.count(name) > 1:
            raise AnsibleFilterError(f"The user {name!r} is listed more than once.")
    key = "previous_password" if previous else "password"
    return "".join(
        _line(name, str(user.get(key) or ""), str(user.get("scheme") or scheme), salt, allow_weak)
        for name, user in zip(names, users, strict=True)
        if key in user or not previous
    )


def weakness(name: str, password: str, scheme: str) -> str | None:
    """Return what is wrong with a password and what to do about it, or None."""
    allow = "nginx_basic_auth_allow_weak_passwords: true accepts it all the same."
    if not _is_unguessable(name, password):
        return (
            "the password can be guessed: it is too short, too uniform, or made of what many take. Take another, "
            f"say by `openssl rand -hex 16`; {allow}"
        )
    if scheme in FAST and random_bits(password) < ENOUGH_FOR_FAST:
        return (
            f"the password is too weak for {scheme}, a fast scheme that suits only random passwords of 128 bits "
            "(22 letters and digits, 32 hexadecimal digits). Take such a password, or give this user a slow scheme "
            f"(`scheme: sha512_crypt`); {allow}"
        )
    return None


@cache
def _is_unguessable(name: str, password: str) -> bool:
    """Return whether zxcvbn, which knows common passwords, names, keyboards and substitutions, finds nothing."""
    # Its dictionaries take a fifth of a second to load, which plays that hash nothing need not wait for.
    from zxcvbn import zxcvbn

    found = zxcvbn(password[:LONGEST_JUDGED], user_inputs=[name, *TRIED_HERE])
    return int(found["score"]) >= UNGUESSABLE


def random_bits(password: str) -> float:
    """Return how random a password is, rather too high than too low: each character drawn from the kinds that are seen.

    zxcvbn's guesses do not tell that: it takes words of other languages for random, and random letters for digits.
    """
    if len(set(password)) < 6:
        return 0
    if words := re.fullmatch(r"[A-Za-z]+([ ._-][A-Za-z]+)+", password):
        return 13.0 * len(re.split(r"[ ._-]", words[0]))  # from a large dictionary
    if re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", password):
        return 4.0 * len(password)
    kinds = {r"[a-z]": 26, r"[A-Z]": 26, r"[0-9]": 10, r"[^a-zA-Z0-9]": 32}
    return len(password) * math.log2(sum(size for kind, size in kinds.items() if re.search(kind, password)))


def _line(name: str, password: str, scheme: str, site_salt: str, allow_weak: bool) -> str:
    if scheme not in SCHEMES:
        raise AnsibleFilterError(f"User {name!r}: unknown scheme {scheme!r}; choose one of {', '.join(SCHEMES)}.")
    if not password or not password.isprintable():
        raise AnsibleFilterError(f"User {name!r}: the password is empty or has control characters.")
    if not allow_weak and (objection := weakness(name, password, scheme)):
        raise AnsibleFilterError(f"User {name!r}: {objection}")
    seed = hmac.digest(site_salt.encode(), f"{scheme}\0{name}\0{password}".encode(), "sha256")
    return f"{name}:{SCHEMES[scheme](seed).hash(password)}\n"


def _letters(seed: bytes, length: int) -> str:
    return "".join(CRYPT_ALPHABET[byte % 64] for byte in seed[:length])


# Each hasher with the salt made of the seed. nginx computes the first two itself and leaves the last to libcrypt.
SCHEMES: dict[str, Callable[[bytes], Any]] = {
    "ssha": lambda seed: hashers.ldap_salted_sha1.using(salt=seed[:16]),
    "apr1": lambda seed: hashers.apr_md5_crypt.using(salt=_letters(seed, 8)),
    "sha512_crypt": lambda seed: hashers.sha512_crypt.using(salt=_letters(seed, 16), rounds=5000),
}


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {"htpasswd": htpasswd}
