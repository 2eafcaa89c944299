"""Run folders: one folder a run, with its resolved profile and history in manifest.json and a folder for every stage.

How work in a stage's folder is refused, resumed and finished stands in medvlt_lib.core.stage. No torch here.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock

from medvlt_lib.core.config import Profile, load_profile, profile_names
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import file_hash, read_json, write_json
from medvlt_lib.core.stage import Stage, first_process, is_finished, work_in

STAGES = {
    "01": "01_data", "02": "02_filtering", "02b": "02b_distill", "03": "03_sft", "04": "04_grpo", "05": "05_eval",
    "05b": "05b_controls", "06": "06_analysis",
}  # fmt: skip
COMMANDS = {
    "01": "data", "02": "filter", "02b": "distill", "03": "sft", "04": "grpo", "05": "eval",
    "05b": "controls", "06": "report",
}  # fmt: skip
FORMAT = 2  # of run folders; runs of before 0.2 have none
OWN_ENTRIES = ("format", "profile", "overrides", "inputs", "versions", "hardware")  # set when a run is opened
PACKAGES = ("medvlt", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate")


@dataclass
class Run:
    """One run folder with its resolved profile. Make it with `open_run`."""

    folder: Path
    profile: Profile
    manifest: dict[str, Any]
    redo: set[str] = field(default_factory=set)
    inputs: dict[str, Path] = field(default_factory=dict)

    def stage_folder(self, stage: str, arm: str | None = None) -> Path:
        """The folder of a stage ('01' ... '06') and arm, in this run or in the run named by --inputs."""
        base = self.inputs.get(stage, self.folder / STAGES[stage])
        return _inside(base, arm, "--arm") if arm else base

    def require(self, stage: str, arm: str | None = None) -> Path:
        """A finished stage's folder. Raises UserError that says what to run when it is not finished."""
        folder = self.stage_folder(stage, arm)
        if not is_finished(folder):
            what = f"medvlt {COMMANDS[stage]} --run {self.folder.name}" + (f" --arm {arm}" if arm else "")
            raise UserError(f"{folder} is missing or unfinished; run `{what}` first.")
        return folder

    def settings(self, *sections: str, arm: str | None = None) -> dict[str, Any]:
        """The keys of some sections that can change a result, flat, with an arm's own settings in force."""
        profile = self.profile.for_arm(arm) if arm else self.profile
        return profile.identity(*sections)

    @contextmanager
    def stage(
        self,
        number: str,
        settings: dict[str, Any],
        inputs: dict[str, Path],
        arm: str | None = None,
        *,
        free: tuple[str, ...] = (),
        scratch: tuple[str, ...] = (),
    ) -> Iterator[Stage]:
        """Work on a stage ('01' ... '06') in this run, as `stage.work_in` says; the manifest tells how it went."""
        base = self.folder / STAGES[number]
        folder = _inside(base, arm, "--arm") if arm else base
        advice = f"put it back, redo the stage with --redo {number}, or choose another --run"
        name, started, redo = str(folder.relative_to(self.folder)), time.time(), number in self.redo
        with work_in(folder, settings, inputs, advice, redo=redo, free=free, scratch=scratch) as stage:
            if not stage.finished:
                self.note(stages={name: {"state": "started"}})
            yield stage
        if not stage.finished:
            self.note(stages={name: {"state": "finished", "seconds": round(time.time() - started, 1)}})

    def note(self, **entries: dict[str, Any]) -> None:
        """Add to the manifest: each entry is a dictionary that is merged into the one of its name (stages, sources)."""
        if not first_process():
            return
        path = self.folder / "manifest.json"
        with FileLock(self.folder / ".manifest.lock"):
            kept = {k: v for k, v in read_json(path).items() if k not in OWN_ENTRIES}  # others may have added to it
            merged = {name: {**kept.get(name, {}), **entry} for name, entry in entries.items()}
            self.manifest = {**{k: self.manifest[k] for k in OWN_ENTRIES}, **kept, **merged}
            write_json(path, self.manifest)


