"""Read the credentials of a site from its secrets folder. Reading never creates one: the module `credentials` does."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: credentials
short_description: Read the credentials of a site from its secrets folder
description:
  - Whatever is missing there is an error that names the remedy, or a random value that nobody keeps.
options:
  _terms:
    description:
      - Which of them, V(passwords) and V(previous_passwords) (of those that still work) as dictionaries by user,
        V(htpasswd_salt), V(grafana_password) or V(grafana_secret_key).
      - V(site) is what a host is to remember, C(id), C(generation) and C(change); V(site_changes) are the marks of all
        changes; V(is_fresh) says whether no step was ever taken in the folder.
      - V(lost) lists the files that the site had and that are missing.
    type: list
    elements: str
    required: true
  folder:
    description: The secrets folder of the inventory.
    type: path
    required: true
  users:
    description: Whose passwords.
    type: list
    elements: str
    default: []
  given_grafana:
    description: Whether the password of Grafana's administrator is given, so that V(lost) does not expect it.
    type: bool
    default: false
  given_certificate:
    description: Whether the certificate is given, so that V(lost) does not expect a CA.
    type: bool
    default: false
  missing:
    description:
      - What to do about a credential that was not created yet.
      - V(random) is for check mode and for checks before the first change, where a value is needed that is as good as
        the one that will be created.
    type: str
    choices: [error, random]
    default: error
author: Fortress
"""

EXAMPLES = r"""
salt: "{{ lookup('credentials', 'htpasswd_salt', folder=fortress_secrets_dir) }}"
"""

RETURN = r"""
_list:
  description: What was asked for.
  type: list
  elements: raw
"""


def _load(name: str) -> ModuleType:
    # What the files hold, and when a password expires, is written once; but outside of a collection a plugin can't
    # import a module by its name.
    path = Path(__file__).parents[1] / "action" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"fortress_action_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


action = _load("credentials")
store = action.store


class LookupModule(LookupBase):
    """What Ansible loads."""

    def run(self, terms: list[str], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """Return one value for each term."""
        self.set_options(var_options=variables, direct=kwargs)
        try:
            return [self._read(str(term)) for term in terms]
        except store.CredentialError as error:
            raise AnsibleLookupError(str(error)) from error

    def _read(self, what: str) -> Any:
        users = [str(user) for user in self.get_option("users")]
        folder = store.Store(Path(self.get_option("folder")), vault=action.LoadersVault(self._loader))
        credentials = store.Credentials(folder, users)
        match what:
            case "site":
                return store.Site.read(folder).record()
            case "site_changes":
                return store.Site.read(folder).marks
            case "is_fresh":
                return not folder.has(store.SITE) and not folder.has(store.HTPASSWD_SALT)
            case "lost":
                ca = [] if self.get_option("given_certificate") else [store.CA_CERTIFICATE]
                return credentials.lost(credentials.needed(self.get_option("given_grafana")) + ca)
            case "passwords":
                return {
                    user: self._present(
                        credentials.password(user), f"password was made yet for {user}", f"users/{user}"
                    )
                    for user in users
                }
            case "previous_passwords":
                kept = {user: credentials.previous(user) for user in users}
                return {
                    user: previous.password
                    for user, previous in kept.items()
                    if previous is not None and previous.works(credentials.now)
                }
            case "htpasswd_salt":
                name = store.HTPASSWD_SALT
            case "grafana_password":
                name = store.GRAFANA_PASSWORD
            case "grafana_secret_key":
                name = store.GRAFANA_SECRET_KEY
            case _:
                raise AnsibleLookupError(f"credentials: there are no {what!r} in a secrets folder.")
        return self._present(credentials.store.read(name), f"{what} was made yet", name)

    def _present(self, value: str | None, what: str, name: str) -> str:
        if value is not None:
            return value
        if self.get_option("missing") == "random":
            return str(store.random_credential())
        folder = Path(self.get_option("folder"))
        raise AnsibleLookupError(f"No {what} in {folder / Path(name).parent}. Run `make converge` first.")
