"""The shipped tiny models: they load with plain transformers, name no class of ours, and answer in form."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.core.prompts import MEDVLTHINKER_INSTRUCTION, messages, prompt_text
from medvlt_lib.core.variants import grey
from medvlt_lib.grading.grade import grade
from medvlt_lib.models.loading import load_model, shipped
from medvlt_lib.models.processor import load_processor, torchvision_loads
from medvlt_lib.phantom.questions import FAMILIES, make_questions
from medvlt_lib.phantom.text_family import TextFamily
from medvlt_lib.rollout.engine import Prompt, Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.tiny.architecture import SIZES, SPECIAL, build_tokenizer
from medvlt_lib.tiny.lessons import RECIPES, Lessons


@pytest.fixture(scope="module")
def engine():
    return TransformersEngine(load_model(shipped("base")), load_processor(shipped("base")))


def greedy(engine, questions):
    return list(engine.generate(prompts_of(questions), Sampling(temperature=0)))


@pytest.mark.parametrize("size", SIZES)
def test_folder_names_only_public_classes(size):
    folder = shipped(size)
    named = " ".join(
        p.read_text()
        for p in folder.glob("*.json")
        if p.name not in ("tokenizer.json", "card.json", "training_log.json")
    )
    for public in (
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen2_5_VLProcessor",
        "Qwen2VLImageProcessor",
        "Qwen2VLVideoProcessor",
    ):
        assert f'"{public}"' in named
    for ours in ("Pil", "medvlt", "auto_map"):
        assert ours not in named


@pytest.mark.parametrize("size", SIZES)
def test_config_suits_other_engines(size):
    config = json.loads((shipped(size) / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    assert text["hidden_size"] // text["num_attention_heads"] == 64
    assert vision["hidden_size"] // vision["num_heads"] == 64
    assert text["max_position_embeddings"] >= 4096
    model = load_model(shipped(size))
    weights = sum(p.numel() for p in model.parameters())
    assert {"small": 0.7e6 < weights < 1.5e6, "base": 3e6 < weights < 4e6}[size]


def test_weights_are_bf16_and_small():
    sizes = [p.stat().st_size for size in SIZES for p in shipped(size).glob("*.safetensors")]
    assert sum(sizes) <= 12e6
    from safetensors import safe_open

    with safe_open(shipped("small") / "model.safetensors", "pt") as file:
        assert {file.get_tensor(k).dtype for k in file.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_tokenizer_is_the_one_the_code_builds_and_is_lossless():
    tokenizer, built = load_processor(shipped("base")).tokenizer, build_tokenizer()
    assert tokenizer.get_vocab() == built.get_vocab()
    for question in make_questions("all", "test", 16):
        assert tokenizer(prompt_text(question)).input_ids == built(prompt_text(question)).input_ids
    for text in ("A 71-year-old man, naïve to drugs: 37.5 °C ✓\n\nB. none", "<think> x </think>\n<answer> B </answer>"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer(MEDVLTHINKER_INSTRUCTION).input_ids) <= 5
    assert all(len(tokenizer(token).input_ids) == 1 for token in SPECIAL)


class Zebra(TextFamily):
    """A family that came after the shipped models."""

    name, reference, values = "zebra_score", "nobody 2000", tuple(range(8))

    def draw(self, rng, level, aim):
        return {"zebras": aim, "herd": rng.getrandbits(20)}

    def rule(self, f):
        return f["zebras"]

    def stem(self, f):
        return f"Herd {f['herd']} with {f['zebras']} zebras. Zebras?"

    def steps(self, f):
        return [f"total {f['zebras']}"]


def test_a_new_family_leaves_the_shipped_models_as_they_were_taught(monkeypatch):
    processor = load_processor(shipped("base"))
    lessons = Lessons(processor, replace(RECIPES["base"], lookup_steps=1))
    before = [lessons.batch(step) for step in (0, 1)]
    monkeypatch.setitem(FAMILIES, Zebra.name, Zebra())
    assert any("zebras" in q.question for q in make_questions("text", "train", len(FAMILIES)))
    assert build_tokenizer().get_vocab() == processor.tokenizer.get_vocab()
    for one, other in zip(before, (lessons.batch(step) for step in (0, 1)), strict=True):
        for part, same in zip(one, other, strict=True):
            assert all(torch.equal(part[name], same[name]) for name in part)


def test_chat_template_has_qwens_layout():
    processor = load_processor(shipped("base"))
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|vision_end|>Hi<|im_end|>\n<|im_start|>assistant\n"
    )
    own = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes"},
    ]
    assert processor.apply_chat_template(own, tokenize=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nYes<|im_end|>\n"
    )


def test_processor_without_torchvision_survives_a_round_trip(tmp_path):
    processor = load_processor(shipped("base"), without_torchvision=True)
    processor.save_pretrained(tmp_path)
    again = load_processor(tmp_path, without_torchvision=True)
    question = make_questions("bleed_type", "test", 1)[0]
    text = processor.apply_chat_template(messages(question), tokenize=False, add_generation_prompt=True)
    image = load_image(question.images[0])
    one, two = (p(text=[text], images=[image], return_tensors="pt") for p in (processor, again))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert (one["input_ids"] == processor.image_token_id).sum() == 16


@pytest.mark.skipif(
    not torchvision_loads(), reason="not run: torchvision does not load beside this torch (a CPU build)"
)
def test_auto_processor_gives_the_same_ids_and_pixels():
    from transformers import AutoProcessor

    question = make_questions("bleed_type", "test", 1)[0]
    image = load_image(question.images[0])
    outputs = []
    for processor in (
        AutoProcessor.from_pretrained(shipped("base")),
        load_processor(shipped("base"), without_torchvision=True),
    ):
        text = processor.apply_chat_template(messages(question), tokenize=False, add_generation_prompt=True)
        outputs.append(processor(text=[text], images=[image], return_tensors="pt"))
    assert torch.equal(outputs[0]["input_ids"], outputs[1]["input_ids"])
    assert torch.allclose(outputs[0]["pixel_values"], outputs[1]["pixel_values"], atol=1e-5)


def test_answers_are_in_form_and_better_than_chance(engine):
    questions = make_questions("all", "validation", 160, seed=4)
    verdicts = [grade(c.text, q) for c, q in zip(greedy(engine, questions), questions, strict=True)]
    assert sum(v.well_formed for v in verdicts) >= 0.9 * len(verdicts)
    chance = sum(1 / len(q.options) for q in questions) / len(questions)
    assert sum(v.correct for v in verdicts) / len(verdicts) > chance + 0.1


def test_the_picture_matters(engine):
    questions = make_questions("bleed_type,lesion_site", "validation", 80, seed=4)
    seen, blind = (
        sum(grade(c.text, q).correct for c, q in zip(greedy(engine, qs), questions, strict=True))
        for qs in (questions, [grey(q) for q in questions])
    )
    assert seen > blind + 10


@pytest.mark.parametrize("count", [64, pytest.param(200, marks=pytest.mark.slow)])
def test_engine_equals_transformers_generate(engine, count):
    """Mixed questions, token by token."""
    questions = make_questions("all", "validation", count)
    assert len(questions) == count
    for done, prompt in zip(greedy(engine, questions), prompts_of(questions), strict=True):
        inputs = engine.inputs([prompt])
        ids = engine.model.generate(**inputs, max_new_tokens=160, do_sample=False, suppress_tokens=engine.suppressed)
        assert done.token_ids == ids[0, inputs["input_ids"].shape[1] :].tolist()


def test_sampling_depends_on_neither_batch_size_nor_order_and_seeds_differ(engine):
    prompts = prompts_of(make_questions("curb65,lesion_site,nodule_count", "validation", 12))
    sampling = Sampling(n=3, temperature=1.0, seed=5)
    whole = list(engine.generate(prompts, sampling))
    assert [(c.question_id, c.sample) for c in whole] == [(p.id, k) for p in prompts for k in range(3)]
    texts = {(c.question_id, c.sample): c.text for c in whole}
    for budget in (1, 500, 1000, 3000):  # one row at a time; samples of one prompt apart; several prompts
        other = TransformersEngine(engine.model, engine.processor, budget)
        done = list(other.generate(list(reversed(prompts)), sampling))
        assert {(c.question_id, c.sample): c.text for c in done} == texts
        assert [(c.question_id, c.sample) for c in done] == [(p.id, k) for p in reversed(prompts) for k in range(3)]
    later = list(engine.generate(prompts, Sampling(n=1, temperature=1.0, seed=5, first=2)))
    assert [c.text for c in later] == [texts[p.id, 2] for p in prompts]
    other = list(engine.generate(prompts, Sampling(n=3, temperature=1.0, seed=6)))
    assert [c.text for c in whole] != [c.text for c in other]


def test_batches_stay_within_the_budget(engine, monkeypatch):
    prompts = prompts_of(make_questions("curb65,lesion_site", "validation", 20))
    sizes = []
    real = TransformersEngine._batch

    def noted(self, jobs, sampling):
        sizes.append((sum(j.samples for j in jobs), max(j.prompt_length for j in jobs)))
        done = real(self, jobs, sampling)
        assert [len(done[0].prompt_ids)] == [jobs[0].prompt_length]  # the length that was planned with is the prompt's
        return done

    monkeypatch.setattr(TransformersEngine, "_batch", noted)
    list(TransformersEngine(engine.model, engine.processor, 2000).generate(prompts, Sampling(3, 1.0, 40)))
    assert all(rows * (longest + 40) <= 2000 for rows, longest in sizes)
    assert max(rows for rows, _ in sizes) > 9


def test_when_memory_runs_out_the_budget_is_halved(engine, monkeypatch, capsys):
    prompts = prompts_of(make_questions("curb65", "validation", 8))
    sampling = Sampling(4, 1.0, 40, seed=2)
    expected = [c.text for c in engine.generate(prompts, sampling)]
    small = TransformersEngine(engine.model, engine.processor)
    real = small._batch

    def full(jobs, sampling):
        if sum(j.samples for j in jobs) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(jobs, sampling)

    monkeypatch.setattr(small, "_batch", full)
    assert [c.text for c in small.generate(prompts, sampling)] == expected
    assert "memory ran out with 32 answers at once; going on with engine.batch_tokens" in capsys.readouterr().err
    monkeypatch.setattr(small, "_batch", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(UserError, match=r"memory runs out on one answer of .* tokens; lower"):
        list(small.generate(prompts, sampling))


def test_logprobs_are_the_models_own(engine):
    prompt = prompts_of(make_questions("lesion_site", "validation", 1))[0]
    done = next(iter(engine.generate([prompt], Sampling(temperature=1.0, seed=1))))
    inputs = engine.inputs([prompt])
    answer = torch.tensor([done.token_ids])
    ids = torch.cat([inputs["input_ids"], answer], dim=1)
    zeros = torch.zeros_like(answer)
    with torch.no_grad():
        logits = engine.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=torch.cat([inputs["mm_token_type_ids"], zeros], dim=1),
            pixel_values=inputs["pixel_values"],
            image_grid_thw=inputs["image_grid_thw"],
        ).logits[0, -answer.shape[1] - 1 : -1]
    logits[:, engine.suppressed] = -torch.inf
    expected = torch.log_softmax(logits, -1).gather(1, answer[0, :, None])[:, 0]
    assert torch.allclose(torch.tensor(done.logprobs), expected, atol=1e-4)


def test_a_limit_ends_an_answer_with_length(engine):
    prompt = prompts_of(make_questions("curb65", "validation", 1))[0]
    done = next(iter(engine.generate([prompt], Sampling(temperature=0, max_new_tokens=4))))
    assert (done.finish_reason, len(done.token_ids)) == ("length", 4)


def test_image_tokens_are_never_sampled(engine):
    prompt = Prompt("noise", [{"role": "user", "content": "<|image_pad|>"}])
    logits = torch.zeros(1, engine.model.config.text_config.vocab_size)
    logits[0, engine.suppressed] = 50.0
    chosen, _ = engine._choose(logits, torch.tensor([0.5]), 1.0)
    assert chosen.item() not in engine.suppressed
    assert prompt.images == []


def test_damaged_foreign_and_missing_weights_are_sentences(tmp_path):
    with pytest.raises(UserError, match="cannot load a model"):
        load_model(tmp_path / "none")
    torn = shutil.copytree(shipped("small"), tmp_path / "torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot load a model"):
        load_model(torn)
    foreign = shutil.copytree(shipped("small"), tmp_path / "foreign")
    shutil.copy(shipped("base") / "model.safetensors", foreign / "model.safetensors")
    with pytest.raises(UserError, match="foreign"):
        load_model(foreign)
    with pytest.raises(UserError, match="cannot load a processor"):
        load_processor(tmp_path / "none")
    with pytest.raises(UserError, match="large"):
        shipped("large")
