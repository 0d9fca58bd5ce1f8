"""The load of tests/faults takes no fault of its own for one of the server, and its table says what was measured."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import math
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded

from tests import earlier
from tests.faults import attack, clients, load, siege, table, traffic
from tools import pages

BODY = b'{"prediction": 2}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("faults") / "test.pem"
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return file


@asynccontextmanager
async def server(certificate: Path, protocol: str, talk: Talk) -> AsyncIterator[clients.Site]:
    """A server that talks as it is told, on a port of its own; each connection knows which one it is."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols([protocol])
    count = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            await talk(reader, writer, count)
        finally:
            writer.close()

    running = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    async with running:
        port = running.sockets[0].getsockname()[1]
        yield clients.Site("127.0.0.1", "127.0.0.1", str(certificate), "Basic x", "test", port)


async def read_request(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(2)


@pytest.fixture(autouse=True)
def one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "CONNECTIONS", {"keep-alive": 1, "http2": 1})


def test_a_connection_that_was_closed_while_idle_costs_nothing(certificate: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        writer.write(ANSWER)

    async def run() -> None:
        async with server(certificate, "http/1.1", talk) as site:
            closings = clients.Closings()
            client = clients.KeepAliveClient(site, closings)
            for _ in range(3):
                assert (await client.ask("x", b"{}")).body == BODY
                await asyncio.sleep(0.1)
            assert (closings.idle, closings.hit) == (2, 0)

    asyncio.run(run())


def test_a_closing_that_meets_a_request_is_counted_apart_and_the_request_sent_again(certificate: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        writer.write(ANSWER)
        await read_request(reader)
        if number > 1:
            writer.write(ANSWER)

    async def run() -> None:
        async with server(certificate, "http/1.1", talk) as site:
            closings = clients.Closings()
            client = clients.KeepAliveClient(site, closings)
            for _ in range(2):
                assert (await client.ask("x", b"{}")).body == BODY
            assert (closings.idle, closings.hit) == (0, 1)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("said", "reason"), [(b"", "no answer"), (ANSWER[:-3], "half an answer"), (b"HTTP/1.1 200 OK\r\n", "half")]
)
def test_no_answer_on_a_new_connection_and_half_of_one_are_failures(
    certificate: Path, said: bytes, reason: str
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        writer.write(said)

    async def run() -> None:
        for kind in (clients.FreshClient, clients.KeepAliveClient):
            async with server(certificate, "http/1.1", talk) as site:
                with pytest.raises(clients.Failed, match=reason):
                    await kind(site, clients.Closings()).ask("x", b"{}")

    asyncio.run(run())


def test_nobody_listens_is_a_failure(certificate: Path) -> None:
    async def run() -> None:
        site = clients.Site("127.0.0.1", "127.0.0.1", str(certificate), "Basic x", "test", 9)
        for kind in clients.KINDS.values():
            with pytest.raises(clients.Failed, match="no connection: ConnectionRefusedError"):
                await kind(site, clients.Closings()).ask("x", b"{}")

    asyncio.run(run())


def test_http2_ends_on_the_old_connection_what_the_server_still_answers_and_repeats_the_rest(certificate: Path) -> None:
    """As nginx does at a reload: GOAWAY while requests are on their way."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        ended: list[int] = []
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, StreamEnded):
                    ended.append(event.stream_id or 0)
            writer.write(connection.data_to_send())
            if number == 1 and len(ended) == 2:
                # Of two requests the first is answered after the GOAWAY, the second never.
                writer.write(b"\0\0\x08\x07\0\0\0\0\0" + (1).to_bytes(4, "big") + b"\0\0\0\0")
                ended = [1]
            if number > 1 or ended == [1]:
                for stream in ended:
                    connection.send_headers(stream, [(":status", "200")])
                    connection.send_data(stream, BODY, end_stream=True)
                ended = []
                writer.write(connection.data_to_send())

    async def run() -> None:
        async with server(certificate, "h2", talk) as site:
            closings = clients.Closings()
            client = clients.Http2Client(site, closings)
            await client.connection()
            client.open[0].used = True
            answers = await asyncio.gather(client.ask("x", b"{}"), client.ask("y", b"{}"))
            assert [answer.body for answer in answers] == [BODY, BODY]
            assert (closings.idle, closings.hit) == (0, 1)

    asyncio.run(run())


def test_a_right_answer_that_comes_too_late_is_a_failure_that_says_so(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "IN_TIME", 0.5)
    body = json.dumps({"prediction": 2, "model": "iris", "model_version": "1.0.0"}).encode()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if number == 2:
            await asyncio.sleep(0.6)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    async def run() -> None:
        async with server(certificate, "http/1.1", talk) as site:
            one = load.Load(site, "x", [[6.5, 0.8]], {"iris 1.0.0": [2]})
            client = clients.FreshClient(site, clients.Closings())
            now = time.monotonic()
            # In time, late by the server's doing, and late by the load's own: due is when it should have been sent.
            for due in (now, now + 0.1, now - 1):
                await one.ask(client, "new connection", "x", due)
        found = one.seen["new connection"]
        assert (found.sent, found.ok, len(found.answered)) == (3, 1, 1)
        assert [failure.reason.startswith(load.LATE) for failure in found.failures] == [True, True]
        assert found.slowest_ms > 600

    asyncio.run(run())


def test_the_longest_gap_may_be_at_the_begin_or_the_end() -> None:
    assert traffic.longest_gap([3.0, 1.0], 0.5, 4.0) == 2.0
    assert traffic.longest_gap([3.0], 0.5, 4.0) == 2.5
    assert traffic.longest_gap([], 0.5, 4.0) == 3.5


def kind(**values: float) -> traffic.Kind:
    return traffic.Kind(**{"sent": 0, "ok": 0, "gap_s": 0.1, "found_closed": 0, "hit_closed": 0, "retried": 0} | values)  # type: ignore[arg-type]


def test_the_table_is_put_between_the_markers(tmp_path: Path) -> None:
    kinds = {
        "new connection": kind(sent=10, ok=10, slowest_ms=20.4, late_ms=1),
        "keep-alive": kind(
            sent=11, ok=11, slowest_ms=30, gap_s=1.52, late_ms=1, found_closed=3, hit_closed=1, retried=2
        ),
        "http2": kind(sent=12, ok=12, slowest_ms=40, late_ms=1),
    }
    row = table.Row("a reload", kinds, dict.fromkeys(kinds, 0), 1.26, "")
    page = tmp_path / "faults.md"
    page.write_text(f"before\n{table.BEGIN}old\n{pages.END}after\n")
    for _ in range(2):
        table.write([table.Row.from_json(row.as_json())], page)
        text = page.read_text()
        assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
        assert "| a reload | 33 | 0 | 2 | 0 / 4 / 0 | 0 / 1 / 0 | 20 / 30 / 40 | 0.1 / 1.5 / 0.1 | 1.3 |\n" in text
        assert "0 of 33 failed" in text


def test_a_failure_while_an_instance_lived_is_not_left_out_of_the_sum() -> None:
    kinds = {"http2": kind(sent=10, ok=9, slowest_ms=1, late_ms=1)}
    rows = [table.Row("x", kinds, {"http2": 1}, 1.0, note) for note in ("in flight on both", *table.OUTAGES)]
    assert "1 of 10 failed" in table.summary(rows)


def attacker(site: clients.Site) -> attack.Attacker:
    """One that goes on for a second."""
    found = attack.Attacker(site.address, site.name, None, "iris", 1)
    found.ports = {443: site.port, 80: site.port}
    return found


def of_kind(how: attack.How) -> attack.Kind:
    return attack.Kind("test", how, ())


def test_a_flood_counts_every_answer_once_however_it_is_cut(certificate: Path) -> None:
    answered = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal answered
        for _ in range(3):
            for status in (b"200", b"404"):
                await reader.readuntil(b"\r\n\r\n")
                for byte in b"HTTP/1.1 %s X\r\ncontent-length: 2\r\n\r\n{}" % status:
                    writer.write(bytes([byte]))
                    await writer.drain()
                answered += 1

    async def run() -> None:
        async with server(certificate, "http/1.1", talk) as site:
            one = attacker(site)
            sent = await one.run(of_kind(lambda one: one.flood(1, 2 * one.request("GET", "/"), 2)))
        found = sent.answers["200"] + sent.answers["404"]
        # The last one may have been on its way when the time was over.
        assert answered - 2 <= found <= answered > 6, (answered, sent)
        assert sent.held == 1 < sent.connections
        assert sent.answers["closed"] >= sent.connections - 1
        assert sent.requests >= found

    asyncio.run(run())


def test_shots_wait_for_a_body_but_not_for_one_of_an_answer_to_head(certificate: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER[: -len(BODY)] if request.startswith(b"HEAD") else ANSWER)

    async def run() -> None:
        async with server(certificate, "http/1.1", talk) as site:
            one = attacker(site)
            requests = [one.request("HEAD", "/"), one.request("GET", "/")]
            sent = await one.run(of_kind(lambda one: one.shots(50, requests)))
        assert sent.answers.keys() <= {"200", "no answer until the end"}
        assert sent.answers["200"] > sent.answers["no answer until the end"]

    asyncio.run(run())


def test_half_sent_requests_are_held_and_replaced_when_they_are_closed(certificate: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await reader.readuntil(b"half")
        if number > 3:
            await reader.read()

    async def run() -> None:
        async with server(certificate, "http/1.1", talk) as site:
            one = attacker(site)
            sent = await one.run(of_kind(lambda one: one.hold(5, 100, b"half")))
        assert (sent.held, sent.connections, sent.requests) == (5, 8, 8), sent
        assert sent.answers == {"closed": 3, "held to the end": 5}

    asyncio.run(run())


def test_a_crowd_is_held_and_replaced_too() -> None:
    async def run() -> None:
        count = 0

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            count += 1
            number = count
            await reader.readuntil(b"half")
            if number <= 2:
                writer.write(ANSWER)
            elif number > 4:
                await reader.read()
            writer.close()

        running = await asyncio.start_server(talk, "127.0.0.1", 0)
        async with running:
            port = running.sockets[0].getsockname()[1]
            one = attacker(clients.Site("127.0.0.1", "127.0.0.1", "", "", "", port))
            sent = await one.run(of_kind(lambda one: one.crowd(5, 100, b"half", 80)))
        assert (sent.held, sent.connections, sent.requests, sent.bytes) == (5, 9, 9, 36), sent
        assert sent.answers == {"200": 2, "closed": 2, "held to the end": 5}

    asyncio.run(run())


def test_a_crowd_that_is_refused_says_so() -> None:
    async def run() -> None:
        one = attacker(clients.Site("127.0.0.1", "127.0.0.1", "", "", "", 9))
        sent = await one.run(of_kind(lambda one: one.crowd(5, 100, b"half", 80)))
        assert sent.connections == 0
        assert sent.answers.keys() == {"no connection: refused"}

    asyncio.run(run())


def test_the_largest_batches_are_legal() -> None:
    one = attack.Attacker("127.0.0.1", "localhost", "Basic x", "iris", 1)
    for request in (one.most_rows(), *one.largest()):
        head, _, body = request.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head.lower() and b"Authorization: Basic x" in head
        content = json.loads(body)
        values = content if isinstance(content, list) else content["inputs"][0]["data"]
        assert len(values) == attack.ROWS * (1 if isinstance(content, list) else len(attack.FEATURES))
    assert {len(request.partition(b"\r\n\r\n")[2]) for request in one.largest()} == {attack.BODY}


def test_statuses_of_http2_are_read_as_nginx_writes_them() -> None:
    frames = [
        attack.frame(attack.SETTINGS, 0, 0, b"123456"),
        attack.frame(attack.HEADERS, attack.END_HEADERS, 1, b"\x88\x76"),
        attack.frame(attack.HEADERS, attack.END_HEADERS, 3, b"\x20\x48\x03503\x76"),
        attack.frame(attack.RST_STREAM, 0, 3, attack.CANCEL),
        attack.frame(attack.GOAWAY, 0, 0, bytes(8)),
    ]
    data = b"".join(frames)
    assert attack.statuses(data[:-1]) == (["200", "503", "stream reset"], frames[-1][:-1])
    assert attack.statuses(data) == (["200", "503", "stream reset", "GOAWAY"], b"")


def test_every_attack_says_what_must_come_back() -> None:
    assert all(kind.expected for kind in attack.KINDS.values())
    assert 2 <= sum(kind.short for kind in attack.KINDS.values()) <= 4


def seen(answered: list[tuple[float, float]], failures: list[float] = [], late_ms: float = 1) -> dict[str, object]:  # noqa: B006
    return {
        "sent": len(answered) + len(failures),
        "ok": len(answered),
        "late_ms": late_ms,
        "answered": [[began, ended, "iris-api@1"] for began, ended in answered],
        "failures": [{"began": began, "reason": "no answer"} for began in failures],
    }


def test_what_the_polite_client_felt() -> None:
    fresh = seen([(10.0, 10.1), (13.0, 13.05)], [11.0], late_ms=7)
    kept = seen([(10.5, 10.52)])
    polite = siege.Polite.of({"fresh": fresh, "kept": kept}, 10.0, 14.0)
    assert (polite.sent, polite.ok, polite.failed, polite.late_ms) == (4, 3, 1, 7)
    assert polite.p99_ms == polite.slowest_ms == pytest.approx(100)
    assert polite.gap_s == pytest.approx(13.05 - 10.52)
    assert polite.failures == ["+1.00 s: no answer"]


def test_a_polite_client_that_got_nothing_waited_all_the_time() -> None:
    polite = siege.Polite.of({"fresh": seen([], [10.5])}, 10.0, 14.0)
    assert (polite.gap_s, polite.p99_ms) == (4.0, math.inf)


def test_percentile_is_a_value_that_was_measured() -> None:
    hundred = [float(number) for number in range(100, 0, -1)]
    assert siege.percentile(hundred, 99) == 99
    assert siege.percentile(hundred[:50], 99) == 100


@pytest.mark.parametrize(
    ("seen_ms", "failed", "run"),
    [
        ([20], [], 1),
        ([900, 20], [], 2),
        ([900, 900, 900, 20], [], 3),
        ([900, 20], [10.5], 1),
    ],
)
def test_an_attack_is_measured_again_where_only_times_were_wrong(
    seen_ms: list[int], failed: list[float], run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = siege.Attack(0, 0, 0, 0, {})
    answers = [siege.Polite.of({"fresh": seen([(10.0, 10.0 + each / 1000)], failed)}, 10.0, 14.0) for each in seen_ms]
    following = iter(answers)
    monkeypatch.setattr(siege, "besiege", lambda *asked: (attack, next(following)))
    assert siege.repeat("HEAD", "iris", Path("cases"), 4, 250, 200) == (attack, answers[run - 1], run)


def test_a_polite_client_that_was_late_measured_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    polite = siege.Polite.of({"fresh": seen([(10.0, 10.02)], [])}, 10.0, 14.0)
    monkeypatch.setattr(siege, "besiege", lambda *asked: (siege.Attack(0, 0, 0, 0, {}), polite))
    assert siege.repeat("HEAD", "iris", Path("cases"), 4, 250, polite.late_ms)[2] == 1
    assert siege.repeat("HEAD", "iris", Path("cases"), 4, 250, polite.late_ms - 0.5)[2] == siege.RUNS


def test_the_attacks_have_tables_of_their_own(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    page.write_text(f"{table.BEGIN}kept\n{pages.END}between\n{table.ATTACKS_BEGIN}old\n{pages.END}after\n")
    answers = {"503": 10, "200": 7, "a": 1, "b": 1, "c": 1, "d": 1}
    sent = siege.Attack(requests=21, connections=3, held=2, bytes=1_230_000, answers=answers)
    polite = siege.Polite.of({"fresh": seen([(10.0, 10.1)], [11.0])}, 10.0, 12.0)
    rows = [table.AttackRow("HEAD", model, sent, polite) for model in ("iris", "slow")]
    table.write_attacks([table.AttackRow.from_json(json.loads(json.dumps(row.as_json()))) for row in rows], page)
    text = page.read_text()
    assert text.startswith(f"{table.BEGIN}kept\n{pages.END}between\n") and text.endswith("after\n")
    assert "old" not in text and "2 of 4 polite requests failed" in text
    assert (
        text.count("| HEAD | 21 | 3 (2) | 1.2 | 503: 10, 200: 7, a: 1, b: 1, others: 2 | 2 | 1 | 100 | 1.9 | 1 | 1 |")
        == 2
    )


def test_a_shallow_clone_has_no_earlier_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upgrade is not skipped there: it fails, and says what to type."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.setattr(earlier, "ROOT", tmp_path)
    with pytest.raises(earlier.Failed, match=r"no commit a678789, release 1\.0\.0: `git fetch --unshallow` brings it"):
        earlier.Release("1.0.0").prepare()
    assert not (tmp_path / ".cache").exists()
