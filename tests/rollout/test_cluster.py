"""Rollouts on a cluster, without one: addresses, what a worker checks before it loads anything, and lost workers."""

import os
import platform
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import write_questions
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout import cluster, connection
from medvlt_lib.rollout.cluster import Home, Work, Worker, identity_of, write_on_cluster
from medvlt_lib.rollout.connection import connected, engines_here, quick_imports
from medvlt_lib.rollout.parts import parts_of
from medvlt_lib.stages.answers import asked

SMALL = {"model.name": "phantom:small", "eval.max_new_tokens": 24}


@pytest.fixture
def questions(tmp_path) -> Path:
    write_questions(make_questions("curb65,nodule_count", "validation", 6), tmp_path / "q.parquet")
    return tmp_path / "q.parquet"


def worker(questions: Path, profile=None, **changes) -> Worker:
    profile = profile or load_profile("tiny", SMALL)
    identity = {"machine": "head", **identity_of(profile), **changes.pop("identity", {})}
    return Worker(Work(asked, profile), [questions], changes.pop("home", Home()), identity)


def test_an_address_is_a_cluster_or_engines_here():
    assert engines_here("local:4") == 4
    assert engines_here("auto") is engines_here("10.0.0.1:6379") is engines_here("head.cluster:6379") is None
    for wrong in ("", "local", "local:0", "local:x", "10.0.0.1", "ray://10.0.0.1:10001", "http://head:6379"):
        with pytest.raises(UserError, match=f"^--ray {wrong} is no cluster; write HOST:PORT"):
            engines_here(wrong)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--ray needs Ray, .* `pip install 'medvlt\[cluster\]'`"), connected("auto"):
        pass


def test_a_server_needs_no_cluster(questions, tmp_path):
    profile = load_profile("tiny", {"engine.kind": "openai", "engine.url": "http://localhost:1/v1"})
    parts = parts_of(tmp_path / "parts", QuestionFiles([questions]), 4)
    with pytest.raises(UserError, match=r"for a server set engine\.concurrency instead"):
        write_on_cluster("local:2", parts, "", Work(asked, profile))


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_an_address_where_no_cluster_answers_is_a_sentence(kind, monkeypatch):
    """A port that nobody listens on, and one whose owner never says a word."""
    pytest.importorskip("ray")
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 5)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if kind == "silent":
            server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=f"^no Ray cluster answers at {address}; start one"), connected(address):
            pass


def test_a_worker_answers_as_this_process_does(questions):
    profile = load_profile("tiny", SMALL)
    engine = cluster.build_engine(profile)
    expected = list(asked(engine, QuestionFiles([questions])[2:5], profile))
    own = worker(questions)
    own.start()
    assert own.answer(2, 5) == expected and len(expected) == 3


@pytest.mark.parametrize(("gpus", "value"), [(1, "0"), (2, "1")])
def test_a_worker_s_engine_has_no_child_that_could_outlive_it(gpus, value, questions, monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    worker(questions, load_profile("tiny", {**SMALL, "engine.tensor_parallel": gpus})).start()
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == value


@pytest.mark.parametrize("free", [True, False])
def test_it_is_said_what_workers_without_a_place_wait_for(free, monkeypatch):
    waited, said = [], []

    def wait(references, timeout):
        waited.append(timeout)
        return (references, []) if free else ([], references)

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(wait=wait))
    method = SimpleNamespace(remote=lambda: object())
    actor = SimpleNamespace(start=method, is_there=method)
    bar = SimpleNamespace(write=lambda text, file: said.append(text))
    cluster.collect(lambda: actor, 2, deque(), bar, "1 CPU and 4 GPU")
    assert waited == [60]
    assert [text.split(", which")[0] for text in said] == (
        [] if free else ["no engine has a place yet: each needs 1 CPU and 4 GPU of one machine"]
    )


def test_a_worker_works_where_and_as_this_process_does(questions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    home = Home()
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.chdir("/")
    worker(Path("q.parquet"), home=home).start()
    assert (Path.cwd(), os.environ.pop("OMP_NUM_THREADS")) == (tmp_path, "3")


def test_a_machine_without_the_shared_folder_says_so(questions):
    with pytest.raises(UserError, match=f"^{platform.node()} cannot enter /no/such .*that all machines"):
        worker(questions, home=Home(Path("/no/such"))).start()


@pytest.mark.parametrize("name", ["medvlt", "engine", "weights"])
def test_a_machine_that_is_not_like_the_others_is_refused(questions, name):
    other = worker(questions, identity={name: "another"})
    with pytest.raises(UserError, match=f"^{platform.node()} has {name} .*, and head has another; install the same"):
        other.start()
    assert other.engine is None


@pytest.mark.parametrize("before", [None, "/some/where"])
def test_processes_of_ray_do_without_a_grammar_of_web_addresses(before, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before:
        monkeypatch.setenv("PYTHONPATH", before)
    with quick_imports():
        code = "import jsonschema, sys; print([m for m in sys.modules if 'lark' in m or 'rfc3987_syntax' in m])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("[]\n", "")
        assert not before or os.environ["PYTHONPATH"].endswith(f"{os.pathsep}{before}")
    assert os.environ.get("PYTHONPATH") == before


def test_an_engine_needs_its_gpus_on_one_machine(monkeypatch):
    ray = pytest.importorskip("ray")
    resources = [{"CPU": 16.0, "GPU": 8.0}, {"CPU": 16.0, "GPU": 3.0}, {"CPU": 4.0}]
    machines = [{"Alive": True, "Resources": own} for own in resources] + [{"Alive": False, "Resources": resources[0]}]
    monkeypatch.setattr(ray, "nodes", lambda: machines)
    two = {"engine.kind": "vllm", "engine.tensor_parallel": 2}
    fit = {
        kind: cluster.engines_that_fit("auto", load_profile(*profile))
        for kind, profile in {"cpu": ["tiny"], "one": ["full-7b"], "two": ["full-7b", two]}.items()
    }
    assert fit["cpu"] == (36, {"num_cpus": 1})
    assert fit["one"] == (11, {"num_cpus": 1, "num_gpus": 1}) and fit["two"] == (5, {"num_cpus": 1, "num_gpus": 2})
    with pytest.raises(
        UserError, match=r"^no machine of the cluster auto has .* profile full-7b needs \(CPU 1, GPU 9\)"
    ):
        cluster.engines_that_fit("auto", load_profile("full-7b", {**two, "engine.tensor_parallel": 9}))
