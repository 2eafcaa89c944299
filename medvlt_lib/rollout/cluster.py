"""Rollouts on several GPUs or machines, through Ray: `--ray HOST:PORT`, `--ray auto`, or `--ray local:4`.

Every part (a file of so many questions) is a task. An actor, here a `Worker`, holds an engine on GPUs of its own and
gives back the rows of one part after the other. This process writes them: it holds the lock of the stage's folder, so
a part is written once, whole, and by nobody else. Where a worker is lost, with its process or its machine, its part is
done again by whichever is free, and a new worker is made, elsewhere if it must be.

All machines see the folder in which the command was started under the same path: the questions, the runs' checkpoints
and the model folders are read there. That they also have the same versions and weights is checked when they start.

Left out: training on many GPUs, which is accelerate's and FSDP's work, and anything that Ray itself can be told when
it is started (addresses, ports, machines that come and go).
"""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medvlt_lib import __version__
from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.question_files import QuestionFiles
from medvlt_lib.core.records import Question
from medvlt_lib.core.threads import PERSONAL
from medvlt_lib.models.loading import weights_id
from medvlt_lib.rollout.build import build_engine
from medvlt_lib.rollout.connection import connected, engines_here
from medvlt_lib.rollout.engine import Engine, engine_version
from medvlt_lib.rollout.parts import Part, missing, progress_bar

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle
    from tqdm import tqdm

RESTARTS = 2  # times that a lost worker is replaced by a new one
LOSSES = 3  # workers that one part may take with it before it is the part's own fault
PLACE_SECONDS = 60  # for the first worker to get a place, before it is said what is waited for
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

    def is_there(self) -> None:
        """Answers as soon as Ray has found a place for this worker."""

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
        if profile.engine.tensor_parallel == 1:  # a child of a worker that is killed would keep its GPU
            os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        self.engine = build_engine(profile, self.work.checkpoint)

    def answer(self, start: int, stop: int) -> list[dict]:
        """The rows of the questions from `start` up to `stop`, after `start`."""
        assert self.engine is not None, "start comes first"
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
        import ray

        to_do = deque(missing(parts))
        count, needs = engines_that_fit(address, work.profile)
        identity = {"machine": platform.node(), **identity_of(work.profile)}
        actor, arguments = ray.remote(**needs)(Worker), (work, parts[0].source.paths, Home(), identity)
        wanted = " and ".join(f"{number} {name[4:-1].upper()}" for name, number in needs.items())  # 1 CPU and 1 GPU
        collect(lambda: actor.remote(*arguments), min(count, len(to_do)), to_do, bar, wanted)


def engines_that_fit(address: str, profile: Profile) -> tuple[int, dict[str, int]]:
    """How many engines the cluster holds, and what Ray must set aside for each: its GPUs, or cores.

    On the CPUs of a cluster an engine has one core: a second thread would make it only a third quicker
    (benchmarks/threads.json). Raises UserError where no machine can hold an engine.
    """
    import ray

    local = engines_here(address)
    cores = max(1, (os.cpu_count() or 1) // local) if local else 1
    gpus = profile.engine.tensor_parallel if profile.engine.kind == "vllm" else 1
    needs = {"CPU": cores, "GPU": gpus} if profile.model.device == "cuda" else {"CPU": cores}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = sum(int(min(machine.get(name, 0) // need for name, need in needs.items())) for machine in machines)
    if fit == 0:
        wanted = ", ".join(f"{name} {need}" for name, need in needs.items())
        raise UserError(
            f"no machine of the cluster {address} has what an engine of profile {profile.profile} needs ({wanted}); "
            "add one that has, or lower engine.tensor_parallel."
        )
    return min(fit, local or fit), {f"num_{name.lower()}s": need for name, need in needs.items()}


@dataclass(eq=False)
class Place:
    """Room for one engine, the worker that has it, and how many workers were lost there."""

    worker: ActorHandle
    lost: int = 0


def collect(make: Callable[[], ActorHandle], count: int, to_do: deque[Part], bar: tqdm, wanted: str) -> None:
    """Give each of `count` workers one part at a time and write what comes back, until nothing is left to do. `wanted`:
    what each takes of a machine, in words."""
    import ray

    places = [Place(make()) for _ in range(count)]
    if not ray.wait([place.worker.is_there.remote() for place in places], timeout=PLACE_SECONDS)[0]:
        says = f"no engine has a place yet: each needs {wanted} of one machine, which something else has; this waits."
        bar.write(says, file=sys.stderr)
    doing: dict[ObjectRef, tuple[Place, Part | None]] = {place.worker.start.remote(): (place, None) for place in places}
    idle: list[Place] = []
    losses: Counter[Path] = Counter()  # how many workers each part has taken with it
    while to_do or any(part for _, part in doing.values()):
        # Stage 1: wait for a worker that has started, or that has done its part.
        bar.set_postfix_str(f"engines at work: {sum(part is not None for _, part in doing.values())}")
        [done], _ = ray.wait(list(doing))
        place, part = doing.pop(done)
        try:
            rows = ray.get(done)
        except ray.exceptions.RayError as error:
            # Stage 2, where the worker was lost: put its part back, and a new worker in its place, for which Ray may
            # have to find another machine. Nothing waits for it: other workers do the part.
            reason = why_lost(error)
            if part is not None:
                bar.write(f"a worker was lost ({reason}); {part.path.name} is done again.", file=sys.stderr)
                losses[part.path] += 1
                _refuse_fatal_part(part, losses[part.path], reason, error)
                to_do.appendleft(part)
            ray.kill(place.worker)  # after an error its process lives, but its engine may not
            place.lost += 1
            if place.lost <= RESTARTS:
                place.worker = make()
                doing[place.worker.start.remote()] = place, None
            elif not doing and not idle:
                sentence = f"no worker is left, {place.lost} in each place were lost ({reason}); {LOGS}."
                raise UserError(sentence) from error
        else:
            # Stage 2: write its rows.
            if part is not None:
                part.write(rows)
            idle.append(place)
        # Stage 3: give every free worker something to do.
        while idle and to_do:
            place, part = idle.pop(), to_do.popleft()
            doing[place.worker.answer.remote(part.start, part.stop)] = place, part


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
