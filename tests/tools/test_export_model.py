"""`medvlt export`: what others load gives the arm's answers, the card says what was measured, and mistakes are
sentences. AutoProcessor and vLLM read exports in tests/vllm/test_export.py, in an environment that has them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from medvlt_lib.__main__ import app
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, write_json
from medvlt_lib.core.runs import open_run
from medvlt_lib.models.loading import shipped
from medvlt_lib.stages import evaluate
from medvlt_lib.tools import export_model as module
from medvlt_lib.tools.export_model import export_model
from tests.exporting import ARM, KINDS, checkpoint_of, exported, same, trained, write_prompts

SCRIPT = Path(__file__).parents[1] / "load_elsewhere.py"
PIXELS = 7056  # a picture of 112 x 112 pixels shrinks to 84 x 84
LEAST = {"full": 97, "lora": 97, "nf4": 90}  # of 100 answers that stay the same; 100, 100 and 96 did


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished arm of each kind. Pictures shrink in one, so that its pixel limit has to travel with the export."""
    root = tmp_path_factory.mktemp("exports") / "runs"
    changes = {"lora": {"model.max_pixels": PIXELS}}
    return {kind: trained(root, kind, **changes.get(kind, {})) for kind in KINDS}


@pytest.fixture(scope="module")
def merged(runs, tmp_path_factory):
    """(folder, provenance with the answers) of each arm's merged export."""
    root = tmp_path_factory.mktemp("merged")
    return {kind: (root / kind, exported(run, root / kind)) for kind, run in runs.items()}


def elsewhere(run, folder: Path, tmp_path: Path, how: str = "transformers") -> list[list[int]]:
    """Greedy answers of an export to the run's test questions, from a process in which this library cannot load."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(write_prompts(run, tmp_path)), "answers.json", how],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((tmp_path / "answers.json").read_text())["answers"]


@pytest.mark.parametrize("kind", KINDS)
def test_plain_transformers_gives_the_same_answers(kind, runs, merged, tmp_path):
    """All 100 are those of this library on the export; of the arm's own as many as the card says."""
    folder, made = merged[kind]
    there = elsewhere(runs[kind], folder, tmp_path)
    assert len(there) == 100 and len({tuple(ids) for ids in there}) > 20
    assert there == made["export"]
    assert LEAST[kind] <= same(there, made["own"]) == made["change"]["same_text"]


@pytest.mark.parametrize("kind", ["lora", "nf4"])
def test_peft_gives_the_same_answers(kind, runs, merged, tmp_path):
    """An adapter is exported as it was trained: on the base that lies beside it, all 100 answers are the arm's own."""
    folder = tmp_path / "adapter"
    assert export_model(runs[kind], ARM, folder, "adapter")["change"] is None
    there = elsewhere(runs[kind], folder, tmp_path, "peft" if kind == "lora" else "peft-nf4")
    assert there == merged[kind][1]["own"]
    assert read_json(folder / "adapter_config.json")["base_model_name_or_path"] == "base"


def test_an_adapter_over_4_bit_weights_is_merged_into_the_original_ones(runs, merged):
    """Every weight by hand: the shipped one plus alpha/rank B A where there is an adapter, rounded to bfloat16 once."""
    original, made = load_file(shipped("base") / "model.safetensors"), load_file(merged["nf4"][0] / "model.safetensors")
    lora = load_file(checkpoint_of(runs["nf4"]) / "adapter_model.safetensors")
    assert made.keys() == original.keys() and {w.dtype for w in made.values()} == {torch.bfloat16}
    moved = 0
    for name, weight in original.items():
        inner = name.replace("model.layers", "model.language_model.layers")  # files have the published names
        part = f"base_model.model.{inner.removesuffix('.weight')}"
        expected = weight.float()
        if f"{part}.lora_A.weight" in lora:
            moved += 1
            expected = expected + 32 / 16 * lora[f"{part}.lora_B.weight"] @ lora[f"{part}.lora_A.weight"]
            assert not torch.equal(made[name], weight.bfloat16())
        assert torch.equal(made[name], expected.bfloat16()), name
    assert moved == len(lora) / 2 == 4 * 7


