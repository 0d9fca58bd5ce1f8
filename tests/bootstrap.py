"""What execnet has each Python do that it starts: see `workers`."""

import sys

if __name__ == "__main__":
    exec(eval(sys.stdin.readline()))
