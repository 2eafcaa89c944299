"""`medvlt export`: a trained arm as a folder that others load without this library: weights, processor and model card.

`merged`: one bfloat16 model. An adapter is merged into the original weights of its base, also where it was trained on
them in 4-bit NF4: 4-bit weights would carry their rounding along, and few programs load them. What merging and rounding
change is measured (medvlt_lib.tools.changed_answers) and stands in the card.

`adapter`: the LoRA weights as they were trained, with the name of their base. That name has to lead somewhere on any
machine. A Hub name does. A shipped tiny model ("phantom:base") is known to this library alone, so it is copied beside
the adapter, into base/, which weighs a few megabytes; a folder of this machine is refused, since it may hold tens of
gigabytes.

The published models ask for a repetition penalty in their generation_config.json, which transformers and vLLM then
apply. No arm is trained or evaluated with it, so a merged model's file leaves it out.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib.core.config import Profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import file_hash, read_json, write_json, write_text
from medvlt_lib.core.runs import Run, trained_in
from medvlt_lib.models.loading import (
    check_base,
    is_adapter,
    load_adapter,
    load_model,
    profile_processor,
    resolve,
    weights_id,
)
from medvlt_lib.tools.changed_answers import measured_change
from medvlt_lib.tools.loading_examples import SHIPPED_BASE
from medvlt_lib.tools.model_card import model_card
from medvlt_lib.tools.sharing import shown, written_whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMS = ("merged", "adapter")


def export_model(run_: Run, arm: str, out: Path, form: str = "merged") -> dict[str, Any]:
    """Writes an arm's model, processor, README.md (the model card) and provenance.json to `out`; returns the last.

    Raises UserError when the arm is not trained or was trained from another model, when it has no such form, when 01 is
    not finished, and when `out` is in use.
    """
    # Step 1: what cannot be exported is refused before any weight is loaded.
    if form not in FORMS:
        raise UserError(f"--form {form}: choose one of {', '.join(FORMS)}.")
    if arm == "base":
        raise UserError(f"the arm base is {run_.profile.model.name} itself, untrained; name a trained arm with --arm.")
    stage = trained_in(run_, arm)
    folder = run_.require(stage, arm)
    checkpoint, test = folder / "checkpoint", run_.require("01") / "test.parquet"
    trained = read_json(folder / "stage.json")
    _check_model(run_, arm, checkpoint, trained["settings"])
    base = _base_elsewhere(run_.profile, checkpoint) if form == "adapter" else None
    with written_whole(out) as target:
        # Step 2: weights and processor.
        profile_processor(run_.profile).save_pretrained(target)
        if base is not None:
            _write_adapter(run_.profile, checkpoint, base, target)
        else:
            _write_merged(run_.profile, checkpoint, target)
        # Step 3: what that changed. Full weights of a bfloat16 profile are evaluated in the very numbers written here.
        change = None
        if base is None and (is_adapter(checkpoint) or run_.profile.model.dtype != "bfloat16"):
            change = measured_change(run_.profile, checkpoint, target, test)
        # Step 4: the card, and where everything came from.
        base_name = shown(run_.profile.model.name)
        provenance = {
            "run": run_.folder.name,
            "arm": arm,
            "form": form,
            "base": {"name": base_name, "revision": run_.profile.model.revision, "weights": weights_id(run_.profile)},
            "checkpoint": file_hash(checkpoint),
            "trained_with": {**trained, "settings": {**trained["settings"], "model.name": base_name}},
            "training": read_json(folder / "metrics.json"),
            "change": change,
            "sources": {shown(name): revision for name, revision in run_.manifest.get("sources", {}).items()},
            "versions": run_.manifest["versions"],
        }
        write_json(target / "provenance.json", provenance)
        write_text(target / "README.md", model_card(run_, stage, arm, provenance, is_adapter(checkpoint)))
    return provenance


def _check_model(run_: Run, arm: str, checkpoint: Path, settings: dict[str, Any]) -> None:
    """Raises UserError when a checkpoint is not of the run's model, or the model has changed since."""
    from transformers import AutoConfig

    m, now = run_.profile.model, weights_id(run_.profile)
    if settings["model.weights"] != now:
        raise UserError(
            f"the arm {arm} was trained from {settings['model.name']} with weights {settings['model.weights']}, and "
            f"model.name {m.name} has {now}; put those weights back, or export from the run it was trained in."
        )
    if is_adapter(checkpoint):
        check_base(checkpoint, m.name)
        return
    try:
        own, base = (
            AutoConfig.from_pretrained(checkpoint),
            AutoConfig.from_pretrained(resolve(m.name), revision=m.revision),
        )
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the model in {checkpoint}; train the arm {arm} again.") from error
    for key in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"):
        one, other = (getattr(config.get_text_config(), key) for config in (own, base))
        if one != other:
            raise UserError(
                f"{checkpoint} is of another model than {m.name}: its {key} is {one}, not {other}; put the arm's own "
                "checkpoint back, or train it again."
            )


def _base_elsewhere(profile: Profile, checkpoint: Path) -> str:
    """What an exported adapter calls its base: a Hub name, or base, the folder beside it.

    Raises UserError for full weights, and for a base that is a folder of this machine.
    """
    name = profile.model.name
    if not is_adapter(checkpoint):
        raise UserError(f"{checkpoint} holds full weights and no adapter; leave out --form.")
    if name.startswith("phantom:"):
        return SHIPPED_BASE
    if Path(name).is_dir():
        raise UserError(
            f"an adapter names its base, and {name} is a folder of this machine, which others do not have; "
            "leave out --form, and the adapter is merged into it."
        )
    return name


def _write_adapter(profile: Profile, checkpoint: Path, base: str, target: Path) -> None:
    """The adapter's two files, once it has shown that it fits its base."""
    m = profile.model
    load_adapter(load_model(resolve(m.name), m.dtype, "cpu", m.revision), checkpoint)
    shutil.copy(checkpoint / "adapter_model.safetensors", target)
    config = read_json(checkpoint / "adapter_config.json")
    write_json(target / "adapter_config.json", {**config, "base_model_name_or_path": base, "revision": m.revision})
    if base == SHIPPED_BASE:
        shutil.copytree(resolve(m.name), target / base)


def _write_merged(profile: Profile, checkpoint: Path, target: Path) -> None:
    import torch

    model = merged(profile, checkpoint).to(torch.bfloat16)
    _leave_sampling_to_the_user(model)
    model.save_pretrained(target)


def merged(profile: Profile, checkpoint: Path) -> PreTrainedModel:
    """An arm's weights as one model on the CPU; an adapter's are merged into the unquantized base."""
    m = profile.model
    if not is_adapter(checkpoint):
        return load_model(checkpoint, "bfloat16")
    return load_adapter(load_model(resolve(m.name), m.dtype, "cpu", m.revision), checkpoint).merge_and_unload()


def _leave_sampling_to_the_user(model: PreTrainedModel) -> None:
    """Of the generation settings keep the special tokens alone."""
    from transformers import GenerationConfig

    tokens = ("bos_token_id", "eos_token_id", "pad_token_id")
    model.generation_config = GenerationConfig(**{name: getattr(model.generation_config, name) for name in tokens})
