"""Workflows, hooks and templates: actions are pinned, no lane is skipped in silence, tools are those of the locks."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTION = ROOT / ".github" / "actions" / "setup" / "action.yml"


def triggers(workflow: dict) -> dict:
    return workflow[True]  # YAML reads the key `on` as true


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION], ids=lambda p: p.stem)
def test_actions_are_pinned_by_commit_with_their_version_beside_it(path):
    used = re.findall(r"uses: (\S+)(.*)", path.read_text())
    assert used
    for action, rest in used:
        if action.startswith("./"):
            assert (ROOT / action / "action.yml").is_file()
        else:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) and re.fullmatch(r" # v\d+\.\d+\.\d+", rest), (
                action
            )


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_lane_that_does_not_run_is_a_failure(path):
    """A lane without a condition always runs, unless one that it waits for fails; all-green looks at every one."""
    jobs = yaml.safe_load(path.read_text())["jobs"]
    lanes = {name for name in jobs if name != "all-green"}
    assert all("if" not in jobs[name] and "needs" not in jobs[name] for name in lanes)
    if len(lanes) > 1:
        gate = jobs["all-green"]
        assert gate["if"] == "always()" and set(gate["needs"]) == lanes
        assert set(re.findall(r"needs\.([\w-]+)\.result", gate["steps"][0]["run"])) == lanes


def test_what_runs_when():
    ci, nightly, pages, weekly = (yaml.safe_load(path.read_text()) for path in WORKFLOWS)
    assert {"pull_request", "push"} <= set(triggers(ci)) and "schedule" not in triggers(ci)
    assert [s["cron"].split()[4] for w in (nightly, weekly) for s in triggers(w)["schedule"]] == ["*", "6"]
    commands = {
        w["name"]: " ".join(step.get("run", "") for job in w["jobs"].values() for step in job["steps"])
        for w in (ci, nightly, weekly)
    }
    assert all(f"make {target}" in commands["ci"] for target in ("lint", "test ", "test-processes"))
    assert "medvlt course" in commands["nightly"] and "make test-all" in commands["weekly"]
    assert all(f"make test-{lane}" in commands["weekly"] for lane in ("vllm-all", "real", "browser"))
    assert [step["run"].split()[1] for step in pages["jobs"]["pages"]["steps"] if "run" in step] == ["course", "site"]
    local = [line.split()[1] for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    assert local == ["clean", "setup", "lint", "test", "test-processes", "test-vllm", "course"]


def test_every_test_runs_in_one_of_the_targets():
    """`make test` and `make test-processes` leave out the slow ones alone, which `make test-all` runs, and `make
    test-vllm` those of tests/vllm, which `make test-vllm-all` runs; `make test-real` leaves out none of tests/real.
    Those of tests/browser need MEDVLT_BROWSER."""
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r'-m "([^"]+)"', makefile) == [
        "not slow and not processes", "processes and not slow", "not slow",
    ]  # fmt: skip
    assert "MEDVLT_BROWSER=1 $(BIN)/python -m pytest -q tests/browser $(PYTEST_ARGS)" in makefile
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert [marker.split(":")[0] for marker in options["markers"]] == ["slow", "processes"]


def test_hooks_use_the_tools_of_the_lock():
    """So the versions stand in requirements/ alone, and `make lint` and the hooks agree."""
    [repo] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    hooks = {hook["id"]: hook["entry"] for hook in repo["hooks"]}
    assert all(entry.startswith(".venv/bin/") for entry in hooks.values())
    assert list(hooks) == ["ruff", "ruff-format", "nbstripout", "codespell", "check-added-large-files"]
    stripped = re.search(r"\.venv/bin/nbstripout.*(?= notebooks)", (ROOT / "CONTRIBUTING.md").read_text())
    assert hooks["nbstripout"] == stripped.group()


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.stem)
def test_files_for_the_forge_are_readable(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)
