"""Sentences made from verdicts: they turn round with the verdicts, and say what was not run."""

from dataclasses import replace
from pathlib import Path

import pytest

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import write_json
from medvlt_lib.study.findings import CANNOT_TELL, DOES_NOT, HOLDS, NOT_RUN, Verdict, as_json, kept_verdicts
from medvlt_lib.study.results import SHIPPED, write_result
from medvlt_lib.study.sentences import carries_over, verdict_line
from medvlt_lib.study.tables import write_findings
from tests.study.made_up import made_up_result


def habit(folder: Path, **changes: Verdict) -> str:
    """The sentence, with some verdicts of the shipped study changed, by their first arm."""
    verdicts = kept_verdicts(SHIPPED)["habit"]
    chosen = [
        changes.get(v.claim["a"]["arm"].replace(".", "_"), v) if v.claim["b"]["arm"] == "base" else v for v in verdicts
    ]
    write_json(folder / "findings.json", as_json({"habit": chosen}))
    return carries_over(folder)


def changed(name: str, verdict: str, mean: float = 0.0) -> Verdict:
    [claim] = [
        v.claim
        for v in kept_verdicts(SHIPPED)["habit"]
        if (v.claim["a"]["arm"], v.claim["b"]["arm"], v.claim["a"].get("measure")) == (name, "base", "works")
    ]
    if verdict == NOT_RUN:
        return Verdict(claim, verdict, 1)
    return Verdict(claim, verdict, 3, (mean,) * 3, mean, mean - 0.01, mean + 0.01, 0.01, 0.02, 0.05)


def test_the_sentence_turns_round_with_the_verdict(tmp_path):
    more = habit(tmp_path, rl_text=changed("rl_text", HOLDS, 0.2))
    assert "rises by 20.0 points (95 % interval +19.0 to +21.0, 3 seeds), so it carries over here;" in more
    less = habit(tmp_path, rl_text=changed("rl_text", DOES_NOT, -0.2))
    assert "falls by 20.0 points (95 % interval -21.0 to -19.0, 3 seeds), so it does not carry over here" in less
    lora = habit(tmp_path, rl_text_lora=changed("rl_text.lora", CANNOT_TELL, 0.04))
    assert "with LoRA it rises by 4.0 points (95 % interval +3.0 to +5.0, 3 seeds), so these runs cannot tell" in lora
    nothing = habit(tmp_path, rl_text_lora=changed("rl_text.lora", NOT_RUN))
    assert "with LoRA it was not measured (medvlt study habit)." in nothing


@pytest.mark.parametrize(("share", "words"), [(0.2, "20.0 points more than"), (-0.2, "20.0 points less than")])
def test_rl_is_set_beside_sft_with_the_right_sign(tmp_path, share, words):
    verdicts = kept_verdicts(SHIPPED)["habit"]
    [place] = [i for i, v in enumerate(verdicts) if v.claim["b"]["arm"] == "sft_text"]
    verdicts[place] = replace(changed("rl_text", HOLDS, share), claim=verdicts[place].claim)
    write_json(tmp_path / "findings.json", as_json({"habit": verdicts}))
    assert f"With all weights, RL changes it by {words} SFT on text does" in carries_over(tmp_path)


def test_a_verdict_as_a_line():
    assert verdict_line(changed("rl_text", HOLDS, 0.2)).endswith(
        ": holds here, +20.0 points (95 % interval +19.0 to +21.0, 3 seeds)"
    )
    assert verdict_line(changed("rl_text", NOT_RUN)).endswith(": not run (1 of 3 seeds)")


def test_kept_verdicts_are_those_that_were_judged(tmp_path):
    for seed in range(3):
        for label, share in (("rl_text", 0.8), ("sft_text.foreign", 0.4)):
            result, rows = made_up_result(label, seed, share)
            write_result(tmp_path, result | {"training": {}}, rows)
    write_findings(tmp_path)
    first, *others = kept_verdicts(tmp_path)["recipes"]
    assert first.verdict == HOLDS and first.mean == pytest.approx(0.4, abs=0.03) and len(first.differences) == 3
    assert {v.verdict for v in others} == {NOT_RUN} and all(v.mean != v.mean for v in others)


def test_without_findings_the_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"findings\.json"):
        carries_over(tmp_path)
