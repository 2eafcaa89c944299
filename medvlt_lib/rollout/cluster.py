"""Rollouts on several GPUs or machines, through Ray: `--ray HOST:PORT`, `--ray auto`, or `--ray local:4`.

Every part (a file of so many questions) is a task. An actor, here a `Worker`, holds an engine on GPUs of its own and
gives back the rows of one part after the other. This process writes them: it holds the lock of the stage's folder, so
a part is written once, whole, and by nobody else. Where a worker is lost, with its process or its machine, its part is
done again by whichever is free; Ray starts the process again, elsewhere if it must, and nobody waits for it.

All machines see the folder in which the command was started under the same path: the questions, the runs' checkpoints
and the model folders are read there. That they also have the same versions and weights is checked when they start.

Left out: training on many GPUs, which is accelerate's and FSDP's work, and anything that Ray itself can be told when
it is started (addresses, ports, machines that come and go).
"""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib import __version__
from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import Question
from medvlt_lib.core.threads import PERSONAL
from medvlt_lib.models.loading import weights_id
from medvlt_lib.rollout.build import build_engine
from medvlt_lib.rollout.engine import Engine, engine_version
from medvlt_lib.rollout.parts import Part, missing, progress_bar

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle
    from tqdm import tqdm

RESTARTS = 3  # times that Ray starts a lost worker again
LOSSES = 3  # workers that one part may take with it before it is the part's own fault
ANSWER_SECONDS = 20  # for a cluster to say that it is there
STORE = 200 * 2**20  # bytes of Ray's object store on this machine, which holds the rows of a few parts
JOIN = "start one with `ray start` and this command on one of its machines, or give local:N for engines here"
LOGS = "Ray's logs are in /tmp/ray/session_latest/logs on the machine where it ran"


@dataclass(frozen=True)
class Work:
    """What workers do with the questions of a part: `rows` of an engine, the questions and the profile.

    `rows` is a function of a module. `checkpoint` is an arm's, as in `build_engine`.
    """

    rows: Callable[[Engine, list[Question], Profile], Iterable[dict]]
    profile: Profile
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Home:
    """What a worker takes over from the process that started it."""

    folder: Path = field(default_factory=Path.cwd)
    threads: dict[str, str] = field(default_factory=lambda: {n: os.environ[n] for n in PERSONAL if n in os.environ})


class Worker:
    """An engine in a process of its own; Ray makes an actor of it.

    The engine is loaded at the first call, not when the actor is made: of an error there Ray would hide the sentence.
    """

    def __init__(self, work: Work, files: list[Path], home: Home, identity: dict[str, str]) -> None:
        self.work, self.files, self.home, self.identity = work, files, home, identity
        self.engine: Engine | None = None

    def start(self) -> None:
        """Load the engine. Raises UserError where this machine cannot, or is not like the one that started it."""
        # As in the process that began this; where nobody has said anything about threads, Ray gives one for each of the
        # worker's cores. Both count only before torch is imported.
        os.environ.update(self.home.threads)
        try:
            os.chdir(self.home.folder)
        except OSError as error:
            raise UserError(
                f"{platform.node()} cannot enter {self.home.folder} ({error.strerror}); "
                "start the command in a folder that all machines of the cluster share under this path."
            ) from None
        profile = self.work.profile
        for name, ours in identity_of(profile).items():
            if ours != self.identity[name]:
                raise UserError(
                    f"{platform.node()} has {name} {ours}, and {self.identity['machine']} has {self.identity[name]}; "
                    "install the same versions, and the same model, on all machines."
                )
        self.questions = QuestionFiles(self.files)
        self.engine = build_engine(profile, self.work.checkpoint)

    def answer(self, start: int, stop: int) -> list[dict]:
        """The rows of the questions from `start` up to `stop`."""
        if self.engine is None:  # Ray has started this process again
            self.start()
        return list(self.work.rows(self.engine, self.questions[start:stop], self.work.profile))


def identity_of(profile: Profile) -> dict[str, str]:
    """What must be alike on all machines, because every row says that it was made so."""
    return {"medvlt": __version__, "engine": engine_version(profile), "weights": weights_id(profile)}


def write_on_cluster(address: str, parts: list[Part], title: str, work: Work) -> None:
    """Write the missing parts with the engines of a Ray cluster, as many as it holds.

    `address` is HOST:PORT of a cluster that this machine belongs to, `auto` for the one that runs here, or local:N for
    N engines on this machine. Raises UserError when the cluster does not answer or holds no engine, when an engine
    cannot be loaded, and when workers are lost again and again; what is written by then stays.
    """
    if work.profile.engine.kind == "openai":
        raise UserError("--ray is for engines that load a model; for a server set engine.concurrency instead.")
    with connected(address), progress_bar(parts, title) as bar:
        to_do = deque(missing(parts))
        collect(make_workers(address, work, parts[0].source.paths, len(to_do)), to_do, bar)


