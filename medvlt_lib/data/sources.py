"""Where questions come from, by the prefix of a source's name in the profile.

`phantom:FAMILIES` is the embedded world; `mni152:FAMILIES` asks about slices of a real MRI (medvlt_lib.data.slices);
`hub:NAME` is a published data set (medvlt_lib.data.published), of which NAME@REVISION names the commit; anything else
is a file written by `medvlt import`. A part of a set is an even sample of it, drawn with data.seed.
(`split:TRAINING_SET` for validation is the stage's own.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from PIL import Image

from medvlt_lib.core.config import Data
from medvlt_lib.core.records import Question, count_questions, iterate_questions
from medvlt_lib.data.hub import published_questions
from medvlt_lib.data.mni152 import read_mni152
from medvlt_lib.data.pictures import LONGEST, decoded
from medvlt_lib.data.rows import Tally
from medvlt_lib.data.slices import slice_families, slice_questions
from medvlt_lib.phantom.questions import family_names, make_questions

# Sets that are made here, for every split, and what reads the names of their families.
MADE = {"phantom": family_names, "mni152": slice_families}
SETS = ("train_text", "train_image", "traces_image", "validation", "test")
SPLITS = {
    "train_text": "train",
    "train_image": "train",
    "traces_image": "train",
    "validation": "validation",
    "test": "test",
}


def load_set(name: str, data: Data, tallies: list[Tally] | None = None) -> Iterator[Question]:
    """The questions of one set ('train_text', ...) that a profile's data section names; `tallies` collects what was
    dropped.

    Raises UserError for a file, folder or package that is missing or torn, other columns, or a Hub that cannot be
    reached.
    """
    for question, _ in load_set_with_pictures(name, data, [] if tallies is None else tallies):
        yield question


def load_set_with_pictures(name: str, data: Data, tallies: list[Tally]) -> Iterator[tuple[Question, list[Image.Image]]]:
    """As `load_set`, with every question's decoded pictures, so that nobody decodes them again."""
    source, size = getattr(data, name), getattr(data, f"{name}_size")
    kind, _, rest = source.partition(":")
    if kind == "phantom":
        noisy = name == "train_image"  # machine-written image data is the noisy kind in the papers
        flaws = {key: getattr(data, key) for key in ("label_noise", "trace_noise", "given_away")} if noisy else {}
        style = {"trace_style": data.trace_style, "noise_kind": data.noise_kind, "wording": data.wording}
        yield from map(decoded, make_questions(rest, SPLITS[name], size, data.seed, **style, **flaws))
    elif kind == "mni152":
        yield from map(decoded, slice_questions(read_mni152(), rest, SPLITS[name], size, data.seed))
    elif kind == "hub":
        # Published training pictures were shrunk to 1024 pixels; those of the test sets were not.
        longest = None if name == "test" else LONGEST
        yield from published_questions(rest, SPLITS[name], size, data, longest, tallies)
    else:
        yield from map(decoded, _sample_of_file(Path(source), size, data.seed))


def _sample_of_file(path: Path, size: int, seed: int) -> Iterator[Question]:
    """An even sample of a file's questions, in their order; the file is streamed and never held."""
    total = count_questions(path)
    chosen = set(Random(seed).sample(range(total), min(size, total)))
    return (question for number, question in enumerate(iterate_questions(path)) if number in chosen)
