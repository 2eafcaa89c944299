"""What a notebook shows while GRPO trains."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

from medvlt_lib.core import plots
from medvlt_lib.core.config import load_profile
from medvlt_lib.core.files import read_jsonl
from medvlt_lib.core.records import write_questions
from medvlt_lib.course import lesson, live
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.stages import grpo
from medvlt_lib.training.monitor import grpo_panels, watched_panels

SMALL = {
    "model.name": "phantom:small", "grpo.prompts": 2, "grpo.group_size": 4, "grpo.micro_batch": 8, "grpo.max_steps": 6,
    "grpo.max_completion_length": 48, "grpo.reward": {"published": 1.0, "overlong": 0.1},
}  # fmt: skip


def test_curves_and_the_latest_group_are_redrawn_in_place(tmp_path):
    """In IPython itself: at steps 5 and 6 (the last), each time the figure and the group."""
    write_questions(make_questions("nodule_count", "train", 4, seed=3), tmp_path / "data.parquet")
    shell = InteractiveShell.instance()
    shown = []
    publish = shell.display_pub.publish

    def recorded(data, *args, update=False, transient=None, **kwargs):
        shown.append((update, (transient or {}).get("display_id"), data))

    shell.display_pub.publish = recorded
    try:
        profile = load_profile("tiny", SMALL)
        grpo.train(profile, {"data": tmp_path / "data.parquet"}, tmp_path / "arm", [lesson.live_grpo()])
    finally:
        shell.display_pub.publish = publish
        InteractiveShell.clear_instance()
    assert [update for update, _, _ in shown] == [False, False, True, True]
    assert [place for _, place, _ in shown[:2]] == [place for _, place, _ in shown[2:]]
    samples = list(read_jsonl(tmp_path / "arm" / "samples.jsonl"))
    assert [sample["step"] for sample in samples] == [0, 1, 2, 3, 4, 5]
    assert shown[1][2]["text/html"] == live.sample_html(samples[4])
    assert shown[3][2]["text/html"] == live.sample_html(samples[5])


def test_parts_of_the_reward_have_a_line_each():
    row = {"reward": 0.5, "rewards/published/mean": 0.6, "rewards/overlong/mean": -1.0, "entropy": 0.1}
    panels = grpo_panels([row, row])
    assert list(panels["mean reward"].values()) == ["weighted sum", "published", "overlong"]
    assert grpo_panels([{"reward": 0.5, "rewards/published/mean": 0.5}])["mean reward"] == {"reward": "reward"}
    drawn = plots.panels([row, row], panels, total=9).axes
    assert [len(axis.lines) for axis in drawn] == [3, 2, 2, 2]  # a single line stands beside its values in grey
    assert [list(line.get_ydata()) for line in drawn[0].lines] == [[0.5, 0.5], [0.6, 0.6], [-1.0, -1.0]]
    assert drawn[0].get_xlim() == (0, 9)


def test_the_live_view_has_a_panel_for_whatever_the_log_has():
    row = {"reward": 0.5, "rewards/published/group_std": 0.4, "grad_norm": 0.1, "truncated": 0.0, "no_answer": 0.2}
    row["kl"] = 0
    before = {"validation_accuracy": 0.5, "step": 0}
    assert list(watched_panels([before, row])) == [
        *grpo_panels([row]), "deviation of the reward in a group", "share of completions", "gradient norm",
    ]  # fmt: skip
    more = watched_panels([before, {**row, "kl": 0.1, "ratio/max": 1.2, "sampler/effective_share": 0.9}])
    assert more["KL, nats a token"] == {"kl": "mean"} and len(more) == 10
    assert more["deviation of the reward in a group"] == {"rewards/published/group_std": "published"}


SAMPLE = {
    "step": 3, "prompt": "Think.\n\nQuestion: 1 < 2?", "pictures": ["QUJD"], "answer": "B",
    "completions": ["<answer> B </answer>", "<answer> A </answer>"], "rewards": [1.0, 0.25], "correct": [True, False],
}  # fmt: skip


def test_a_sample_is_coloured_by_right_and_wrong():
    page = live.sample_html(SAMPLE)
    right, wrong = page.index("&lt;answer&gt; B"), page.index("&lt;answer&gt; A")
    assert page.index(plots.GREEN) < page.index("reward 1<") < right < page.index(plots.RED) < wrong
    assert "data:image/jpeg;base64,QUJD" in page and "1 &lt; 2?" in page and "Think." not in page


@pytest.mark.parametrize("missing", [("pictures", "answer", "rewards", "correct"), ("pictures",)])
def test_samples_of_older_runs_are_shown(missing):
    page = live.sample_html({key: value for key, value in SAMPLE.items() if key not in missing})
    assert "&lt;answer&gt; A" in page and "<img" not in page
    assert (plots.GREY in page) == ("correct" in missing)
