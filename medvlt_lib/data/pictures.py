"""The pictures of other people's rows: their bytes, the size that the recipe gives them, and their decoded pixels.

A picture is decoded once: the decoded picture is handed on beside its question, and its size and fingerprint are taken
from there. Where decoding changes a picture (medvlt_lib.core.images says how), the changed one is kept as PNG, so that
every later reader sees the same; `extra["picture_changes"]` of its question says what changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import open_picture, pixel_id, png
from medvlt_lib.core.records import Question
from medvlt_lib.data.rows import Refused

SHORTEST, LONGEST = 28, 1024  # pixels: MedVLThinker, data_process/train_dataset/resize_image.py
SIZE = "image size"  # a change beside those of medvlt_lib.core.images


@dataclass(frozen=True)
class FittedPicture:
    """A picture as a question holds it (encoded), its decoded pixels and their id, and what was changed."""

    encoded: str | bytes
    pixels: Image.Image
    pixel_id: str
    changes: tuple[str, ...]


def image_bytes(value: Any, folder: Path, column: str = "images") -> bytes:
    """An image's encoded bytes from a path (relative to `folder`), bytes, or {"bytes", "path"}. Raises Refused."""
    value = bytes_or_path(value, column)
    if isinstance(value, bytes):
        return value
    path = folder / value
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise Refused(
            column, f"the image {path} cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from None


def bytes_or_path(value: Any, column: str = "images") -> str | bytes:
    """What a cell says of its image: encoded bytes, else a path. Raises Refused where it says neither."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, (str, bytes)) or not value:
        raise Refused(column, "the image is missing; give a path or the image's bytes")
    return value


def fit_image(encoded: bytes, longest: int | None = LONGEST, column: str = "images") -> FittedPicture:
    """A picture within the published limits. Raises Refused.

    As published: aspect kept, bilinear; the shortest side grows to 28 pixels, else the longest shrinks to `longest`
    (None: no cap). A picture that needs no change keeps its bytes.
    """
    try:
        picture = open_picture(encoded)
    except UserError as error:
        raise Refused(column, str(error).split(";")[0]) from None
    width, height = picture.pixels.size
    scale = SHORTEST / min(width, height) if min(width, height) < SHORTEST else 1.0
    if scale == 1.0 and longest and max(width, height) > longest:
        scale = longest / max(width, height)
    if scale == 1.0:
        return _kept(encoded, picture.pixels, picture.changes)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return _kept(encoded, picture.pixels.resize(size, Image.Resampling.BILINEAR), (*picture.changes, SIZE))


def decoded(question: Question) -> tuple[Question, list[Image.Image]]:
    """A question of a file, with its decoded pictures; pixel ids are added where they are missing.

    Raises UserError for a picture that cannot be read.
    """
    opened = [open_picture(image) for image in question.images]
    if any(picture.changes for picture in opened) or len(question.image_ids) != len(opened):
        fitted = [_kept(image, p.pixels, p.changes) for image, p in zip(question.images, opened, strict=True)]
        question = replace(question, **picture_fields(fitted, question.extra))
    return question, [picture.pixels for picture in opened]


def picture_fields(pictures: Sequence[FittedPicture], extra: dict[str, Any]) -> dict[str, Any]:
    """The fields of a Question that its pictures fill."""
    changes = [list(picture.changes) for picture in pictures]
    return {
        "images": [picture.encoded for picture in pictures],
        "image_ids": [picture.pixel_id for picture in pictures],
        "extra": {**extra, "picture_changes": changes} if any(changes) else extra,
    }


def _kept(encoded: str | bytes, pixels: Image.Image, changes: tuple[str, ...]) -> FittedPicture:
    if changes:
        encoded = png(pixels)
    return FittedPicture(encoded, pixels, pixel_id(pixels), changes)
