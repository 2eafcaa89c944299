"""The small finished run that ships with the package, for notebooks that start in the middle."""

from __future__ import annotations

import shutil
from pathlib import Path

from medvlt_lib.core.runs import STAGES, open_run
from medvlt_lib.course.lesson import REFERENCE

# What the reference run changes on `tiny`, so that it is small: fewer questions, and adapters instead of full weights.
REFERENCE_SETTINGS = {
    "data.train_text_size": 160, "data.train_image_size": 40, "data.validation_size": 20, "data.test_size": 200,
    "model.lora": {"rank": 8, "alpha": 16, "dropout": 0.0}, "sft.learning_rate": 1.0e-3, "grpo.learning_rate": 1.0e-3,
}  # fmt: skip


def build_reference(folder: Path = REFERENCE) -> None:
    """Run the small reference run stage by stage in a temporary folder and keep what later notebooks start from."""
    import tempfile

    from medvlt_lib.stages import data, evaluate, filtering, grpo, report, sft

    with tempfile.TemporaryDirectory() as temporary:
        run = open_run("tiny", "reference", REFERENCE_SETTINGS, root=Path(temporary))
        for stage in (data, filtering, sft, grpo, evaluate, report):
            stage.run(run)
        shutil.rmtree(folder, ignore_errors=True)
        left_out = shutil.ignore_patterns(".*", "rollouts", "report.html", "figures")
        for name in [n for n in STAGES.values() if (run.folder / n).exists()]:
            shutil.copytree(run.folder / name, folder / name, ignore=left_out)
        shutil.copy(run.folder / "manifest.json", folder / "manifest.json")