def open_run(
    profile: str | None,
    run: str | None,
    overrides: dict[str, Any] | None = None,
    redo: list[str] | None = None,
    inputs: list[str] | None = None,
    root: Path = Path("runs"),
    make: bool = True,
) -> Run:
    """The run folder `root`/`run` (by default named after the profile), made where it is missing, of `profile` or tiny.

    `overrides` add to those the run was made with. Without `make`, nothing is written. Raises UserError for a run of
    another profile, a foreign folder, or stages that are not 01 ... 06.
    """
    name = run or profile or "tiny"
    folder = _inside(root, name, "--run")
    manifest_path = folder / "manifest.json"
    manifest: dict[str, Any] = {}
    if manifest_path.exists():
        manifest = _read_manifest(manifest_path)
        if profile and manifest["profile"]["profile"] != profile:
            raise UserError(
                f"{folder} is a run of profile {manifest['profile']['profile']}, not {profile}; choose another --run."
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds files but no manifest.json, so it is no run; choose another --run.")
    given, earlier = overrides or {}, manifest.get("overrides", {})
    within = {key for key in earlier if any(key.startswith(f"{other}.") for other in given)}  # of what is replaced now
    merged = {**{key: value for key, value in earlier.items() if key not in within}, **given}
    fresh = profile or (name if name in profile_names() else "tiny")
    resolved = load_profile(manifest["profile"]["profile"] if manifest else fresh, merged)
    paths = {**manifest.get("inputs", {}), **_stage_paths(inputs or [])}
    manifest = {
        **manifest,  # what stages added stays
        "format": FORMAT,
        "profile": resolved.model_dump(),
        "overrides": merged,
        "inputs": paths,
        "versions": {n: _version(n) for n in PACKAGES},
        "hardware": _hardware(),
    }
    if make and not manifest_path.exists():
        write_json(manifest_path, manifest)  # later it is written when a stage accepts the settings
    return Run(
        folder, resolved, manifest, {_stage(s) for s in redo or []}, {k: Path(v["path"]) for k, v in paths.items()}
    )


def arm_stage(arm: str) -> str:
    """'03' or '04', by an arm's last step."""
    return "03" if arm.rpartition("-")[2].startswith("sft") else "04"


def trained_in(run_: Run, arm: str) -> str:
    """The stage, '03' or '04', whose folder holds a finished arm; where there is none, the one its name belongs to."""
    found = [s for s in ("03", "04") if (run_.stage_folder(s, arm) / "metrics.json").exists()]
    return found[0] if found else arm_stage(arm)


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path} was not written by this version of medvlt; choose another --run.")
    return manifest


def _inside(base: Path, name: str, option: str) -> Path:
    """The folder `name` directly inside `base`. Raises UserError for a name that leads elsewhere."""
    if not name or name.startswith(".") or Path(name).name != name:
        raise UserError(f"{option} {name}: give a plain name without slashes and leading dots; it becomes a folder.")
    return base / name


def _stage(name: str) -> str:
    if name not in STAGES:
        raise UserError(f"'{name}' is not a stage; stages are {', '.join(STAGES)}.")
    return name


def _stage_paths(pairs: list[str]) -> dict[str, dict]:
    """02=PATH to {'02': {path, hash}}; PATH is another run or its stage folder."""
    found = {}
    for pair in pairs:
        stage, sign, text = pair.partition("=")
        if not sign:
            raise UserError(f"--inputs {pair}: write it as STAGE=PATH, for example 02=runs/qlora-3b.")
        path = Path(text)
        path = path / STAGES[_stage(stage)] if (path / STAGES[_stage(stage)]).is_dir() else path
        if not path.is_dir():
            raise UserError(f"--inputs {pair}: there is no folder {path}; name a run or one of its stage folders.")
        files = sorted(p for p in path.rglob("*.parquet"))
        digest = hashlib.sha256("".join(file_hash(p) for p in files).encode()).hexdigest()
        found[stage] = {"path": str(path), "hash": digest}
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hardware() -> dict:
    import platform

    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
