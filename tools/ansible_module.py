"""What Ansible would pipe into a Python of a host, from a file."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # It takes arguments for commands of its own.
    exec(Path(sys.argv.pop()).read_bytes(), {"__name__": "__main__"})