def test_what_an_export_holds(runs, merged):
    """Processor with the run's pixel limit, no sampling settings, nothing that names this machine."""
    folder, made = merged["lora"]
    assert read_json(folder / "processor_config.json")["image_processor"]["size"]["longest_edge"] == PIXELS
    assert read_json(folder / "config.json")["dtype"] == "bfloat16"
    change = made["change"]
    assert (change["questions"], change["with_pictures"], change["computed_in"]) == (100, 60, "float32")
    assert 0 < change["mean_logprob_difference"] < 0.02 and change["tokens"] > 1000
    root = str(runs["lora"].folder.parent)
    texts = [p.read_text() for p in folder.rglob("*") if p.suffix in (".json", ".md", ".jinja")]
    assert len(texts) > 6 and not any(root in text or str(folder) in text for text in texts)
    assert not list(folder.parent.glob(".*"))


def test_no_repetition_penalty_of_the_base_is_exported(runs, tmp_path):
    """Qwen2.5-VL's own file asks for one, which transformers and vLLM would apply."""
    checkpoint = shutil.copytree(checkpoint_of(runs["full"]), tmp_path / "checkpoint")
    own = {"do_sample": True, "temperature": 0.1, "repetition_penalty": 1.05, "eos_token_id": [871, 869]}
    write_json(checkpoint / "generation_config.json", own)
    module._write_merged(runs["full"].profile, checkpoint, tmp_path / "out")
    written = read_json(tmp_path / "out" / "generation_config.json")
    assert written["eos_token_id"] == [871, 869] and {"repetition_penalty", "temperature"}.isdisjoint(written)


def test_the_card(runs, merged, tmp_path, monkeypatch):
    """Metadata that the Hub reads, data by its file, leaks, settings, what is missing; with 05, results."""
    from huggingface_hub import ModelCard

    run = runs["full"]
    card = ModelCard.load(merged["full"][0] / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "image-text-to-text")
    assert card.data.base_model is None and ARM in card.data.tags  # phantom:base is no name on the Hub
    assert "not for clinical use" in card.text.lower() and "sft.max_steps | 3" in card.text
    assert "Trained on `01_data/train_image.parquet`, 12 questions" in card.text
    assert "### Leakage" in card.text and f"medvlt eval --run full --arm {ARM}" in card.text
    assert f"{merged['full'][1]['change']['same_text']} answers are the same token by token" in card.text
    monkeypatch.setattr(module, "measured_change", lambda *_: merged["full"][1]["change"])  # once is enough
    for name in ("base", ARM):
        evaluate.run(run, name)
    export_model(run, ARM, tmp_path / "evaluated")
    text = (tmp_path / "evaluated" / "README.md").read_text()
    macro = read_json(run.folder / "05_eval" / ARM / "scores.json")["macro"]
    assert f"| {ARM} | {100 * macro:.1f} |" in text and "95 % paired" in text and "Missing" not in text
    stage = run.folder / "05_eval" / ARM / "stage.json"
    made_with = read_json(stage)
    write_json(stage, {**made_with, "inputs": {**made_with["inputs"], "checkpoint": "0" * 64}})
    export_model(run, ARM, tmp_path / "stale")
    assert "belong to other weights" in (tmp_path / "stale" / "README.md").read_text()


def test_an_export_that_is_there_is_refused_and_stays(runs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is not empty; choose another --out"):
        export_model(runs["full"], ARM, out)
    with pytest.raises(UserError, match="is a file; choose another --out"):
        export_model(runs["full"], ARM, tmp_path / "file")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "mine.txt", "out"]


def test_an_export_that_breaks_off_leaves_nothing(runs, tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "measured_change", lambda *_: None)
    monkeypatch.setattr(module, "model_card", full_disk)
    with pytest.raises(OSError, match="No space"):
        export_model(runs["full"], ARM, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "arm", "form", "words"),
    [
        ("full", "base", "merged", "phantom:base itself, untrained"),
        ("full", "rl_text", "merged", "run `medvlt grpo --run full --arm rl_text` first"),
        ("full", ARM, "adapter", "holds full weights and no adapter; leave out --form"),
        ("full", ARM, "gguf", "choose one of merged, adapter"),
    ],
)
def test_what_cannot_be_exported_is_a_sentence(kind, arm, form, words, runs, tmp_path):
    with pytest.raises(UserError, match=words):
        export_model(runs[kind], arm, tmp_path / "out", form)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def copied(runs, tmp_path):
    """A function that copies a finished run, to be damaged."""

    def copy(kind: str):
        shutil.copytree(runs[kind].folder, tmp_path / "runs" / kind)
        return open_run(None, kind, root=tmp_path / "runs")

    return copy


