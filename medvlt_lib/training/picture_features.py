"""What a frozen vision tower sees in a picture, computed once a step for sampling, reference and update."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling


class PictureFeatures:
    """Keeps the features that a model's vision tower gives, by picture, from a call of `keep` to one of `clear`.

    It takes the place of the model's `get_image_features`, and does nothing but pass on while a weight of the tower is
    trained. A picture is known by the SHA-256 of its patches; features (tokens, width) stay where they were computed.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        """`model`: a Qwen2-VL or Qwen2.5-VL model, with or without LoRA."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._tower = base.model.visual
        self._compute = base.model.get_image_features
        self._kept: dict[bytes, torch.Tensor] = {}
        self._keeping = False
        base.model.get_image_features = self._features

    def keep(self) -> None:
        """Keep what is computed from now on."""
        self._keeping = True

    def clear(self) -> None:
        """Forget what was kept, and keep nothing more: validation asks many questions, each once."""
        self._kept.clear()
        self._keeping = False

    def _features(self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        """As the model's own: an output whose `pooler_output` is a tuple with the features of each picture."""
        if not self._keeping or any(weight.requires_grad for weight in self._tower.parameters()):
            return self._compute(pixel_values, image_grid_thw, **kwargs)
        patches = pixel_values.split(image_grid_thw.prod(-1).tolist())
        names = [_name(own, grid) for own, grid in zip(patches, image_grid_thw.tolist(), strict=True)]
        new = {name: place for place, name in enumerate(names) if name not in self._kept}
        if new:
            places = list(new.values())
            with torch.no_grad():
                output = self._compute(torch.cat([patches[i] for i in places]), image_grid_thw[places], **kwargs)
            self._kept.update(zip(new, output.pooler_output, strict=True))
        return BaseModelOutputWithPooling(pooler_output=tuple(self._kept[name] for name in names))


def _name(patches: torch.Tensor, grid: list[int]) -> bytes:
    content = patches.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(repr((grid, patches.dtype)).encode() + content.tobytes()).digest()
