"""Runs on the host: does something to instances of the API and measures until they serve again.

Takes one argument, JSON: `do`, a shell command in which {master1} and {worker1} stand for the processes of iris-api@1;
`gone`, those processes that must have been replaced; `instances`, those that must be ready; `within`, seconds.
Prints the seconds that each instance took, or null.
"""

import http.client
import json
import subprocess
import sys
import time


def output(*command):
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout.strip()


def processes():
    found = {}
    for instance in (1, 2, 3):
        master = output("systemctl", "show", "--property=MainPID", "--value", f"iris-api@{instance}")
        found[f"master{instance}"] = master
        found[f"worker{instance}"] = (output("pgrep", "--parent", master).split() or ["0"])[0]
    return found


def birth(pid):
    """When a process began; None where there is none, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def ready(instance):
    connection = http.client.HTTPConnection("127.0.0.1", 8000 + instance, timeout=0.5)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        return answer.status == 200 and json.load(answer)["instance"] == f"iris-api@{instance}"
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main():
    wanted = json.loads(sys.argv[1])
    before = processes()
    born = {before[name]: birth(before[name]) for name in wanted["gone"]}
    took = dict.fromkeys(map(str, wanted["instances"]))
    started = time.monotonic()
    subprocess.run(wanted["do"].format(**before), shell=True, check=True)
    while None in took.values() and time.monotonic() - started < wanted["within"]:
        time.sleep(0.05)
        if any(birth(pid) == since for pid, since in born.items()):
            continue
        for instance in took:
            if took[instance] is None and ready(int(instance)):
                took[instance] = time.monotonic() - started
    print(json.dumps({"took": took, "before": before, "after": processes()}))


main()
