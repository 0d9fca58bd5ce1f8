"""Runs on a gateway: its own configuration of nginx, on other ports and in front of instances that fail on demand.

Each cause of the truth table (nginx' fortress.d/upstreams.conf) is brought about once. Prints JSON: for each cause what
the client got, which instances were asked and saw the request, and which of them nginx then left out. The copy of the
configuration differs from the one that serves in its ports and log files, in timeouts of 1 s, and in `max_fails=1
fail_timeout=60s`: a single failure that counts is seen in the requests that follow.

    python3 stub_site.py [folder of nginx.conf]
"""

import contextlib
import json
import pathlib
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

HTTP, HTTPS, STUBS = 18080, 18443, (18001, 18002, 18003)
TIMEOUT = 1.0
BODY = b'{"petal_length": 6.5, "petal_width": 0.8}'
LOGIN = b"Authorization: Basic c3R1YjpzdHVi\r\n"
RESET = struct.pack("ii", 1, 0)


def answer(stub, connection, status, body, *headers, head_only=False):
    """Send an answer as an instance does; of one to HEAD the head alone."""
    length, served_by = f"Content-Length: {len(body)}", f"X-Served-By: {stub.port}"
    lines = (f"HTTP/1.1 {status}", "Content-Type: application/json", length, served_by, *headers)
    connection.sendall("\r\n".join((*lines, "", "")).encode() + (b"" if head_only else body))


def error(status, code, *headers):
    """Return the behaviour of an instance that answers with an error of its own."""

    def behave(stub, connection, request):
        body = json.dumps({"error": "No.", "code": code, "request_id": "cause"}).encode()
        answer(stub, connection, status, body, *headers)

    return behave


def serve(stub, connection, request):
    """Answer."""
    answer(stub, connection, "200 OK", b'{"prediction": 2}', head_only=request[:5] == b"HEAD ")


def freeze(stub, connection, request):
    """Answer nothing until nginx closes the connection."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    stub.hung_up.set()
    raise ConnectionError


def slowly(stub, connection, request):
    """Answer, but only after 0.6 s."""
    if not stub.stopped.wait(0.6):
        serve(stub, connection, request)


def die(stub, connection, request):
    """Close all connections at once, as a process that is killed."""
    stub.stop()
    raise ConnectionError


def reset(stub, connection, request):
    """End the connection, but go on: a process that a master replaces at once."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    raise ConnectionError


def die_of_poison(stub, connection, request):
    """Die of a request that is marked, answer every other."""
    (die if b"poison" in request else serve)(stub, connection, request)


def die_while_answering(stub, connection, request):
    """Send the half of an answer."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    time.sleep(0.1)
    die(stub, connection, request)


def babble(stub, connection, request):
    """Send the head of an answer that can't be read."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-\0Length: 2\r\n\r\n{}")
    raise ConnectionError


class Stub:
    """An instance: a port, what it does with a request, and what it has seen."""

    def __init__(self, port, behave=serve, *, listen=True, starts_after=0.0, backlog=64):
        self.port, self.behave, self.starts_after = port, behave, starts_after
        self.seen, self.connections, self.fillers = [], [], []
        self.stopped, self.hung_up = threading.Event(), threading.Event()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", port))
        if listen:
            self.socket.listen(backlog)
        if backlog == 0:
            self.fill()
        elif listen:
            threading.Thread(target=self.accept, daemon=True).start()

    def fill(self):
        """Fill the queue of connections, so that the kernel drops what else comes: a host that does not answer."""
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))
            self.fillers.append(filler)
        time.sleep(0.1)

    def accept(self):
        """Take connections once it has started."""
        self.stopped.wait(self.starts_after)
        with contextlib.suppress(OSError):
            while True:
                connection = self.socket.accept()[0]
                self.connections.append(connection)
                threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        """Serve the requests of one connection."""
        with contextlib.suppress(OSError):
            data = b""
            while piece := connection.recv(65536):
                data += piece
                head, end, body = data.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                if not end or (length and len(body) < int(length[1])):
                    continue
                data = b""
                self.seen.append(head)
                self.behave(self, connection, head)
        with contextlib.suppress(OSError):
            connection.close()

    def stop(self):
        """End at once: connections are reset and new ones are refused."""
        self.stopped.set()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                connection.shutdown(socket.SHUT_RD)
            connection.close()
        for filler in self.fillers:
            filler.close()


