"""`medvlt doctor`: whether this machine can run the course, what else it can run, and what would have to be mended.

Every check ends with a line: ok, a note (something is missing that the course does not need), or a problem. What is
installed is looked at in installed.py; here follow the machine, the Hub, the profiles, and the time of the course.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from medvlt_lib.core.config import Profile, load_profile, profile_names
from medvlt_lib.core.errors import first_line
from medvlt_lib.core.files import read_json
from medvlt_lib.core.threads import PERSONAL, set_by_a_person
from medvlt_lib.models import smol
from medvlt_lib.tools.installed import (
    GIB,
    Finding,
    Gpu,
    bitsandbytes,
    find_gpu,
    packages,
    torch_and_cuda,
    torchvision,
    trial,
    vllm,
)

RECORD = Path(__file__).parents[1] / "assets" / "results" / "course-tiny.json"  # what the course took elsewhere
RUN_BYTES = 0.5 * GIB  # ten times what a run of the default course takes
PROBE = "from medvlt_lib.tools.doctor import seconds_a_rollout; print(seconds_a_rollout())"
PROBED = 32  # questions; with 16 answers each, three seconds where the course was recorded


def examine() -> Iterator[Finding]:
    """Every finding, in the order of the table."""
    gpu = find_gpu()
    yield from packages()
    yield torch_and_cuda(gpu)
    yield torchvision()
    yield bitsandbytes(gpu)
    engine = vllm()
    yield engine
    yield disk(Path.cwd())
    yield memory()
    yield threads()
    yield hub()
    yield runnable_profiles(gpu, engine.state == "ok")
    yield course_time()


# --- the machine ---


def disk(folder: Path) -> Finding:
    """Whether runs can be written here, and how much room they have."""
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Finding("disk", "problem", f"{folder} may not be written; start in another folder.", fatal=True)
    if free < RUN_BYTES:
        says = f"{free / GIB:.1f} GiB are free in {folder}, and the course may take {RUN_BYTES / GIB:.1f}; make room."
        return Finding("disk", "problem", says, fatal=True)
    return Finding("disk", "ok", f"{free / GIB:.0f} GiB are free in {folder}; the course takes less than half of one.")


def memory() -> Finding:
    """Whether the course's hungriest notebook has room."""
    peak = max(own["peak_memory_mb"] for own in read_json(RECORD)["notebooks"].values()) / 1024
    free = psutil.virtual_memory().available / GIB
    if free < peak:
        says = f"{free:.1f} GiB are free, and the course took {peak:.1f} when it was recorded; close other programs."
        return Finding("memory", "problem", says, fatal=True)
    return Finding("memory", "ok", f"{free:.1f} GiB are free; the course took {peak:.1f} when it was recorded.")


def threads() -> Finding:
    """How many cores torch will have, and who says so."""
    cores = psutil.cpu_count() or 1
    busy = cores * psutil.cpu_percent(interval=0.5) / 100
    if set_by_a_person():
        own = ", ".join(f"{name}={os.environ[name]}" for name in PERSONAL if name in os.environ)
        return Finding("threads", "note", f"{cores} cores; {own} is set, so torch's threads are left as they are.")
    if busy > cores / 2:
        says = f"other work takes {busy:.1f} of {cores} cores, so everything will take longer; close it if you can."
        return Finding("threads", "note", says)
    return Finding("threads", "ok", f"{cores} cores, {busy:.1f} of them busy; torch takes those that are free.")


def hub() -> Finding:
    """Whether the Hub answers, who is logged in, and which of the published sets are closed to them."""
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    from medvlt_lib.data.published import SOURCES

    api, repos, closed = HfApi(), sorted({source.repo for source in SOURCES.values()}), []
    if constants.HF_HUB_OFFLINE:
        return Finding("Hub", "note", "HF_HUB_OFFLINE is set; real models and data must lie on this machine.")
    try:
        api.dataset_info(repos[0], timeout=5)
        who = f"logged in as {api.whoami()['name']}" if get_token() else "not logged in (`hf auth login`)"
        for repo in repos:
            try:
                api.auth_check(repo, repo_type="dataset")
            except RepositoryNotFoundError:  # gated, or private
                closed.append(repo)
    except Exception as error:  # httpx's, the Hub's and the system's
        return Finding("Hub", "note", f"it does not answer ({first_line(error)}); only real models and data need it.")
    if closed:
        return Finding("Hub", "note", f"{who}; closed to you, until you ask on their pages: {', '.join(closed)}.")
    return Finding("Hub", "ok", f"{who}; all published sets may be read.")


