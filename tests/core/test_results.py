"""What is said of evaluated arms."""

from medvlt_lib.core.files import write_json
from medvlt_lib.core.results import checkpoints
from medvlt_lib.core.runs import open_run


def test_the_checkpoint_of_every_validated_arm_is_named(tmp_path):
    run = open_run("tiny", "r", root=tmp_path)
    for folder, step in (("03_sft/sft_text", 20), ("04_grpo/rl_text", 30)):
        write_json(
            run.folder / folder / "metrics.json",
            {"checkpoint_rule": "the rule", "checkpoint_step": step, "steps": 40, "best_step": 10},
        )
    said = checkpoints(run, ["base", "sft_text", "rl_text"])
    assert "sft_text: step 20 of 40 (best validated: 10); rl_text: step 30 of 40" in said
    assert checkpoints(run, ["base"]) == ""