class Site:
    """Nginx in front of three stubs; the first one that a request is sent to is stubs[0]."""

    def __init__(self, tree, *stubs):
        self.stubs = stubs
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="fortress-stub-site-"))
        self.folder.chmod(0o755)
        self.log = self.folder / "access.log"
        copy_tree(pathlib.Path(tree), self.folder, [stub.port for stub in stubs])
        self.name = re.search(r"server_name (\S+?)[ ;]", (self.folder / "fortress.d/server-https.conf").read_text())[1]
        self.nginx = subprocess.Popen(
            ["nginx", "-c", self.folder / "nginx.conf", "-g", "daemon off;"], stderr=subprocess.PIPE
        )
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", HTTPS)):
                return
            time.sleep(0.02)
        self.nginx.kill()
        raise SystemExit(f"nginx does not start: {self.nginx.stderr.read().decode()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.nginx.terminate()
        self.nginx.wait()
        for stub in self.stubs:
            stub.stop()
        shutil.rmtree(self.folder)

    def connect(self):
        """Open a TLS connection."""
        context = ssl._create_unverified_context()
        return context.wrap_socket(socket.create_connection(("127.0.0.1", HTTPS), timeout=20))

    def entries(self):
        """Return the access log; connections that the test opens only to look don't stand in it."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def last(self, name):
        """Wait for the line of a request."""
        for _ in range(250):
            found = [entry for entry in self.entries() if name in (entry["request_id"], entry["path"])]
            if found:
                return found[-1]
            time.sleep(0.02)
        return None

    def ask(self, method="POST", path="/predict", name="cause", body=BODY, headers=LOGIN):
        """Send a request; return status, headers and body of the answer, status 0 if none comes."""
        if method in ("GET", "HEAD"):
            body = b""
        length = f"Content-Length: {len(body)}\r\n".encode() if body else b""
        return self.send(self.head(method, path, name) + headers + length + b"\r\n" + body)

    def head(self, method="POST", path="/predict", name="cause"):
        """Return the beginning of a request."""
        lines = f"{method} {path} HTTP/1.1", f"Host: {self.name}", "Connection: close", f"X-Request-ID: {name}", ""
        return "\r\n".join(lines).encode()

    def send(self, data, pause=0.0):
        """Send bytes, in two halves if there is a pause; return what comes until nginx hangs up."""
        with self.connect() as connection:
            connection.sendall(data[:-1] if pause else data)
            if pause:
                time.sleep(pause)
                with contextlib.suppress(OSError):
                    connection.sendall(data[-1:])
            return read_answer(connection)


def read_answer(connection):
    """Read what comes; a head without all of its body is an answer that was cut."""
    data = b""
    with contextlib.suppress(OSError):
        while piece := connection.recv(65536):
            data += piece
            length = re.search(rb"(?i)content-length: (\d+)", data)
            if length and len(data.partition(b"\r\n\r\n")[2]) >= int(length[1]):
                break
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split()[1]) if len(lines[0].split()) > 1 else 0
    headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines[1:])}
    return {"status": status, "headers": headers, "body": body.decode("utf-8", "replace")}


def copy_tree(source, target, ports):
    """Copy nginx' configuration, and put this program's ports, files and times in the place of the site's."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    for htpasswd in target.glob("fortress*.htpasswd"):
        htpasswd.write_text("stub:{PLAIN}stub\n" if htpasswd.name == "fortress.htpasswd" else "")
        htpasswd.chmod(0o644)
    servers = "".join(f"    server 127.0.0.1:{port} max_fails=1 fail_timeout=60s;\n" for port in ports)
    for file in target.rglob("*.conf"):
        text = file.read_text()
        text = re.sub(r"error_log [^;]+;", f"error_log {target}/error.log warn;", text)
        text = text.replace("/var/log/nginx", str(target)).replace("/run/nginx.pid", f"{target}/nginx.pid")
        text = re.sub(r"((read|send|connect|header|body)_timeout) [^;]+;", rf"\1 {TIMEOUT:.0f}s;", text)
        text = re.sub(r"(upstream iris_api \{.*?)( +server [^;]+;\n)+", rf"\1{servers}", text, count=1, flags=re.S)
        lines, listening = [], set()
        for line in text.splitlines():
            if line.strip() == "server {":
                listening = set()
            line = re.sub(r"listen \S+:80\b", f"listen 127.0.0.1:{HTTP}", line)
            line = re.sub(r"listen \S+:443\b", f"listen 127.0.0.1:{HTTPS}", line)
            if " listen " in line and line in listening:
                continue
            listening.add(line)
            lines.append(line)
        file.write_text("\n".join(lines) + "\n")


def observe(site, name="cause", got=None):
    """Return what a request came to, and which instances nginx leaves out of the six requests that follow it.

    It never leaves out the only one.
    """
    entry = site.last(name)
    seen = [stub.port for stub in site.stubs for head in stub.seen if b"X-Request-ID: " + name.encode() in head]
    for number in range(6) if len(site.stubs) > 1 else ():
        site.ask("GET", "/health", f"after-{number}")
        site.last(f"after-{number}")
    later = " ".join(entry["upstream_addr"] for entry in site.entries() if entry["request_id"].startswith("after-"))
    return {
        **(got or {"status": 0, "headers": {}, "body": ""}),
        "log": entry,
        "asked": re.findall(r"127.0.0.1:(\d+)", entry["upstream_addr"]) if entry else [],
        "seen": seen,
        "left_out": [stub.port for stub in site.stubs if str(stub.port) not in later] if later else [],
    }


def ask(**options):
    """Return a cause that is one request."""
    return lambda site: observe(site, options.get("name", "cause"), site.ask(**options))


def over_kept_connections(site):
    """Send a request once nginx holds open connections to every instance, of which many end at the same moment."""
    threads = [threading.Thread(target=site.ask, args=("GET", "/health", f"warm-{number}")) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return observe(site, "poison", site.ask(name="poison"))


def client_gone(site):
    """Send a request and hang up while the instance works."""
    with site.connect() as connection:
        connection.sendall(site.head() + LOGIN + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        time.sleep(0.3)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return observe(site)


def client_gone_http2(site):
    """Do the same over HTTP/2."""
    subprocess.run(
        ["curl", "--silent", "--insecure", "--http2", "--max-time", "0.3", "--user", "stub:stub", "--header",
         "X-Request-ID: cause", "--data-binary", BODY, "--resolve", f"{site.name}:{HTTPS}:127.0.0.1",
         f"https://{site.name}:{HTTPS}/predict"], check=False
    )  # fmt: skip
    return observe(site)


def upload_cut(site):
    """Hang up in the middle of the body."""
    with site.connect() as connection:
        connection.sendall(site.head() + LOGIN + b"Content-Length: 100\r\n\r\n" + BODY)
        time.sleep(0.2)
    return observe(site)


def upload(data, pause=0.0):
    """Return a cause that is one upload."""
    return lambda site: observe(site, got=site.send(site.head() + LOGIN + data, pause))


def limited(site):
    """Send requests over 20 connections that are open already, so at the same moment; some of it is over the limit."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(site.connect()) for _ in range(20)]
        for number, connection in enumerate(connections):
            head = site.head(name=f"flood-{number}") + LOGIN + b"Content-Length: %d\r\n\r\n" % len(BODY)
            connection.sendall(head + BODY)
        answers = {f"flood-{number}": read_answer(connection) for number, connection in enumerate(connections)}
    refused = [name for name, got in answers.items() if got["status"] != 200]
    return observe(site, refused[-1], answers[refused[-1]])


BUSY = error("503 Service Unavailable", "overloaded", "Retry-After: 1")
LATE = error("503 Service Unavailable", "deadline_exceeded")
UNREADY = error("503 Service Unavailable", "not_ready")
REFUSING = error("422 Unprocessable Entity", "no_answer")
FAILING = error("500 Internal Server Error", "internal_error")
DEAD = {"listen": False}
# Each cause: what the first, second and third instance do, and what the client does. What comes after a comma is a
# variant of a row of the table.
CAUSES = {
    "none": ({}, {}, {}, ask()),
    "dead": (DEAD, {}, {}, ask()),
    "two dead": (DEAD, DEAD, {}, ask()),
    "all dead": (DEAD, DEAD, DEAD, ask()),
    "host gone": ({"backlog": 0}, {}, {}, ask()),
    "frozen": ({"behave": freeze}, {}, {}, ask()),
    "two frozen": ({"behave": freeze}, {"behave": freeze}, {}, ask()),
    "starting": ({"starts_after": 0.5}, {}, {}, ask()),
    "killed in flight": ({"behave": die}, {}, {}, ask()),
    "killed while answering": ({"behave": die_while_answering}, {}, {}, ask()),
    "broken head": ({"behave": babble}, {}, {}, ask()),
    "poison": (*[{"behave": die_of_poison}] * 3, ask(name="poison")),
    "poison, over kept connections": (*[{"behave": die_of_poison}] * 3, over_kept_connections),
    "the only instance is frozen": ({"behave": freeze}, ask()),
    "the only instance is killed, each time": ({"behave": reset}, ask()),
    "overloaded": ({"behave": BUSY}, {}, {}, ask()),
    "deadline passed": ({"behave": LATE}, {}, {}, ask()),
    "not ready": ({"behave": UNREADY}, {}, {}, ask(method="GET", path="/v2/health/ready")),
    "model refuses": ({"behave": REFUSING}, {}, {}, ask()),
    "error inside": ({"behave": FAILING}, {}, {}, ask()),
    "HEAD": ({}, {}, {}, ask(method="HEAD", path="/health")),
    "client gone": ({"behave": slowly}, {}, {}, client_gone),
    "client gone, over HTTP/2": ({"behave": slowly}, {}, {}, client_gone_http2),
    "upload cut": ({}, {}, {}, upload_cut),
    "upload stalls": ({}, {}, {}, upload(b"Content-Length: 100\r\n\r\n" + BODY, TIMEOUT + 1.5)),
    "upload malformed": ({}, {}, {}, upload(b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n")),
    "upload too large": ({}, {}, {}, upload(b"Content-Length: 100000000\r\n\r\n")),
    "over the limit": ({}, {}, {}, limited),
}


def main():
    tree = sys.argv[1] if len(sys.argv) > 1 else "/etc/nginx"
    causes = sys.argv[2:] or CAUSES
    observed = {}
    for cause in causes:
        *stubs, happen = CAUSES[cause]
        with Site(tree, *(Stub(port, **options) for port, options in zip(STUBS, stubs, strict=False))) as site:
            started = time.monotonic()
            observed[cause] = happen(site)
            observed[cause]["seconds"] = time.monotonic() - started
    print(json.dumps(observed))


main()
