"""The benchmarks' own promises: a wrong answer never counts, ratios are within rounds, nothing is left running."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as program
from benchmarks import compare, environments, front, inputs, load, measure, profile, report, rpc
from benchmarks.inputs import Case, make_cases, named
from benchmarks.measure import Loaded, StackError, Turn, is_right
from benchmarks.processes import Process
from benchmarks.stacks import LIMIT_ANSWER, NUMBERS, PREDICT, STACKS
from tests import ROOT
from tools import pages


def loaded(rate: float, p99: float = 10, errors: dict[str, int] | None = None, others: float = 0.01) -> Loaded:
    return Loaded(rate, 1, p99, 100, 50, 20, others, errors or {}, "200 something else" if errors else "")


def turn(round: int, stack: str, rate: float, *, p99: float = 10, errors: dict[str, int] | None = None) -> Turn:
    return Turn(round, stack, "iris", 0.5, 80, {16: loaded(rate, p99, errors), 64: loaded(rate, p99)})


# --- What is right


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return make_cases("iris", seed=1)


def test_inputs_are_distinct_and_another_seed_gives_others(cases: list[Case]) -> None:
    rows = {(case.petal_length, case.petal_width) for case in cases}
    assert len(rows) == len(cases) == inputs.ROWS
    again = {(case.petal_length, case.petal_width) for case in make_cases("iris", seed=2)}
    assert len(again & rows) < len(rows) / 100
    assert {case.prediction for case in cases} == {0, 1, 2}


CASE = Case(4.5, 1.5, 1, (0.125, 0.625, 0.25))


@pytest.mark.parametrize(
    ("pattern", "answer"),
    [
        (PREDICT, '{"prediction":1,"prediction_proba":[0.125,0.625,0.25],"species":"versicolor"}'),
        (PREDICT, '{"prediction": 1, "prediction_proba": [0.125, 0.6250000001, 0.25]}'),
        (NUMBERS, "[[0.125,0.625,0.25]]"),
        (NUMBERS, '{"predictions": [[0.125, 0.625, 0.25]]}'),
        (STACKS["mlserver"].pattern, '{"outputs":[{"shape":[1,3],"datatype":"FP64","data":[0.125,0.625,0.25]}]}'),
    ],
)
def test_the_same_pattern_reads_answers_here_and_in_wrk(pattern: str, answer: str) -> None:
    assert is_right(pattern, answer, CASE)
    for wrong in (("0.625", "0.62501"), ("0.25", "NaN"), ("25", "25e"), ("625", "125"), ("]", "")):
        assert not is_right(pattern, answer.replace(*wrong), CASE), wrong
    if pattern == PREDICT:
        assert not is_right(pattern, answer.replace("1,", "2,", 1), CASE)


# --- wrk itself, against a server that is right or wrong on purpose

Answer = Callable[[BaseHTTPRequestHandler, Case, int], None]


def say(handler: BaseHTTPRequestHandler, case: Case, status: int = 200) -> None:
    body = json.dumps({"prediction": case.prediction, "prediction_proba": case.probabilities}).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def always_right(handler: BaseHTTPRequestHandler, case: Case, count: int) -> None:
    say(handler, case)


def sometimes_an_error(handler: BaseHTTPRequestHandler, case: Case, count: int) -> None:
    say(handler, case, 500 if count % 50 == 0 else 200)


def sometimes_another_class(handler: BaseHTTPRequestHandler, case: Case, count: int) -> None:
    other = Case(0, 0, (case.prediction + (count % 50 == 0)) % 3, case.probabilities)
    say(handler, other)


def sometimes_a_little_off(handler: BaseHTTPRequestHandler, case: Case, count: int) -> None:
    first, *others = case.probabilities
    say(handler, Case(0, 0, case.prediction, (first + 1e-5 * (count % 50 == 0), *others)))  # type: ignore[arg-type]


def sometimes_a_neighbours(handler: BaseHTTPRequestHandler, case: Case, count: int) -> None:
    say(handler, LIMIT_ANSWER if count % 50 == 0 else case)


def sometimes_silence(handler: BaseHTTPRequestHandler, case: Case, count: int) -> None:
    if count % 50:
        say(handler, case)
    else:
        handler.close_connection = True


@contextmanager
def serving(answer: Answer, cases: list[Case]) -> Iterator[str]:
    by_body = {named(case).encode(): case for case in cases}
    count = iter(range(1, 10**9))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Or each answer waits for the acknowledgement of its head.
        wbufsize = -1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Authorization"] == "Basic x"
            # A thousand answers and more in a second are enough, and leave the processor to other tests.
            time.sleep(0.002)
            answer(self, by_body[body], next(count))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/predict"
        server.shutdown()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (always_right, None),
        (sometimes_an_error, "wrong"),
        (sometimes_another_class, "wrong"),
        (sometimes_a_little_off, "wrong"),
        (sometimes_a_neighbours, "wrong"),
        (sometimes_silence, "read"),
    ],
)
def test_every_wrong_or_missing_answer_is_counted(
    tmp_path: Path, cases: list[Case], answer: Answer, error: str | None
) -> None:
    load.write_cases([(named(case), case) for case in cases], tmp_path / "cases", threads=4)
    with serving(answer, cases) as url:
        seen = load.run(load.Target(url, "Basic x", PREDICT), tmp_path / "cases", connections=4, seconds=1)
    assert seen.requests > 100
    assert seen.cpu_seconds > 0
    if error is None:
        assert seen.errors == {}
    else:
        assert set(seen.errors) == {error}
        # Each 50th; which of them still counts at either end is wrk's matter.
        assert abs(seen.errors[error] - seen.requests / 50) <= 8
    assert bool(seen.example) == (error == "wrong")


def test_a_pause_makes_the_load_steady(tmp_path: Path, cases: list[Case]) -> None:
    load.write_cases([(named(case), case) for case in cases], tmp_path / "cases", threads=4)
    with serving(always_right, cases) as url:
        seen = load.run(load.Target(url, "Basic x", PREDICT), tmp_path / "cases", connections=4, seconds=1, pause_ms=50)
    assert not seen.errors
    # Each of the four begins with one, on a busy machine a moment before wrk looks at the clock.
    assert 4 <= seen.requests <= 4 * (seen.seconds * 1000 / 50 + 1 + 5)


# --- A run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Run the program with turns made up; docs/ stays as it is."""
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{report.BEGIN}old\n{pages.END}after\n")
    monkeypatch.setattr(program, "PAGE", page)
    monkeypatch.setattr(environments, "debian", lambda: tmp_path)

    def run(*arguments: str, turns: Callable[..., Turn], missing: str = "") -> int:
        def python(name: str) -> Path:
            if name == missing:
                raise environments.UnavailableError("no wheel for this machine")
            return tmp_path

        monkeypatch.setattr(environments, "python", python)
        monkeypatch.setattr(program, "turn", turns)
        results = f"--results={tmp_path / 'results.json'}"
        monkeypatch.setattr(sys, "argv", ["benchmarks", results, "--models=iris", "--rounds=2", *arguments])
        return program.main()

    return run


