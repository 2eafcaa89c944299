"""The OpenAI-compatible engine against a real server, transformers' own, behind a proxy that spoils answers."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import ThreadingHTTPServer

import pytest

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.records import read_questions
from medvlt_lib.data.closed import closed_options
from medvlt_lib.data.hub import _client
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import shipped
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.chat_client import ChatClient
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.openai_engine import OpenAIEngine
from tests.pipeline.conftest import answered_here_and_served, medvlt, settings
from tests.serving import QuietHandler

MODEL = str(shipped("base"))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """transformers' server on the larger tiny model."""
    port, log = free_port(), open(tmp_path_factory.mktemp("server") / "log", "w+")  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.pipeline.serve_tiny", str(port), MODEL], stdout=log, stderr=log
    )
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                assert process.poll() is None, log.seek(0) or log.read()[-2000:]
                time.sleep(0.25)
        yield port
    finally:
        process.kill()
        process.wait()
        log.close()


class Proxy(QuietHandler):
    """Passes requests on, unless the script says otherwise: a status, "stall", "drop", or a function of the request and
    answer. `charged` holds the tokens of every answer that the server made, `known` the answers by their requests: a
    test whose client is impatient asks before, so that it does not depend on how busy the machine is."""

    server_port, script, seen, charged, known = 0, [], [], [], {}
    over = threading.Event()  # the test has ended

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Proxy.seen.append(json.loads(body))
        step = Proxy.script.pop(0) if Proxy.script else None
        if step == "drop":
            self.connection.close()
            return
        if step == "stall":
            Proxy.over.wait(60)
            return
        status, answer = step if isinstance(step, int) else 200, b'{"error": {"message": "spoiled"}}'
        if status == 200:
            request = json.loads(body)
            if callable(step):
                request = step(request, None) or request
            onward = urllib.request.Request(
                f"http://127.0.0.1:{Proxy.server_port}{self.path}",
                json.dumps(request).encode(),
                {"Content-Type": "application/json"},
            )
            if onward.data not in Proxy.known:
                Proxy.known[onward.data] = urllib.request.urlopen(onward, timeout=120).read()
            answer = Proxy.known[onward.data]
            Proxy.charged.append(json.loads(answer)["usage"]["total_tokens"])
            if callable(step):
                parsed = json.loads(answer)
                step(request, parsed)
                answer = json.dumps(parsed).encode()
        with contextlib.suppress(OSError):  # the client gave up
            self.answer(status, answer)


@pytest.fixture
def engine(server, tmp_path):
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    Proxy.server_port, Proxy.script, Proxy.seen, Proxy.charged = server, [], [], []
    Proxy.over.clear()

    def make(concurrency=1, cache="cache", **kwargs):
        url = f"http://127.0.0.1:{proxy.server_port}/v1"
        client = ChatClient(url, MODEL, tmp_path / cache, **{"retries": 3, "timeout": 120, **kwargs})
        return OpenAIEngine(client, concurrency)

    yield make
    Proxy.over.set()
    proxy.shutdown()


def test_text_and_image_questions_in_order_with_thinking_put_back(engine):
    questions = make_questions("curb65,nodule_count", "validation", 6)
    done = list(engine(concurrency=3).generate(prompts_of(questions), Sampling(2, 0.0, 96)))
    assert [(c.question_id, c.sample) for c in done] == [(q.id, k) for q in questions for k in range(2)]
    verdicts = [grade(c.text, q) for c, q in zip(done, (q for q in questions for _ in range(2)), strict=True)]
    assert sum(v.well_formed for v in verdicts) >= 10 and any(
        v.reward for v in verdicts
    )  # this server alone would give 0 on every row
    assert all(c.tokens > 5 for c in done) and {c.finish_reason for c in done} == {"stop"}


def test_a_server_that_ignores_n_is_asked_again_with_other_seeds(engine):
    [question] = make_questions("curb65", "validation", 1)
    done = list(engine().generate(prompts_of([question]), Sampling(4, 1.0, 64)))
    assert [c.sample for c in done] == [0, 1, 2, 3]
    assert [r["n"] for r in Proxy.seen] == [4, 3, 2, 1]
    assert len({r["seed"] for r in Proxy.seen}) == 4


def test_what_was_answered_is_not_asked_again(engine):
    prompts = prompts_of(make_questions("curb65,nodule_count", "validation", 4))
    first = list(engine().generate(prompts, Sampling(1, 1.0, 64)))
    asked = len(Proxy.seen)
    assert list(engine().generate(prompts, Sampling(1, 1.0, 64))) == first and len(Proxy.seen) == asked
    list(engine().generate(prompts, Sampling(1, 0.9, 64)))
    assert len(Proxy.seen) > asked  # another request is another answer


@pytest.mark.parametrize("spoiled", [[429], [500, 503], ["drop"], ["stall"]])
def test_what_spoils_once_is_tried_again(engine, spoiled):
    asked, greedy = prompts_of(make_questions("curb65", "validation", 1)), Sampling(1, 0.0, 64)
    list(engine(cache="before").generate(asked, greedy))
    Proxy.script, Proxy.seen = list(spoiled), []
    [done] = engine(timeout=5).generate(asked, greedy)
    assert "answer" in done.text and len(Proxy.seen) == len(spoiled) + 1


