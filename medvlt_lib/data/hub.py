"""Reading a published data set, from the Hub or from a local copy of it, and drawing an even part of it."""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from medvlt_lib.core.config import Data
from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.core.records import Question
from medvlt_lib.data.archive import Archive
from medvlt_lib.data.pictures import fit_image, picture_fields
from medvlt_lib.data.published import GROUPS, SOURCES, Source
from medvlt_lib.data.readers import unified
from medvlt_lib.data.rows import Refused, Tally

SHUFFLE_BUFFER = 1000  # rows of a stream that are shuffled together


def published_questions(
    name: str, split: str, size: int, data: Data, longest: int | None, tallies: list[Tally]
) -> Iterator[tuple[Question, list[Image.Image]]]:
    """Questions of a published set, or `size` spread evenly over the sets of a group, each with its decoded pictures.

    Pictures shrink to `longest` pixels. `tallies` collects what became of the rows, source by source.
    Raises UserError for what stops a whole set.
    """
    name, _, revision = name.partition("@")
    names = GROUPS.get(name, (name,))
    sources = [named_source(n, split, revision or None) for n in names]
    order = sorted(range(len(names)), key=lambda i: min(sources[i].rows.values(), default=0))  # the smallest first
    missing, used_ids = size, set()
    for done, i in enumerate(order):
        tallies.append(Tally(names[i]))
        share = -(-missing // (len(names) - done))
        for question, pictures in read_source(sources[i], split, share, data, longest, tallies[-1], used_ids):
            missing -= 1
            yield question, pictures


def named_source(name: str, split: str, revision: str | None) -> Source:
    """A published set by its name; another is read in MedVLThinker's columns. `revision` overrides the pinned one."""
    source = SOURCES.get(name) or Source(name, unified, ("question", "options", "answer_label"), (split,), whole=False)
    return replace(source, revision=revision) if revision else source


def read_source(
    source: Source, split: str, size: int, data: Data, longest: int | None, tally: Tally, used_ids: set[str]
) -> Iterator[tuple[Question, list[Image.Image]]]:
    """At most `size` questions of one published set, with their pictures. Raises UserError for what stops the set."""
    tally.revision = revision_of(source, data.mirror)
    if not data.mirror:
        source = replace(source, revision=tally.revision)  # what the card names is what is read
    archive = Archive(source, data.mirror)
    shuffled = not source.whole and size < min(source.rows.values(), default=size + 1)
    rows = _accepted_rows(source, data, shuffled, tally)
    if source.whole:
        rows = _even_sample(rows, source, size, data.seed)
    for number, fields in rows:
        try:
            question, pictures = _question(fields, number, source, split, archive, longest, tally)
        except Refused as error:
            tally.drop(error.column, f"{_row_name(number, shuffled)}: {error.why}")
            continue
        question.id = _unused_id(question, used_ids, tally)
        used_ids.add(question.id)
        tally.kept += 1
        yield question, pictures
        if tally.kept == size:
            return


def _accepted_rows(source: Source, data: Data, shuffled: bool, tally: Tally) -> Iterator[tuple[int, dict]]:
    """(row number, the reader's fields) of the rows that the reader takes."""
    client = _client(data)
    for config in source.configs:
        for split in source.splits:
            for number, row in enumerate(_stream(source, config, split, data, shuffled), 1):
                row = {column.strip(): value for column, value in row.items()}
                if number == 1 and (missing := [column for column in source.columns if column not in row]):
                    place = local_copy(source, data.mirror) if data.mirror else source.repo
                    raise UserError(
                        f"{place} has no column {missing[0]}; it has {', '.join(row)}, "
                        f"and {', '.join(source.columns)} are needed."
                    )
                tally.read += 1
                try:
                    fields = source.reader(row, tally, client)
                except Refused as error:
                    tally.drop(error.column, f"{_row_name(number, shuffled)}: {error.why}")
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    tally.drop("(all)", f"{_row_name(number, shuffled)}: a cell of another kind ({error})")
                else:
                    yield tally.read, {**fields, "group": row.get(source.spread_over) if source.spread_over else None}


def _row_name(number: int, shuffled: bool) -> str:
    return f"row {number} of the shuffled stream" if shuffled else f"row {number}"


def _client(data: Data):
    """The chat client of the server that lists options of closed questions; None where data.endpoint names none."""
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


def local_copy(source: Source, mirror: str) -> Path:
    """The folder of a set's copy. Raises UserError where there is none."""
    folder = Path(mirror) / source.repo
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; data.mirror needs one folder for every data set, named like it.")
    return folder


def revision_of(source: Source, mirror: str | None) -> str | None:
    """The commit that is read: the pinned one, or the newest, asked for now; of a local copy it is not known.

    None where the Hub does not say."""
    if mirror:
        return "local copy"
    if source.revision:
        return source.revision
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(source.repo, timeout=30).sha
    except Exception:  # the read that follows says what is wrong
        return None


def _stream(source: Source, config: str | None, split: str, data: Data, shuffled: bool) -> Iterator[dict]:
    """Rows as `datasets` streams them, images encoded; shuffled where a large set is not read to its end."""
    place = str(local_copy(source, data.mirror)) if data.mirror else source.repo
    try:
        rows = _open_stream(source, config, split, place, data.mirror)
        rows = rows.decode(False) if rows.features else rows  # images stay encoded; CSV and JSON have none
        if shuffled:
            shards = min(10, rows.num_shards)  # more than there are would be waited for
            rows = rows.shuffle(seed=data.seed, buffer_size=SHUFFLE_BUFFER, max_buffer_input_shards=shards)
        yield from rows
    except UserError:
        raise
    except Exception as error:  # datasets, huggingface_hub, pyarrow and fsspec each raise families of their own
        if data.mirror:
            raise UserError(f"cannot read {place} ({first_line(error)}); fetch the copy again.") from error
        at = f" at revision {source.revision}" if source.revision else ""
        raise UserError(
            f"cannot read {place}{at} ({first_line(error)}); "
            "check the name, the revision and the network, or name a copy with data.mirror."
        ) from error


def _open_stream(source: Source, config: str | None, split: str, place: str, mirror: str | None):
    from datasets import load_dataset

    if source.files and source.files.endswith(".json"):
        address = source.files.format(repo=source.repo, revision=source.revision)
        file = str(Path(place) / address.rsplit("/", 1)[1]) if mirror else address
        return load_dataset("json", data_files=file, split="train", streaming=True)
    options: dict[str, Any] = {"data_files": source.files, "split": split, "streaming": True}
    if not mirror:
        return load_dataset(place, config, revision=source.revision, **options)
    if config:  # where the copy has no README.md that describes configurations, they are folders
        options["name" if (Path(place) / "README.md").exists() else "data_dir"] = config
    return load_dataset(place, **options)


def _even_sample(rows: Iterator[tuple[int, dict]], source: Source, size: int, seed: int) -> Iterator[tuple[int, dict]]:
    """An even sample of `size` of all rows, in their order, spread over the groups of rows, the smallest first."""
    groups: dict[Any, list] = defaultdict(list)  # heaps of (-key, row number, fields): the `size` smallest keys
    for number, fields in rows:
        digest = hashlib.sha256(f"{seed}:{source.repo}:{number}".encode()).digest()
        heap, item = groups[fields["group"]], (-int.from_bytes(digest[:8], "big"), number, fields)
        if len(heap) < size:
            heapq.heappush(heap, item)
        elif item > heap[0]:
            heapq.heappushpop(heap, item)
    chosen, missing = [], size
    for done, heap in enumerate(sorted(groups.values(), key=len)):
        share = min(len(heap), -(-missing // (len(groups) - done)))
        chosen += heapq.nlargest(share, heap)
        missing -= share
    yield from sorted(((number, fields) for _, number, fields in chosen), key=lambda pair: pair[0])


def _question(
    fields: dict, number: int, source: Source, split: str, archive: Archive, longest: int | None, tally: Tally
) -> tuple[Question, list[Image.Image]]:
    """A question from a reader's fields, with its decoded pictures. Raises Refused."""
    pictures = [fit_image(archive.bytes_of(value), longest) for value in fields["images"]]
    for picture in pictures:
        tally.changed.update(picture.changes)
    if not isinstance(fields["question"], str) or not fields["question"].strip():
        raise Refused("question", "it is empty")
    question = Question(
        id=str(fields.get("id") or ""),
        dataset=fields["dataset"],
        split=split,
        modality="image" if pictures else "text",
        question=fields["question"],
        options=fields["options"],
        answer_label=fields["label"],
        answer=fields["options"][fields["label"]],
        image_modality=fields.get("image_modality"),
        reasoning=fields.get("reasoning"),
        source={"name": source.repo, "revision": tally.revision, "row": number, "licence": source.licence},
        **picture_fields(pictures, fields.get("extra", {})),
    )
    question.id = question.id or f"{question.dataset}-{_content_hash(question)[:12]}"
    return question, [picture.pixels for picture in pictures]


def _unused_id(question: Question, used_ids: set[str], tally: Tally) -> str:
    """The question's id, told apart by content, then by a number: published indices, and whole rows, repeat."""
    names = [question.id, f"{question.id}-{_content_hash(question)[:8]}"]
    names += [f"{names[1]}-{i}" for i in range(2, 2 + tally.kept)] if names[1] in used_ids else []
    tally.changed["repeated index"] += names[0] in used_ids
    return next(name for name in names if name not in used_ids)


def _content_hash(question: Question) -> str:
    content = (question.question, question.options, question.answer_label, question.image_ids)
    return hashlib.sha256(repr(content).encode()).hexdigest()
