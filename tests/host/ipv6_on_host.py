"""Runs on the host: opens connections by IPv6 from another network namespace, prints how many each of two networks got.

Nothing accepts them: the kernel completes them for a socket that listens, and so they are open.
"""

import json
import socket
import subprocess

PORT = 443
FIRST, SECOND = ["fd00:f0:0:1::2", "fd00:f0:0:1::3"], ["fd00:f0:0:2::2"]
CONNECT = """
import json, socket, sys, time
kept, began = [], time.monotonic()
for number in range(int(sys.argv[2])):
    # Slower than the rate allows.
    time.sleep(max(0.0, began + number / 90 - time.monotonic()))
    source = sys.argv[3:][number % len(sys.argv[3:])]
    try:
        kept.append(socket.create_connection((sys.argv[1], 443), timeout=3, source_address=(source, 0)))
    except ConnectionRefusedError:
        pass
print(len(kept), flush=True)
sys.stdin.read()
"""


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def connect(count, *sources):
    command = ["ip", "netns", "exec", "v6", "python3", "-c", CONNECT, "fd00:f0:0:1::1", str(count), *sources]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def main():
    ip("netns", "add", "v6")
    try:
        ip("link", "add", "v6test", "type", "veth", "peer", "name", "eth0", "netns", "v6")
        ip("link", "set", "v6test", "up")
        ip("-netns", "v6", "link", "set", "eth0", "up")
        for device, inside, last in (("v6test", [], "1"), ("eth0", ["-netns", "v6"], None)):
            for address in [f"fd00:f0:0:{net}::{last}" for net in (1, 2)] if last else FIRST + SECOND:
                ip(*inside, "address", "add", f"{address}/64", "dev", device, "nodad")
        with socket.create_server(("::", PORT), family=socket.AF_INET6, backlog=4096):
            first, opened = connect(600, *FIRST)
            second, others = connect(20, *SECOND)
            print(json.dumps({"first network": opened, "second network": others}))
            first.communicate()
            second.communicate()
    finally:
        ip("netns", "delete", "v6")


main()
