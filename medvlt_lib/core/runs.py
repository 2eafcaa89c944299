"""Run folders: where every stage's files go, what they were made from, and how a killed stage continues.

A stage folder holds `stage.json` (settings and input hashes, written first), its own files, and `metrics.json`
(written last: its presence means that the work there finished). When settings or inputs differ from what a folder was
made with, the stage refuses and names the key and both values. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medvlt_lib.core.config import Profile, load_profile, profile_names
from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.files import disk_refused, file_hash, read_json, write_json

STAGES = {"01": "01_data", "02": "02_filtering", "03": "03_sft", "04": "04_grpo", "05": "05_eval", "06": "06_analysis"}
COMMANDS = {"01": "data", "02": "filter", "03": "sft", "04": "grpo", "05": "eval", "06": "report"}
# Settings that only bound memory or money, or refuse a row: whatever they are, the results are the same.
LIMITS = (
    "data.endpoint_prompt_price",
    "data.endpoint_completion_price",
    "data.endpoint_max_cost",
    "engine.batch_tokens",
    "engine.concurrency",
    "engine.prompt_price",
    "engine.completion_price",
    "engine.max_cost",
    "engine.gpu_memory",
    "sft.max_length",
    "grpo.max_prompt_length",
)
PACKAGES = ("medvlt", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate")


def once(
    folder: Path,
    work: Callable[[Path], dict],
    settings: dict[str, Any],
    inputs: dict[str, Path],
    mend: str,
    free: tuple[str, ...] = (),
) -> tuple[dict, bool]:
    """Do `work(folder) -> metrics` unless it is done already; returns the metrics and whether work was done now.

    When only `free` settings have changed, the work is done again from the parts that are on disk.

    `stage.json` keeps what the folder is made with. Raises UserError when that differs (`mend` ends the sentence), when
    the folder holds files that did not come from here, or when the disk is full.
    """
    mark = _mark(settings, inputs)
    torn = (
        [p for p in folder.rglob(".*") if p.is_file()]
        if (folder / "stage.json").exists()
        else [*folder.glob(".stage.json.*")]
    )
    held = {p.name for p in folder.glob("*") if p not in torn}  # torn: what a kill left of a write
    if "stage.json" in held and len(held) > 1:
        if _agrees(folder, mark, mend, free):
            held.discard("metrics.json")
    elif held - {"stage.json"}:
        raise UserError(
            f"{folder} holds files that this program did not put there; move them or choose another folder."
        )
    if "metrics.json" in held:
        return read_json(folder / "metrics.json"), False
    if first_process():
        for path in [*torn, folder / "metrics.json"]:
            path.unlink(missing_ok=True)
        write_json(folder / "stage.json", mark)
    try:
        metrics = work(folder)
    except Exception as error:
        if not isinstance(error, UserError) and disk_refused(error):
            raise UserError(
                f"cannot write in {folder} ({first_line(error)}); free some space, then the same command continues."
            ) from error
        raise
    if first_process():
        write_json(folder / "metrics.json", metrics)
    return metrics, True


def _mark(settings: dict[str, Any], inputs: dict[str, Path]) -> dict:
    return json.loads(json.dumps({"settings": settings, "inputs": {k: file_hash(p) for k, p in inputs.items()}}))


def _agrees(folder: Path, mark: dict, mend: str, free: tuple[str, ...]) -> set[str]:
    """The free settings that differ from those the folder was made with. Raises UserError when others differ."""
    before = read_json(folder / "stage.json")
    changed = {k for k in free if before["settings"].get(k) != mark["settings"].get(k)}
    _same(
        folder, {**before, "settings": {**before["settings"], **{k: mark["settings"][k] for k in changed}}}, mark, mend
    )
    return changed


def first_process() -> bool:
    """Whether this process writes: of several that accelerate launched, only the first does."""
    return os.environ.get("RANK", "0") == "0"


def _same(folder: Path, before: dict, now: dict, mend: str) -> None:
    for kind, noun in (("settings", ""), ("inputs", "input ")):
        for key in sorted({*before[kind], *now[kind]}):
            old, new = before[kind].get(key), now[kind].get(key)
            if old != new:
                raise UserError(
                    f"{folder} was made with {noun}{key} = {json.dumps(old)}, now it is {json.dumps(new)}; {mend}."
                )


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
        return base / arm if arm else base

    def require(self, stage: str, arm: str | None = None) -> Path:
        """A finished stage's folder. Raises UserError that says what to run when it is not finished."""
        folder = self.stage_folder(stage, arm)
        if not (folder / "metrics.json").exists():
            what = f"medvlt {COMMANDS[stage]} --run {self.folder.name}" + (f" --arm {arm}" if arm else "")
            raise UserError(f"{folder} is missing or unfinished; run `{what}` first.")
        return folder

    def settings(self, *sections: str, arm: str | None = None) -> dict[str, Any]:
        """Profile keys of some sections, flat, with an arm's own settings in force."""
        profile = self.profile.for_arm(arm) if arm else self.profile
        every = {f"{s}.{k}": v for s in sections for k, v in getattr(profile, s).model_dump().items()}
        return {k: v for k, v in every.items() if k not in LIMITS}

    def perform(
        self,
        stage: str,
        work: Callable[[Path], dict],
        settings: dict[str, Any],
        inputs: dict[str, Path],
        arm: str | None = None,
        free: tuple[str, ...] = (),
    ) -> dict:
        """Do a stage's `work(folder) -> metrics` once (see `once`), with its state and duration in the manifest.

        With --redo the old work is thrown away when the new work has finished, and put back when that failed.
        """
        folder = self.folder / STAGES[stage] / (arm or "")
        old = folder.with_name(f".{folder.name}.old")
        if stage in self.redo and folder.exists():
            if "RANK" in os.environ:
                raise UserError(
                    f"--redo cannot be combined with accelerate launch; delete {folder} and launch again without it."
                )
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        started = time.time()

        def noted(folder: Path) -> dict:
            self._note(stage, arm, {"state": "started"})
            return work(folder)

        mend = f"put it back, redo the stage with --redo {stage}, or choose another --run"
        try:
            metrics, fresh = once(folder, noted, settings, inputs, mend, free)
        except Exception:
            if old.exists():
                shutil.rmtree(folder, ignore_errors=True)
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
        if fresh:
            self._note(stage, arm, {"state": "finished", "seconds": round(time.time() - started, 1)})
        return metrics

    def partly(
        self,
        stage: str,
        work: Callable[[Path], None],
        settings: dict[str, Any],
        inputs: dict[str, Path],
        free: tuple[str, ...] = (),
    ) -> None:
        """One machine's share of a stage: checked and marked as in `perform`, but not finished, and nothing is cleared away,
        since other machines may be writing there. Raises UserError as `perform`."""
        folder = self.folder / STAGES[stage]
        mark = _mark(settings, inputs)
        if (folder / "stage.json").exists():
            _agrees(folder, mark, f"put it back, redo the stage with --redo {stage}, or choose another --run", free)
        else:
            write_json(folder / "stage.json", mark)
            self._note(stage, None, {"state": "started"})
        work(folder)

    def _note(self, stage: str, arm: str | None, state: dict) -> None:
        if not first_process():
            return
        path = self.folder / "manifest.json"
        done = read_json(path)["stages"]  # another stage of this run may have finished meanwhile
        self.manifest["stages"] = {**done, (f"{STAGES[stage]}/{arm}" if arm else STAGES[stage]): state}
        write_json(path, self.manifest)