def test_what_spoils_for_good_is_a_sentence_and_the_rest_is_kept(engine):
    prompts = prompts_of(make_questions("curb65", "validation", 3))
    Proxy.script = [None, None, 500, 500, 500, 500]
    with pytest.raises(UserError, match=r"answers 500 \(.*\); try again later"):
        list(engine().generate(prompts, Sampling(1, 0.0, 64)))
    asked = len(Proxy.seen)
    assert len(list(engine().generate(prompts, Sampling(1, 0.0, 64)))) == 3
    assert len(Proxy.seen) == asked + 1  # two of three were in the cache


def test_a_dropped_image_is_noticed(engine):
    def without_image(request, answer):
        if answer is None:
            parts = request["messages"][0]["content"]
            return {**request, "messages": [{"role": "user", "content": [p for p in parts if p["type"] == "text"]}]}

    Proxy.script = [without_image]
    with pytest.raises(UserError, match="drops images"):
        list(engine().generate(prompts_of(make_questions("nodule_count", "validation", 1)), Sampling(1, 0.0, 64)))


def spent(engine) -> float:
    return pytest.approx(engine.client.budget.spent() * 1e6)


def test_the_cap_holds_with_eight_at_once_and_over_a_restart(engine):
    """At one dollar a million tokens, what the server charged is never over the cap of 1,500 tokens."""
    prompts = prompts_of(make_questions("curb65,qsofa", "validation", 24))
    limited = {"concurrency": 8, "prices": (1.0, 1.0), "max_cost": 0.0015}
    first = engine(**limited)
    with pytest.raises(UserError, match=r"the cap is engine.max_cost = 0.0015; raise it"):
        list(first.generate(prompts, Sampling(1, 0.0, 96)))
    assert 700 < sum(Proxy.charged) <= 1500 and sum(Proxy.charged) == spent(first)
    asked = len(Proxy.seen)
    with pytest.raises(UserError, match=r"the cap is engine\.max_cost"):
        list(engine(**limited).generate(prompts, Sampling(1, 0.0, 96)))
    assert sum(Proxy.charged) <= 1500 and len(Proxy.seen) <= asked + 1  # a short question may still have fitted
    asked = len(Proxy.seen)
    more = engine(**{**limited, "max_cost": 1.0})
    assert len(list(more.generate(prompts, Sampling(1, 0.0, 96)))) == 24
    assert len(Proxy.seen) == 24 and sum(Proxy.charged) == spent(more)
    list(more.generate(prompts, Sampling(1, 0.0, 96)))
    assert sum(Proxy.charged) == spent(more)  # answers from the cache cost nothing


def test_what_a_failed_try_costs(engine):
    """A refusal costs nothing; an answer that did not arrive in time may have to be paid, so its reservation stays."""
    [prompt] = prompts_of(make_questions("curb65", "validation", 1))
    for temperature in (0.0, 0.5):
        list(engine(cache="before").generate([prompt], Sampling(1, temperature, 64)))
    priced = engine(prices=(1.0, 1.0), timeout=5)
    Proxy.script, Proxy.charged = [429, 500], []
    list(priced.generate([prompt], Sampling(1, 0.0, 64)))
    assert sum(Proxy.charged) == spent(priced) and len(Proxy.charged) == 1
    Proxy.script = ["stall"]
    list(priced.generate([prompt], Sampling(1, 0.5, 64)))
    assert sum(Proxy.charged[:2]) < priced.client.budget.spent() * 1e6 < sum(Proxy.charged[:2]) + 1500


def test_an_answer_without_a_count_of_tokens_keeps_its_reservation(engine):
    def without_usage(request, answer):
        if answer is not None:
            answer["usage"] = None

    Proxy.script = [without_usage]
    uncounted = engine(prices=(1.0, 1.0))
    list(uncounted.generate(prompts_of(make_questions("curb65", "validation", 1)), Sampling(1, 0.0, 64)))
    assert uncounted.client.budget.spent() * 1e6 > sum(Proxy.charged)


def test_the_endpoint_of_the_data_stage_has_a_cap_of_its_own(engine):
    url = engine().client.url
    capped = {"endpoint_prompt_price": 1.0, "endpoint_completion_price": 1.0, "endpoint_max_cost": 0.001}
    data = load_profile("tiny").data.model_copy(update={"endpoint": url, "endpoint_model": MODEL, **capped})
    with pytest.raises(UserError, match=r"the cap is data.endpoint_max_cost = 0.001; raise it"):
        closed_options("Is it left or right?", "left", _client(data))
    assert not Proxy.seen