def test_a_wrong_answer_makes_the_run_red_and_no_page(
    run: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def one_is_wrong(round: int, stack: object, *_: object) -> Turn:
        return turn(round, "onnx", 5000, errors={"wrong": 1} if round == 2 else None)

    assert run("--stacks=onnx", "--docs", turns=one_is_wrong) == 1
    assert "round 2, onnx, iris: {'wrong at 16': 1}: 200 something else" in capfd.readouterr().err
    assert [entry["round"] for entry in json.loads((tmp_path / "results.json").read_text())] == [1]
    assert "old" in (tmp_path / "benchmarks.md").read_text()


def test_a_stack_that_does_not_start_makes_the_run_red(run: Callable[..., int]) -> None:
    def refuse(*_: object) -> Turn:
        raise StackError("onnx did not give the right answer")

    assert run("--stacks=onnx", turns=refuse) == 1


def test_a_good_run_writes_page_and_chart_and_names_the_peer_that_is_missing(
    run: Callable[..., int], tmp_path: Path
) -> None:
    def good(round: int, stack: object, *_: object) -> Turn:
        return turn(round, getattr(stack, "name"), 5000)  # noqa: B009

    assert run("--stacks=onnx,limit,ray", "--docs", turns=good, missing="ray") == 0
    page = (tmp_path / "benchmarks.md").read_text()
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page
    assert "Ray Serve could not be installed: no wheel for this machine" in page
    assert "100 % (≥ 80 %): reached" in page
    ElementTree.parse(tmp_path / "benchmarks.svg")
    # A second run adds its rounds.
    assert run("--stacks=onnx", "--append", turns=good) == 0
    rounds = [entry["round"] for entry in json.loads((tmp_path / "results.json").read_text())]
    assert sorted(set(rounds)) == [1, 2, 3, 4]


# --- What the numbers become


def test_ratios_are_taken_within_each_round_and_then_the_median() -> None:
    """A machine that is slow for a whole round changes no ratio."""
    turns = [turn(1, "onnx", 800), turn(1, "limit", 1000)]
    turns += [turn(2, "onnx", 80), turn(2, "limit", 100)]
    turns += [turn(3, "onnx", 900), turn(3, "limit", 1000), turn(4, "onnx", 1)]
    assert report.Results(turns).ratio(report.rate, "onnx", "limit", "iris", 16) == pytest.approx(0.8)


def test_a_turn_with_errors_is_no_result() -> None:
    turns = [turn(1, "onnx", 800), turn(1, "limit", 1000), turn(2, "limit", 1000)]
    turns.append(turn(2, "onnx", 9999, errors={"wrong": 1}))
    assert report.Results(turns).ratio(report.rate, "onnx", "limit", "iris", 16) == 0.8
    assert len(report.Results(turns).loads("onnx", "iris", 16)) == 1


def test_what_others_disturbed_is_left_out_and_that_is_said() -> None:
    noisy = Turn(2, "onnx", "iris", 9, 900, {16: loaded(600), 64: loaded(1, others=0.4)})
    results = report.Results([turn(1, "onnx", 800), noisy])
    assert [entry.requests_per_second for entry in results.loads("onnx", "iris", 16)] == [800, 600]
    assert [entry.requests_per_second for entry in results.loads("onnx", "iris", 64)] == [800]
    assert (results.start_seconds("onnx"), results.pss_mb("onnx")) == (0.5, 80)
    assert "1 of 4 measurements" in report.conditions(results)
    assert report.summary([Turn(1, "onnx", "iris", 9, 900, {16: loaded(1, others=0.4)})], {}).startswith(
        "Nothing to show"
    )


def test_the_best_peer_is_the_fastest_one_measured() -> None:
    results = report.Results([turn(1, "ray", 100), turn(1, "mlserver", 900), turn(1, "naive", 5000)])
    assert results.best_peer() == "mlserver"
    assert report.Results([turn(1, "naive", 1)]).best_peer() is None


def test_each_target_says_whether_it_was_reached() -> None:
    turns = [turn(1, "naive", 500), turn(1, "limit", 10000, p99=5), turn(1, "mlserver", 1000)]
    turns += [turn(1, "sklearn", 4000, p99=15), turn(1, "onnx", 7990, p99=11)]
    rows = {row.split("|")[1].strip(): row for row in report.targets(report.Results(turns)).splitlines()}
    assert "8x (≥ 11x): **not reached**" in rows["against the naive stack"]
    assert "16x (≥ 20x): **not reached**" in rows["against the naive stack"]
    assert "4x (≥ 4x): reached" in rows["against the best peer"]
    assert "79.9 % (≥ 80 %): **not reached**" in rows["of the limit"]
    assert "3x (≤ 3x): reached" in rows["p99 against the limit's"]
    assert "2.2x (≤ 2x): **not reached**" in rows["p99 against the limit's"]
    assert "not measured (≥ 25x)" in rows["random forest against the naive stack, 64 connections"]


def test_the_page_says_what_even_the_limit_reaches() -> None:
    turns = [turn(1, "naive", 500), turn(1, "limit", 9350), turn(1, "ray", 100)]
    assert "18.7 times as fast as naive and 93.5 times as fast as Ray Serve" in report.bounds(report.Results(turns))
    assert report.bounds(report.Results([turn(1, "naive", 500)])) == ""


def test_a_sample_belongs_to_the_part_that_called_what_was_running() -> None:
    batcher = "iris_api.predict.batching:Batcher._answer_batch"
    engine = ("numpy:array", "iris_api.engines.onnx:OnnxEngine.__call__", batcher)
    rows = ("json.decoder:decode", "iris_api.predict.rows:decode")
    samples = Counter({("the event loop",): 20, engine: 50, rows: 20})
    samples["logging:info", "gunicorn.arbiter:run"] = 10
    column = profile.by_part(samples, 200)
    assert list(column.values()) == [40, 100, 40, 20]
    table = profile.table({"one": column, "another": {profile.OTHER: 7}})
    assert re.search(r"the engine's call +\| 100.0 +\| +\|", table)
    assert re.search(r"all of it +\| 200 +\| 7 +\|", table)


def test_every_peer_has_a_lock_of_its_own() -> None:
    locks = {path.stem.removeprefix("bench-") for path in (ROOT / "requirements").glob("bench-*.txt")}
    assert locks == {stack.environment for stack in STACKS.values() if stack.peer}
    assert all(environments.version(name)[0].isdigit() for name in locks)


def test_what_a_request_takes_is_a_median_of_the_rounds_for_the_server_and_the_client() -> None:
    took = {(way.name, 1): [(1e-3, 1e-4), (3e-3, 3e-4), (2e-3, 2e-4)] for way in rpc.WAYS}
    *_, last = rpc.table(took, [1])
    assert last == f"| 1 | {rpc.WAYS[-1].name} | 2,000 | 200 | 2,200 |"


# --- The gateway, and the end


def test_the_gateway_is_the_roles_own_with_nothing_left_outside_our_folder(tmp_path: Path) -> None:
    files = front._render_role(["127.0.0.1:7001"], tmp_path / "certificate.pem", tmp_path / "key.pem", {})
    front._adapt(files, tmp_path, (7443, 7080), "/v2/models/iris/infer")
    text = "\n".join(text for name, text in files.items() if not name.startswith("/etc/systemd"))
    for moved in ("/var/", "/run/", "www-data", ":443", ":80 ", ":80;", "/predict", "0.0.0.0", "/etc/ssl"):
        assert moved not in text, moved
    assert "location = /v2/models/iris/infer {" in text
    assert "server 127.0.0.1:7001 max_fails=3" in text
    # What is limited is everywhere else.
    assert "limit_req zone=predict" not in text and "limit_req zone=pages" not in text
    assert files["/etc/nginx/fortress.htpasswd"].startswith(f"{front.USER}:" + "{SSHA}")


def test_nothing_outlives_the_run(tmp_path: Path) -> None:
    """A grandchild that left its session and lost its parent is killed too, whatever ends the run."""
    script = (
        "import subprocess, time\n"
        "from benchmarks.processes import nothing_left_behind\n"
        "with nothing_left_behind():\n"
        f"    subprocess.run(['sh', '-c', 'setsid sh -c \"echo \\\\$\\\\$ > {tmp_path}/pid; exec sleep 1000\" &'])\n"
        f"    while not __import__('os').path.exists('{tmp_path}/pid'): time.sleep(0.01)\n"
        "    raise KeyboardInterrupt\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "KeyboardInterrupt" in done.stderr
    pid = (tmp_path / "pid").read_text().strip()
    assert pid and not Path(f"/proc/{pid}").exists()


def test_a_server_with_a_wrong_answer_is_never_measured(tmp_path: Path, cases: list[Case]) -> None:
    with serving(sometimes_a_neighbours, [cases[0]]) as url:
        port = int(url.split(":")[2].split("/")[0])
        dead = Process([sys.executable, "-c", ""], {}, tmp_path, tmp_path / "log")
        dead.end()
        with pytest.raises(StackError, match="did not give the right answer"):
            measure._wait_for_answer(STACKS["onnx"], dead, port, named(cases[0]), cases[0])


# --- Compared with an earlier revision


def test_a_slow_clock_is_no_loss_and_more_work_is_one() -> None:
    def at(round: int, stack: str, clock: float, work_us: float) -> Turn:
        load = Loaded(1e6 / clock / (work_us + 60), 1, 10, clock * work_us, clock * 25, clock * 35, 0.01, {}, "")
        return Turn(round, stack, "iris", 0.5, 80, {16: load})

    turns = [at(1, "limit", 1, 30), at(1, "before", 1, 60), at(1, "after", 1.2, 60), at(1, "heavier", 1.2, 75)]
    before, after, heavier = (compare.measured(turns, name, 16) for name in ("before", "after", "heavier"))
    assert after.share < 0.85 * before.share, "the clock alone takes more than a tenth of the rate"
    assert after.cost == pytest.approx(before.cost)
    assert heavier.cost == pytest.approx(before.cost + 15 / 35)
