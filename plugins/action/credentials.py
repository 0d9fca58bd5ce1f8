"""Take a step of the module `credentials` on the control node, where Ansible Vault's password is known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

STEPS = ("create", "rotate", "set_expiry", "retire", "expire")


def _load(name: str) -> ModuleType:
    # Outside of a collection a plugin can't import a module by its name.
    path = Path(__file__).parents[1] / "modules" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"fortress_module_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


store = _load("credentials")


class LoadersVault:
    """Ansible Vault with the passwords that Ansible was started with."""

    def __init__(self, loader: Any) -> None:
        self._vault = loader._vault

    def encrypt(self, text: str) -> str:
        """Return a text as a file holds it that Vault has encrypted."""
        self._assert_password()
        try:
            return str(self._vault.encrypt(text).decode())
        except AnsibleError as error:
            raise store.CredentialError(f"Ansible Vault can't encrypt: {error}") from error

    def decrypt(self, text: str) -> str:
        """Return what such a text was made of."""
        self._assert_password()
        try:
            return str(self._vault.decrypt(text.encode()).decode())
        except AnsibleError:
            raise store.CredentialError("none of the given passwords of Vault decrypts it.") from None

    def _assert_password(self) -> None:
        if not self._vault.secrets:
            raise store.CredentialError(
                "give its password, for example by `export ANSIBLE_VAULT_PASSWORD_FILE=~/.fortress-vault`, and run the "
                "same again."
            )


class ActionModule(ActionBase):
    """What Ansible runs instead of the module."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read the arguments, take the step."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, wanted = self.validate_argument_spec(
            argument_spec={
                "folder": {"type": "path", "required": True},
                "step": {"type": "str", "required": True, "choices": list(STEPS)},
                "users": {"type": "list", "elements": "str", "required": True},
                "user": {"type": "str", "default": ""},
                "given": {"type": "list", "elements": "str", "default": []},
                "given_previous": {"type": "list", "elements": "str", "default": []},
                "given_grafana": {"type": "bool", "default": False},
                "days": {"type": "int", "default": 7},
                "replace": {"type": "bool", "default": False},
            }
        )
        folder = store.Store(Path(wanted["folder"]), self._task.check_mode, LoadersVault(self._loader))
        try:
            with folder.locked():
                notes = self._take(folder, wanted)
                folder.encrypt()
        except store.CredentialError as error:
            raise AnsibleActionFail(str(error)) from error
        except OSError as error:
            raise AnsibleActionFail(
                f"{error.filename}: {error.strerror}. The secrets folder must belong to the user who runs Ansible."
            ) from error
        return result | {"changed": bool(folder.changed), "changed_paths": folder.changed, "notes": notes}

    @staticmethod
    def _take(folder: Any, wanted: dict[str, Any]) -> list[str]:
        credentials = store.Credentials(folder, wanted["users"], wanted["given"], wanted["given_previous"])
        match wanted["step"]:
            case "create":
                notes = credentials.create(wanted["given_grafana"], wanted["replace"])
            case "rotate":
                notes = credentials.rotate(wanted["user"])
            case "set_expiry":
                notes = credentials.set_expiry(wanted["days"])
            case "retire":
                notes = credentials.retire(wanted["user"])
            case _:
                notes = credentials.expire()
        return list(notes)