STALLING = """
import json, signal, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from medvlt_lib.rollout.chat_client import ChatClient
from medvlt_lib.rollout.engine import Prompt, Sampling
from medvlt_lib.rollout.openai_engine import OpenAIEngine

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without one

class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["messages"][0]["content"][0]["text"] == "slow":
            print("stalling\\n", end="", flush=True)
            threading.Event().wait()
        message = {"role": "assistant", "content": "quick"}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m",
                  "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
from pathlib import Path
client = ChatClient(f"http://127.0.0.1:{server.server_port}/v1", "m", Path(sys.argv[1]))
texts = ["one", "two", "slow", "slow"]
prompts = [Prompt(text, [{"role": "user", "content": text}]) for text in texts]
for done in OpenAIEngine(client, 2).generate(prompts, Sampling(1, 0.0, 8)):
    print(f"{done.question_id}\\n", end="", flush=True)
"""


def test_ctrl_c_leaves_requests_in_flight_and_keeps_what_was_answered(tmp_path):
    program = subprocess.Popen(
        [sys.executable, "-c", STALLING, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        lines = {program.stdout.readline().strip() for _ in range(4)}
        assert lines == {"one", "two", "stalling"}
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=60)  # the slow requests never end
    finally:
        program.kill()
    assert "KeyboardInterrupt" in errors
    kept = [json.loads(p.read_text())["choices"][0]["message"]["content"] for p in tmp_path.glob("*.json")]
    assert kept == ["quick", "quick"]


def test_the_stages_take_a_server(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path / "cache"))
    served = {
        "engine.kind": "openai",
        "engine.url": f"http://127.0.0.1:{server}/v1",
        "model.name": MODEL,
        "data.train_text_size": 4,
        "data.train_image_size": 4,
        "data.test_size": 5,
        "filtering.samples": 2,
        "filtering.keep_from": 0,
        "filtering.keep_to": 1,
    }
    for command in ("data", "filter", "eval"):
        done = medvlt(tmp_path, command, "--profile", "tiny", *(settings(**served) if command == "data" else []))
        assert done.returncode == 0, done.stderr[-2000:]
    rows = [
        json.loads(line)
        for p in (tmp_path / "runs/tiny/02_filtering/rollouts").glob("*.jsonl")
        for line in p.read_text().splitlines()
    ]
    assert (
        len(rows) == 16
        and rows[0]["weights"] == f"{MODEL} at http://127.0.0.1:{server}/v1"
        and rows[0]["engine"].startswith("openai ")
    )


def test_a_served_model_teaches(server, tmp_path, monkeypatch):
    """The larger tiny model as a teacher: what is kept stands in its answers, and the training reward pays for it."""
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path / "cache"))
    url = f"http://127.0.0.1:{server}/v1"
    teacher = f"distill.teachers={{base: {{name: {MODEL}, url: {url}, samples: 2, max_new_tokens: 96}}}}"
    sizes = {"data.train_text_size": 8, "data.train_image_size": 6}
    for command in (["data", "--profile", "tiny", *settings(**sizes)], ["distill", "--set", teacher]):
        done = medvlt(tmp_path, *command)
        assert done.returncode == 0, done.stderr[-2000:]
    run = tmp_path / "runs/tiny"
    assert "teacher base: 2 answers to each of 8 text questions are missing; " in done.stderr
    figures = json.loads((run / "02b_distill/metrics.json").read_text())
    own = figures["teachers"]["base"]
    assert own["answers"] == 28 and own["right"] + sum(own["rejected"].values()) == 28
    for kind in ("text", "image"):
        questions = {q.id: q for q in read_questions(run / f"01_data/train_{kind}.parquet")}
        rows = [
            json.loads(line)
            for path in (run / f"02b_distill/answers/base/{kind}").glob("*.jsonl")
            for line in path.read_text().splitlines()
        ]
        for row in rows:
            assert grade(row["text"], questions[row["id"]]).reward == float(row["rejected"] is None), row
        texts = {(row["id"], row["sample"]): row["text"] for row in rows if row["rejected"] is None}
        kept = read_questions(run / f"02b_distill/traces_{kind}.parquet")
        assert 0 < len(kept) == figures[f"with_trace_{kind}"] == len({key for key, _ in texts})
        for trace in kept:
            source = trace.extra["trace"]
            assert f"{trace.reasoning}</think>" in texts[source["question"], source["sample"]].replace(
                " </think>", "</think>"
            )


def test_a_served_model_scores_exactly_as_the_local_one(server, tmp_path, monkeypatch):
    """The same weights behind transformers' own server: every letter, verdict and score, on text and on pictures."""
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path / "cache"))
    (local, ours), (served, theirs) = answered_here_and_served(tmp_path, MODEL, f"http://127.0.0.1:{server}/v1", 96)
    graded = ("id", "sample", "dataset", "letter", "correct", "well_formed", "truncated", "finish_reason")
    assert [[row[key] for key in graded] for row in served] == [[row[key] for key in graded] for row in local]
    assert {row["correct"] for row in local} == {True, False}
    for figure in (ours, theirs):
        del figure["tokens"], figure["mean_tokens"]  # a server does not count the end of a turn
    assert ours == theirs
