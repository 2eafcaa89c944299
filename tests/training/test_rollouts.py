"""The samples of single GRPO steps become one file, whatever line ends their texts hold."""

import json

from medvlt_lib.core.files import read_jsonl
from medvlt_lib.training.rollouts import gather_samples, latest_sample


def test_samples_with_odd_line_ends_are_gathered_twice(tmp_path):
    def sample(step):
        return {"step": step, "prompt": "?", "completions": ["first\u2028second", "third\u0085fourth"]}

    for steps in ((3, 1), (2,)):  # the second time beside what was gathered before
        (tmp_path / "samples").mkdir()
        for step in steps:
            text = json.dumps(sample(step), ensure_ascii=False) + "\n"
            (tmp_path / "samples" / f"{step:06d}.json").write_text(text, encoding="utf-8")
        gather_samples(tmp_path)
    assert list(read_jsonl(tmp_path / "samples.jsonl")) == [sample(1), sample(2), sample(3)]


def test_a_file_that_a_kill_left_half_written_is_no_sample(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / ".000002.json.15b00719.json").write_text("")  # as `atomic_write` names it
    assert latest_sample(tmp_path) is None
    (tmp_path / "samples" / "000001.json").write_text('{"step": 1}\n')
    assert latest_sample(tmp_path) == {"step": 1}
    gather_samples(tmp_path)
    assert list(read_jsonl(tmp_path / "samples.jsonl")) == [{"step": 1}] and not (tmp_path / "samples").exists()
