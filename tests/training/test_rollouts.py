"""The samples of single GRPO steps become one file, whatever line ends their texts hold."""

import json

from medvlt_lib.core.files import read_jsonl
from medvlt_lib.training.rollouts import gather_samples


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
