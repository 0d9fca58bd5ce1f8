"""One of Ansible's programs: the name of its module, and what it is started as."""

import sys
from importlib import import_module

if __name__ == "__main__":
    import_module(f"ansible.cli.{sys.argv[1]}").main(sys.argv[2:])
