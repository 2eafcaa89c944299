"""Where questions come from, by the prefix of a source's name in the profile.

`phantom:FAMILIES` is the embedded world; `hub:NAME` a published data set (medvlt_lib.data.published), of which NAME@REVISION
names the commit; anything else is a file written by `medvlt import`. A part of a set is an even sample of it, drawn with
data.seed. (`split:TRAINING_SET` for validation is the stage's own.)
"""

from __future__ import annotations

import hashlib
import heapq
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from medvlt_lib.core.config import Data
from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.records import Question, read_questions
from medvlt_lib.data.published import GROUPS, SOURCES, Source, unified
from medvlt_lib.data.rows import LONGEST, Refused, Tally, fit_image, image_bytes
from medvlt_lib.phantom.questions import make_questions

SETS = ("train_text", "train_image", "traces_image", "validation", "test")
SPLITS = {
    "train_text": "train",
    "train_image": "train",
    "traces_image": "train",
    "validation": "validation",
    "test": "test",
}
SHUFFLE_BUFFER = 1000  # rows of a stream that are shuffled together


def load_set(name: str, data: Data, tallies: list[Tally] | None = None) -> Iterator[Question]:
    """The questions of one set ('train_text', ...) that a profile's data section names; `tallies` collects what was dropped.

    Raises UserError for a file or folder that is missing or torn, other columns, or a Hub that cannot be reached.
    """
    source, size = getattr(data, name), getattr(data, f"{name}_size")
    tallies = [] if tallies is None else tallies
    kind, _, rest = source.partition(":")
    if kind == "phantom":
        noisy = name == "train_image"  # machine-written image data is the noisy kind in the papers
        noise = {"label_noise": data.label_noise, "trace_noise": data.trace_noise} if noisy else {}
        yield from make_questions(rest, SPLITS[name], size, data.seed, **noise)
    elif kind == "hub":
        # Published training pictures were shrunk to 1024 pixels; those of the test sets were not.
        yield from _hub(rest, SPLITS[name], size, data, None if name == "test" else LONGEST, tallies)
    else:
        questions = read_questions(Path(source))
        chosen = sorted(Random(data.seed).sample(range(len(questions)), min(size, len(questions))))
        yield from (questions[i] for i in chosen)


