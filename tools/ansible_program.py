"""One of Ansible's programs: the name of its module, its own, and what it is given."""

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    _, module, name, *given = sys.argv
    # As if it had been started.
    sys.argv[:] = [str(Path(sys.executable).with_name(name)), *given]
    import_module(f"ansible.cli.{module}").main(sys.argv)