# --- what can run, and how fast ---


def plan_fits(profile: Profile, gpu: Gpu) -> bool:
    """Whether a profile's steps fit on such a GPU, as `medvlt plan` counts them."""
    from medvlt_lib.tools import gpus
    from medvlt_lib.tools.plan import plan_profile

    return plan_profile(profile, gpus.Gpu(gpu.name, gpu.memory)).fits


def runnable_profiles(gpu: Gpu | None, vllm_loads: bool, fits: Callable[[Profile, Gpu], bool] = plan_fits) -> Finding:
    """Which profiles this machine can run: those of a CPU, and those whose engine is here and whose plan fits on its
    GPUs."""
    runs, not_here, errors, lacks_vllm = [], [], [], False
    for profile in map(load_profile, profile_names()):
        devices = profile.launch.devices
        if profile.model.name == smol.NAME and not smol.obtainable():
            not_here.append(f"{profile.profile} (package {smol.PACKAGED.package})")
        elif profile.model.device == "cpu":
            runs.append(profile.profile)
        elif gpu is None or gpu.count < devices:
            not_here.append(f"{profile.profile} ({devices} GPU{'s' * (devices > 1)})")
        elif "vllm" in profile.engine.kind + profile.grpo.sampler and not vllm_loads:
            not_here.append(f"{profile.profile} (vLLM)")
            lacks_vllm = True
        else:
            try:
                (runs if fits(profile, gpu) else not_here).append(profile.profile)
            except Exception as error:  # a package that the plan needs and that does not load, of many kinds
                errors.append(f"{profile.profile} ({first_line(error)})")
    says = f"this machine can run {', '.join(runs)}"
    if not_here:
        says += f", and not {', '.join(not_here)}; `medvlt plan` says what each needs"
    if lacks_vllm:
        says += ", and --set engine.kind=transformers --set grpo.sampler=engine does without vLLM"
    if errors:
        return Finding("profiles", "problem", f"{says}; no plan could be made of {', '.join(errors)}.")
    return Finding("profiles", "ok", f"{says}.")


def course_time() -> Finding:
    """Whether the default course's model answers here, and how long the course will take, from some seconds of it."""
    output, error = trial(PROBE)
    if error:
        return Finding("course", "problem", f"the course's model does not answer here: {error}.", fatal=True)
    minutes, date = recorded_minutes(), read_json(RECORD)["date"]
    here = minutes * float(output) / recorded_seconds_a_rollout()
    says = f"`make course` takes about {here:.0f} minutes here, beside what else runs now"
    return Finding("course", "ok", f"{says} (recorded on {date}: {minutes:.1f}).")


def recorded_minutes() -> float:
    """What all notebooks of the default course took when it was recorded."""
    return sum(own["seconds"] for own in read_json(RECORD)["notebooks"].values()) / 60


def recorded_seconds_a_rollout() -> float:
    """What notebook 02, which is nearly all rollouts, took for each when it was recorded."""
    profile = load_profile("tiny")
    rollouts = profile.filtering.samples * (profile.data.train_text_size + profile.data.train_image_size)
    return read_json(RECORD)["notebooks"]["02_filtering"]["compute_seconds"] / rollouts


def seconds_a_rollout() -> float:
    """What a rollout of the default course takes here: the filter's sampling, half text and half pictures."""
    from medvlt_lib.phantom.questions import make_questions
    from medvlt_lib.rollout.build import build_engine
    from medvlt_lib.rollout.engine import Sampling, prompts_of

    profile = load_profile("tiny")
    engine, f = build_engine(profile), profile.filtering
    families = [getattr(profile.data, name).removeprefix("phantom:") for name in ("train_text", "train_image")]
    prompts = prompts_of(q for names in families for q in make_questions(names, "train", PROBED // 2))
    sampling = Sampling(f.samples, f.temperature, f.max_new_tokens, f.seed)
    list(engine.generate(prompts[:1], sampling))  # the first one also loads what torch loads late
    started = time.perf_counter()
    rollouts = len(list(engine.generate(prompts, sampling)))
    return (time.perf_counter() - started) / rollouts