def _hub(name: str, split: str, size: int, data: Data, longest: int | None, tallies: list[Tally]) -> Iterator[Question]:
    """Questions of a published set, or `size` spread evenly over the sets of a group, the smallest first."""
    name, _, revision = name.partition("@")
    parts = [part_of(n, split, revision or None) for n in GROUPS.get(name, (name,))]
    order = sorted(range(len(parts)), key=lambda i: min(parts[i].rows.values(), default=0)) if len(parts) > 1 else [0]
    left, seen = size, set()
    for done, i in enumerate(order):
        tally = Tally(GROUPS.get(name, (name,))[i])
        tallies.append(tally)
        share = -(-left // (len(parts) - done)) if done < len(parts) - 1 else left
        for question in read_source(parts[i], split, share, data, longest, tally, seen):
            left -= 1
            yield question


def part_of(name: str, split: str, revision: str | None) -> Source:
    """A published set by its name; another name is read in MedVLThinker's columns. `revision` overrides the pinned one."""
    source = SOURCES.get(name) or Source(name, unified, ("question", "options", "answer_label"), (split,), whole=False)
    return replace(source, revision=revision) if revision else source


def read_source(
    source: Source, split: str, size: int, data: Data, longest: int | None, tally: Tally, seen: set
) -> Iterator[Question]:
    """At most `size` questions of one published set. Raises UserError for what stops the whole set."""
    client = _client(data)
    tally.revision = _revision(source, data.mirror)
    if not data.mirror:
        source = replace(source, revision=tally.revision)  # what the card names is what is read
    archive = _Archive(source, data.mirror)
    rows = _accepted(source, size, data, tally, client)
    for number, fields in _even(rows, source, size, data.seed) if source.whole else rows:
        try:
            question = _question(fields, number, source, split, archive, longest, tally)
        except Refused as error:
            tally.drop(
                error.column, f"row {number}{' of the shuffled stream' if _shuffled(source, size) else ''}: {error.why}"
            )
            continue
        question.id = _unused(question, seen, tally)
        seen.add(question.id)
        tally.kept += 1
        yield question
        if tally.kept == size:
            return


def _unused(question: Question, seen: set, tally: Tally) -> str:
    """The question's id, told apart by content, then by a number: published indices, and whole rows, repeat."""
    names = [question.id, f"{question.id}-{_content(question)[:8]}"]
    names += [f"{names[1]}-{i}" for i in range(2, 2 + tally.kept)] if names[1] in seen else []
    tally.changed["repeated index"] += names[0] in seen
    return next(n for n in names if n not in seen)


def _client(data: Data):
    if not data.endpoint:
        return None
    from medvlt_lib.rollout.chat_client import ChatClient

    return ChatClient(
        data.endpoint,
        data.endpoint_model,
        prices=(data.endpoint_prompt_price, data.endpoint_completion_price),
        max_cost=data.endpoint_max_cost,
        cap_setting="data.endpoint_max_cost",
    )


def _accepted(source: Source, size: int, data: Data, tally: Tally, client) -> Iterator[tuple[int, dict]]:
    """(row number, the reader's fields) of the rows that the reader takes."""
    for config in source.configs:
        for split in source.splits:
            shuffled = _shuffled(source, size)
            for number, row in enumerate(_rows(source, config, split, data, shuffled), 1):
                row = {k.strip(): v for k, v in row.items()}
                if number == 1 and (missing := [c for c in source.columns if c not in row]):
                    raise UserError(
                        f"{_place(source, data.mirror)} has no column {missing[0]}; it has {', '.join(row)}, and {', '.join(source.columns)} are needed."
                    )
                tally.read += 1
                try:
                    fields = source.reader(row, tally, client)
                except (
                    Refused,
                    AttributeError,
                    KeyError,
                    TypeError,
                    ValueError,
                ) as error:  # the latter: cells of another kind
                    column, why = (
                        (error.column, error.why)
                        if isinstance(error, Refused)
                        else ("(all)", f"a cell of another kind ({error})")
                    )
                    tally.drop(column, f"row {number}{' of the shuffled stream' if shuffled else ''}: {why}")
                    continue
                yield tally.read, {**fields, "by": row.get(source.by) if source.by else None}


def _place(source: Source, mirror: str | None) -> str:
    return str(Path(mirror) / source.repo) if mirror else source.repo


def _shuffled(source: Source, size: int) -> bool:
    """Whether only a part of a large set is read, from a shuffled stream."""
    return not source.whole and size < min(source.rows.values(), default=size + 1)


def _rows(source: Source, config: str | None, split: str, data: Data, shuffled: bool) -> Iterator[dict]:
    """Rows as `datasets` streams them, images encoded; shuffled where a large set is not read to its end."""
    from datasets import load_dataset

    place = _place(source, data.mirror)
    if data.mirror and not Path(place).is_dir():
        raise UserError(f"there is no folder {place}; data.mirror needs one folder for every data set, named like it.")
    options: dict[str, Any] = {"split": split, "streaming": True}
    try:
        if source.files and source.files.endswith(".json"):
            address = source.files.format(repo=source.repo, revision=source.revision)
            local = str(Path(place) / address.rsplit("/", 1)[1])
            rows = load_dataset("json", data_files=local if data.mirror else address, **{**options, "split": "train"})
        elif data.mirror:
            named = {"name": config} if (Path(place) / "README.md").exists() else {"data_dir": config}
            rows = load_dataset(place, **(named if config else {}), data_files=source.files, **options)
        else:
            rows = load_dataset(place, config, revision=source.revision, data_files=source.files, **options)
        rows = rows.decode(False) if rows.features else rows  # images stay encoded; CSV and JSON have none
        if shuffled:
            shards = min(10, rows.num_shards)  # more than there are would be waited for
            rows = rows.shuffle(seed=data.seed, buffer_size=SHUFFLE_BUFFER, max_buffer_input_shards=shards)
        yield from rows
    except UserError:
        raise
    except Exception as error:  # datasets, huggingface_hub, pyarrow and fsspec each raise families of their own
        at = f" at revision {source.revision}" if source.revision and not data.mirror else ""
        mend = (
            "fetch the copy again"
            if data.mirror
            else "check the name, the revision and the network, or name a copy with data.mirror"
        )
        raise UserError(f"cannot read {place}{at} ({first_line(error)}); {mend}.") from error


def _even(rows: Iterator[tuple[int, dict]], source: Source, size: int, seed: int) -> Iterator[tuple[int, dict]]:
    """An even sample of `size` of all rows, in their order; spread over the values of source.by, the smallest group first."""
    groups: dict[Any, list] = defaultdict(list)  # heaps of (-key, row number, fields): the `size` smallest keys
    for number, fields in rows:
        digest = hashlib.sha256(f"{seed}:{source.repo}:{number}".encode()).digest()
        heap, item = groups[fields["by"]], (-int.from_bytes(digest[:8], "big"), number, fields)
        if len(heap) < size:
            heapq.heappush(heap, item)
        elif item > heap[0]:
            heapq.heappushpop(heap, item)
    chosen, left = [], size
    for done, heap in enumerate(sorted(groups.values(), key=len)):
        share = min(len(heap), left if done == len(groups) - 1 else -(-left // (len(groups) - done)))
        chosen += heapq.nlargest(share, heap)
        left -= share
    yield from sorted(((number, fields) for _, number, fields in chosen), key=lambda pair: pair[0])


def _question(
    fields: dict, number: int, source: Source, split: str, archive: _Archive, longest: int | None, tally: Tally
) -> Question:
    images = []
    for value in fields["images"]:
        encoded, pixels, resized = fit_image(archive.bytes_of(value), longest)
        tally.changed["image size"] += resized
        images.append((encoded, pixels))
    if not isinstance(fields["question"], str) or not fields["question"].strip():
        raise Refused("question", "it is empty")
    question = Question(
        id=str(fields.get("id") or ""),
        dataset=fields["dataset"],
        split=split,
        modality="image" if images else "text",
        question=fields["question"],
        options=fields["options"],
        answer_label=fields["label"],
        answer=fields["options"][fields["label"]],
        image_modality=fields.get("image_modality"),
        images=[encoded for encoded, _ in images],
        image_ids=[pixels for _, pixels in images],
        reasoning=fields.get("reasoning"),
        source={"name": source.repo, "revision": tally.revision, "row": number, "licence": source.licence},
        extra=fields.get("extra", {}),
    )
    question.id = question.id or f"{question.dataset}-{_content(question)[:12]}"
    return question


def _content(question: Question) -> str:
    return hashlib.sha256(
        repr((question.question, question.options, question.answer_label, question.image_ids)).encode()
    ).hexdigest()


def _revision(source: Source, mirror: str | None) -> str | None:
    """The commit that is read: the pinned one, or the newest, asked for now; of a local copy it is not known."""
    if mirror:
        return "local copy"
    if source.revision:
        return source.revision
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(source.repo, timeout=30).sha
    except Exception:  # the read that follows says what is wrong
        return None


class _Archive:
    """Images that lie in a zip beside the rows, in images/ of a local copy, or in the rows themselves."""

    def __init__(self, source: Source, mirror: str | None) -> None:
        self.source, self.mirror, self.zip = source, mirror, None
        self.names: dict[str, list[str]] = {}
        repo, _, self.file = (source.archive or "").rpartition(":")
        self.repo = repo or source.repo
        self.folder = Path(mirror) / self.repo if mirror else Path()

    def bytes_of(self, value: Any) -> bytes:
        """Raises Refused for an image that is not there."""
        if not isinstance(value, str) or not self.file or (self.mirror and not (self.folder / self.file).exists()):
            folders = [self.folder, self.folder / "images"] if isinstance(value, str) else [self.folder]
            return image_bytes(
                value, next((f for f in folders if isinstance(value, str) and (f / value).exists()), self.folder)
            )
        self.zip = self.zip or self._open()
        try:
            return self.zip.read(self._named(value))
        except (zipfile.BadZipFile, zlib.error) as error:
            raise Refused("images", f"{value} in {self.file} is broken ({error})") from None

    def _named(self, value: str) -> str:
        """The archive's name of an image: the whole name, or a file name that stands there once."""
        fits = [n for n in self.names.get(Path(value).name, []) if n == value or n.endswith(f"/{value}")]
        fits = fits or self.names.get(Path(value).name, [])
        if len(fits) != 1:
            raise Refused("images", f"{self.file} of {self.repo} holds {'no' if not fits else 'more than one'} {value}")
        return fits[0]

    def _open(self) -> zipfile.ZipFile:
        from huggingface_hub import hf_hub_download

        path = self.folder / self.file
        try:
            if not self.mirror:
                revision = self.source.revision if self.repo == self.source.repo else None
                path = hf_hub_download(self.repo, self.file, repo_type="dataset", revision=revision)
            opened = zipfile.ZipFile(path)
        except Exception as error:
            raise UserError(
                f"cannot read {self.file} of {self.repo} ({first_line(error)}); fetch it again, or check the network."
            ) from error
        for name in opened.namelist():
            self.names.setdefault(Path(name).name, []).append(name)
        return opened