def test_full_weights_of_another_model(copied, tmp_path):
    run = copied("full")
    shutil.rmtree(checkpoint_of(run))
    shutil.copytree(shipped("small"), checkpoint_of(run))
    with pytest.raises(UserError, match="is of another model than phantom:base: its hidden_size is 128, not 256"):
        export_model(run, ARM, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_an_adapter_of_another_model(form, copied, tmp_path):
    run = copied("lora")
    config = checkpoint_of(run) / "adapter_config.json"
    write_json(config, {**read_json(config), "base_model_name_or_path": "phantom:small"})
    with pytest.raises(UserError, match=r"was trained on phantom:small, and model\.name is phantom:base"):
        export_model(run, ARM, tmp_path / "out", form)
    write_json(config, {**read_json(config), "base_model_name_or_path": "phantom:base", "r": 4})
    with pytest.raises(UserError, match="does not fit its base model"):
        export_model(run, ARM, tmp_path / "out", form)
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_would_do_nothing(copied, tmp_path):
    """PEFT only warns where the names of an adapter's weights are not the model's."""
    from safetensors.torch import save_file

    run = copied("lora")
    file = checkpoint_of(run) / "adapter_model.safetensors"
    save_file({name.replace("layers.0", "blocks.0"): weight for name, weight in load_file(file).items()}, file)
    with pytest.raises(UserError, match="does not fit its base model"):
        export_model(run, ARM, tmp_path / "out")


def test_weights_that_the_base_did_not_have_when_the_arm_was_trained(copied, tmp_path):
    run = copied("nf4")
    stage = run.folder / "03_sft" / ARM / "stage.json"
    made_with = read_json(stage)
    write_json(stage, {**made_with, "settings": {**made_with["settings"], "model.weights": "another"}})
    with pytest.raises(UserError, match=r"was trained from phantom:base with weights another, and model\.name"):
        export_model(run, ARM, tmp_path / "out")


def test_an_adapter_of_a_folder_of_this_machine_has_no_name_for_its_base(copied, tmp_path):
    """Nobody else has that folder; merged, the arm can be exported all the same."""
    base = shutil.copytree(shipped("base"), tmp_path / "own-base")
    run = copied("lora")
    run = open_run(None, "lora", {"model.name": str(base)}, root=tmp_path / "runs")
    config = checkpoint_of(run) / "adapter_config.json"
    write_json(config, {**read_json(config), "base_model_name_or_path": str(base)})
    with pytest.raises(UserError, match="is a folder of this machine, which others do not have; leave out --form"):
        export_model(run, ARM, tmp_path / "out", "adapter")


class Hub:
    """In the place of HfApi: takes folders, or refuses."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal, self.taken = refusal, []

    def create_repo(self, name, repo_type, exist_ok):
        if self.refusal:
            raise self.refusal

    def upload_folder(self, folder_path, repo_id, repo_type):
        self.taken.append((repo_id, repo_type, sorted(p.name for p in Path(folder_path).iterdir())))


@pytest.mark.parametrize("refusal", [None, PermissionError("403 Forbidden: you have no right to write to them/model")])
def test_pushing(refusal, runs, tmp_path, monkeypatch):
    """From the command line: the folder is uploaded whole; refused, it stays, and the sentence says how to go on."""
    import huggingface_hub

    hub = Hub(refusal)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.chdir(runs["nf4"].folder.parents[1])
    out = tmp_path / "out"
    words = ["export", "--run", "nf4", "--arm", ARM, "--out", str(out), "--form", "adapter", "--push", "them/model"]
    done = CliRunner().invoke(app, words)
    assert (out / "adapter_model.safetensors").exists()
    if refusal is None:
        assert done.exit_code == 0 and "https://huggingface.co/them/model" in done.output
        [(name, kind, files)] = hub.taken
        assert (name, kind) == ("them/model", "model") and {"README.md", "base", "adapter_config.json"} < set(files)
    else:
        assert isinstance(done.exception, UserError) and "Traceback" not in done.output
        assert "the Hub did not take them/model (403 Forbidden" in str(done.exception)
        assert f"hf upload them/model {out} --repo-type model" in str(done.exception) and hub.taken == []