def make_workers(address: str, work: Work, files: list[Path], most: int) -> list[ActorHandle]:
    """As many workers as the cluster holds, `most` at most; each has the GPUs of one engine, or cores.

    On the CPUs of a cluster an engine has one core: a second thread would make it only a third quicker
    (benchmarks/threads.json). Raises UserError where no machine can hold an engine.
    """
    import ray

    profile, local = work.profile, engines_here(address)
    cores = max(1, (os.cpu_count() or 1) // local) if local else 1
    gpus = profile.engine.tensor_parallel if profile.engine.kind == "vllm" else 1
    gpus = gpus if profile.model.device == "cuda" else 0
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = sum(int(min(m.get("CPU", 0) // cores, m.get("GPU", 0) // gpus if gpus else most)) for m in machines)
    if fit == 0:
        needed = f"{gpus} GPU{'s' * (gpus > 1)}" if gpus else "a core"
        raise UserError(
            f"no machine of the cluster {address} has {needed} for an engine of profile {profile.profile}; "
            "add one that has, or lower engine.tensor_parallel."
        )
    identity = {"machine": platform.node(), **identity_of(profile)}
    # max_task_retries: a call waits until a lost process is back. `answer` does not, its part goes to another worker.
    actor = ray.remote(num_cpus=cores, num_gpus=gpus, max_restarts=RESTARTS, max_task_retries=-1)(Worker)
    return [actor.remote(work, files, Home(), identity) for _ in range(min(fit, local or fit, most))]


def collect(workers: list[ActorHandle], to_do: deque[Part], bar: tqdm) -> None:
    """Give each worker one part at a time and write what comes back, until nothing is left to do."""
    import ray

    doing: dict[ObjectRef, tuple[ActorHandle, Part | None]] = {w.start.remote(): (w, None) for w in workers}
    idle: list[ActorHandle] = []
    losses: Counter[Path] = Counter()  # how many workers each part has taken with it
    while to_do or any(part for _, part in doing.values()):
        # Stage 1: wait for a worker that has started, or that has done its part.
        bar.set_postfix_str(f"{sum(part is not None for _, part in doing.values())} engines at work")
        [done], _ = ray.wait(list(doing))
        worker, part = doing.pop(done)
        try:
            rows = ray.get(done)
        except ray.exceptions.RayError as error:
            # Stage 2, where the worker was lost: put its part back. Ray starts its process again, perhaps only when a
            # machine is found for it; `start` comes back when it has, or when it was started often enough.
            reason = why_lost(error)
            if part is not None:
                print(f"a worker was lost ({reason}); {part.path.name} is done again.", file=sys.stderr)
                losses[part.path] += 1
                _refuse_fatal_part(part, losses[part.path], reason, error)
                to_do.appendleft(part)
            if isinstance(error, ray.exceptions.RayTaskError):
                ray.kill(worker, no_restart=False)  # its process lives, but its engine may not
            if part is not None or isinstance(error, ray.exceptions.RayTaskError):
                doing[worker.start.remote()] = worker, None
            elif not doing and not idle:
                sentence = f"no worker is left, each was started {RESTARTS + 1} times and lost ({reason}); {LOGS}."
                raise UserError(sentence) from error
        else:
            # Stage 2: write its rows.
            if part is not None:
                part.write(rows)
            idle.append(worker)
        # Stage 3: give every free worker something to do.
        while idle and to_do:
            worker, part = idle.pop(), to_do.popleft()
            doing[worker.answer.options(max_task_retries=0).remote(part.start, part.stop)] = worker, part


def why_lost(error: Exception) -> str:
    """Why a worker was lost, in a few words. Raises its UserError again, which another start would not mend."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError):
        raise UserError(str(cause)) from None
    return f"{type(cause).__name__}: {first_line(cause)}" if cause else "its process or its machine went away"


def _refuse_fatal_part(part: Part, times: int, reason: str, error: Exception) -> None:
    """Raises an error for a part that takes every worker with it: a mistake of the code as it is, else a sentence."""
    import ray

    if times == LOSSES:
        if isinstance(error, ray.exceptions.RayTaskError):
            raise error
        raise UserError(
            f"{part.path} was begun {times} times, and each time its worker was lost, the last time: {reason}; "
            f"lower engine.batch_tokens, or with vLLM engine.gpu_memory. {LOGS}."
        ) from error


# --- the cluster ---


def engines_here(address: str) -> int | None:
    """N of local:N; None for another address. Raises UserError for what is no address."""
    local = re.fullmatch(r"local:([1-9]\d*)", address)
    if not local and address != "auto" and not re.fullmatch(r"(?!local:)[^/\s:]+:\d+", address):
        raise UserError(
            f"--ray {address} is no cluster; write HOST:PORT as `ray start` prints it, auto for the cluster that runs "
            "on this machine, or local:4 for four engines here."
        )
    return int(local[1]) if local else None


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to a cluster; local:N starts one on this machine, which ends with the connection.

    No dashboard is started, and no usage statistics are sent. Raises UserError when nobody answers at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # for the processes that Ray starts, too
    local = engines_here(address)
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"--ray needs Ray, which does not load ({first_line(error)}); run `pip install 'medvlt[cluster]'`."
        ) from None
    try:
        if local:
            cores = max(local, os.cpu_count() or 1)
            _start(address="local", num_cpus=cores, object_store_memory=STORE, include_dashboard=False)
        else:
            _refuse_silence(address)
            _start(address=address)
        yield
    finally:
        ray.shutdown()


def _start(**options: Any) -> None:
    """Start Ray, or join it, without its messages on the terminal. Raises UserError with Ray's reason."""
    import ray

    for last in (False, True):
        try:
            return ray.init(log_to_driver=False, logging_level="ERROR", **options)
        except Exception as error:  # of many kinds; Ray gives its own processes 15 s, which a busy machine may not keep
            ray.shutdown()
            if last:
                sentence = f"Ray does not start at {options['address']} ({first_line(error)}); {JOIN}."
                raise UserError(sentence) from error


def _refuse_silence(address: str) -> None:
    """Raises UserError when no cluster answers: within seconds, where `ray.init` would wait for a minute and then end
    this process. Ray's own question is asked by another process, which can be given up."""
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    try:
        if address != "auto":
            host, port = address.rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=5).close()
            ask += ["--address", address]
        answers = subprocess.run(ask, capture_output=True, timeout=ANSWER_SECONDS).returncode == 0
    except (OSError, OverflowError, subprocess.TimeoutExpired):
        answers = False
    if not answers:
        raise UserError(f"no Ray cluster answers at {address}; {JOIN}.")
