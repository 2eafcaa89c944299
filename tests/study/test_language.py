"""Perplexity on plain language, against transformers' own loss; its claims; and two models' results in one folder."""

import math

import pytest
import torch

from medvlt_lib.core.config import load_profile
from medvlt_lib.models import supervised
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.study.findings import CANNOT_TELL, DOES_NOT, HOLDS, NOT_RUN, beside, by_label, claims_file, judged
from medvlt_lib.study.language import TEXT, language_of
from medvlt_lib.study.measures import value
from medvlt_lib.study.results import results_in, write_result
from medvlt_lib.study.running import run_cells
from medvlt_lib.study.tables import arms_table, beside_table, findings_markdown, findings_table
from tests.study.made_up import made_up_result
from tests.study.test_running import small

PASSAGES = ["The last train had left, and the next one would not go before five.", "Learning to ride is trust."]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "passages.txt"
    path.write_text("\n".join(PASSAGES) + "\n")
    return path


def by_transformers(model, processor) -> float:
    """exp of the mean loss of every token but each passage's first, by the loss that transformers computes."""
    total, count = 0.0, 0
    for passage in PASSAGES:
        ids = processor.tokenizer(passage, return_tensors="pt").input_ids
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return math.exp(total / count)


def test_perplexity_is_that_of_transformers_loss(text, monkeypatch):
    """And the logits of at most ROWS tokens are in memory at once."""
    monkeypatch.setattr(supervised, "ROWS", 7)
    profile, rows = load_profile("tiny", {"model.name": "phantom:small"}), []
    model, processor = load_policy(profile), profile_processor(profile)
    truth, cross_entropy = by_transformers(model, processor), torch.nn.functional.cross_entropy

    def watched(logits, targets, **how):
        rows.append(len(logits))
        return cross_entropy(logits, targets, **how)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", watched)
    found = language_of(profile, None, text)
    assert found["perplexity"] == pytest.approx(truth, rel=1e-5) and truth > 2
    assert found["tokens"] == sum(len(processor.tokenizer(p).input_ids) - 1 for p in PASSAGES) == sum(rows)
    assert max(rows) == 7


def test_the_perplexity_of_an_arm_is_that_of_its_adapter(text, tmp_path):
    profile = load_profile("tiny", {"model.name": "phantom:small", "model.lora": {"rank": 4, "alpha": 8}})
    model = load_policy(profile, trainable=True)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
    model.save_pretrained(tmp_path / "checkpoint")
    found = language_of(profile, tmp_path / "checkpoint", text)["perplexity"]
    assert found == pytest.approx(by_transformers(model.eval(), profile_processor(profile)), rel=1e-4)
    assert abs(math.log(found / language_of(profile, None, text)["perplexity"])) > 0.01


def test_the_text_is_everyday_prose():
    passages = TEXT.read_text(encoding="utf-8").splitlines()
    words = [word.strip(".,;:?").lower() for passage in passages for word in passage.split()]
    assert len(passages) == 10 and 1500 <= len(words) <= 2500
    assert not {"patient", "doctor", "hospital", "disease", "film", "scan", "lung", "score", "answer"} & set(words)


def test_a_study_that_asks_for_language_gets_it(tmp_path):
    run_cells(small("base", looks=("greedy",)), tmp_path / "results", tmp_path / "runs")
    [plain] = results_in(tmp_path / "results").values()
    assert "language" not in plain
    run_cells(small("base", looks=("greedy", "language")), tmp_path / "results", tmp_path / "runs")
    [result] = results_in(tmp_path / "results").values()
    assert result["language"] == language_of(load_profile("tiny", {"model.name": "phantom:small"}), None)
    assert result["right"] == plain["right"] and result["looks"] == ["greedy", "language"]


def with_language(folder, perplexities: dict[str, list[float]]) -> None:
    """Made-up results of smol: by arm, the perplexity of each seed."""
    for label, own in perplexities.items():
        for seed, perplexity in enumerate(own):
            result, rows = made_up_result(label, seed, 0.5, profile="smol")
            write_result(folder, {**result, "language": {"perplexity": perplexity}}, rows)


def test_verdicts_on_perplexity_by_hand(tmp_path):
    """Base 20; RL 1 % above it, SFT in a foreign style 40 %, and with RL 10 % above the base the claim turns round."""
    spread = [1.0, 1.001, 0.999]
    arms = {"base": 20.0, "rl_text": 20.2, "rl_image": 22.0, "sft_text.foreign": 28.0, "sft_text": 20.2}
    with_language(tmp_path, {label: [x * own for x in spread] for label, own in arms.items()})
    found = {v.claim["a"]["arm"] + " " + v.claim["b"]["arm"]: v for v in judged(["pretrained"], tmp_path)["pretrained"]
             if v.claim["a"].get("measure") == "perplexity"}  # fmt: skip
    assert found["sft_text.foreign rl_text"].verdict == HOLDS
    assert found["sft_text.foreign rl_text"].mean == pytest.approx(math.log(28 / 20.2))
    assert found["sft_text rl_text"].verdict == DOES_NOT
    assert found["rl_text base"].verdict == HOLDS and found["rl_image base"].verdict == DOES_NOT
    table = arms_table("pretrained", by_label(tmp_path, "smol"), tmp_path)
    assert [row[-2] for row in table[:2]] == ["perplexity", "20.00"]
    assert "a point is about 1 %" in findings_table("pretrained", judged(["pretrained"], tmp_path)["pretrained"])[1]
    result, _ = made_up_result("base", 0, 0.5)
    assert value(tmp_path, {**result, "right": {}}, [], "perplexity") is None


def test_both_models_stand_beside_each_other(tmp_path):
    """The same arms in one folder: for smol RL on text is ahead of the foreign teacher, for the tiny model behind."""
    for seed in range(3):
        for label, smol, tiny in (("rl_text", 0.8, 0.4), ("sft_text.foreign", 0.4, 0.8), ("base", 0.5, 0.5)):
            for profile, share in (("smol", smol), ("tiny", tiny)):
                result, rows = made_up_result(label, seed, share, profile=profile)
                write_result(tmp_path, {**result, "training": {}}, rows)
    verdicts = judged(["pretrained"], tmp_path)["pretrained"]
    [head, first, *others] = beside_table("pretrained", verdicts, tmp_path)
    assert head[1].startswith("smol") and head[3].startswith("tiny")
    assert (first[2], first[4], first[5]) == (HOLDS, DOES_NOT, "recipes")
    assert first[1].startswith("+4") or first[1].startswith("+39")
    assert first[3].startswith("-4") or first[3].startswith("-39")
    assert {row[5] for row in others} == {"recipes", "terse"}
    assert beside_table("recipes", judged(["recipes"], tmp_path)["recipes"], tmp_path) == []
    page = findings_markdown(judged(["recipes", "pretrained"], tmp_path), tmp_path)
    assert page.count("tiny's study") == 1 and "18 runs" in page


def test_the_claims_beside_are_those_of_recipes_and_terse():
    shared = [other for other in beside("pretrained", TEXT.parent) if other]
    assert len(shared) == 8 and {v.verdict for _, v in shared} == {NOT_RUN}
    own = {claim["claim"] for claim in claims_file()["claims"]["pretrained"]}
    assert {v.claim["claim"] for _, v in shared} <= own
    assert CANNOT_TELL not in {v.verdict for _, v in shared}