def open_run(
    profile: str | None,
    run: str | None,
    overrides: dict[str, Any] | None = None,
    redo: list[str] | None = None,
    inputs: list[str] | None = None,
    root: Path = Path("runs"),
) -> Run:
    """The run folder `root`/`run` (by default named after the profile), made when it is not there yet, of `profile` or tiny.

    `overrides` add to those the run was made with. Raises UserError for a run of another profile, a foreign folder, or
    stages that are not 01 ... 06.
    """
    name = run or profile or "tiny"
    folder = root / name
    manifest_path = folder / "manifest.json"
    manifest: dict[str, Any] = {}
    if manifest_path.exists():
        manifest = read_json(manifest_path)
        if profile and manifest["profile"]["profile"] != profile:
            raise UserError(
                f"{folder} is a run of profile {manifest['profile']['profile']}, not {profile}; choose another --run."
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds files but no manifest.json, so it is no run; choose another --run.")
    merged = {**manifest.get("overrides", {}), **(overrides or {})}
    fresh = profile or (name if name in profile_names() else "tiny")
    resolved = load_profile(manifest["profile"]["profile"] if manifest else fresh, merged)
    paths = {**manifest.get("inputs", {}), **_stage_paths(inputs or [])}
    manifest = {
        "profile": resolved.model_dump(),
        "overrides": merged,
        "inputs": paths,
        "versions": {n: _version(n) for n in PACKAGES},
        "hardware": _hardware(),
        "stages": manifest.get("stages", {}),
    }
    if not manifest_path.exists():
        write_json(manifest_path, manifest)  # later it is written when a stage accepts the settings
    return Run(
        folder, resolved, manifest, {_stage(s) for s in redo or []}, {k: Path(v["path"]) for k, v in paths.items()}
    )


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
