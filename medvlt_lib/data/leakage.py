"""Is a training question also a validation or a test question? Words and pictures, exact and near, in linear time.

Words are compared as question and options together, without case and order of options: equal, or with a rapidfuzz
ratio of at least 95 (the threshold with which m1, arXiv 2504.00869, cleaned the text set). MinHash proposes the pairs
that are measured. Long question stems are also compared alone. Pictures are compared by their pixels and by a
perceptual hash of 256 bits, which survives another file format and another size.
Two image questions are the same only if their pictures are: the same words are asked of many pictures.
Not found: a question inside a much longer one, another language, a picture cropped, turned or drawn over.
"""

from __future__ import annotations

import itertools
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from PIL import Image, ImageStat

from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Question

RATIO = 95  # rapidfuzz ratio, percent
SHINGLE = 4  # characters
BANDS, ROWS = 32, 4  # MinHash: a pair that shares half its shingles is proposed with probability 0.87, two thirds 0.999
LONG_STEM = 60  # characters from which an equal stem with other options is reported
BITS = 256  # of the perceptual hash
# Differing bits up to which two pictures count as one: on 430 smears, CT slices and drawn films, smaller JPEG copies
# differed in at most 14, pictures of other scenes in 18 or more.
FAR = 16
MATCHES = 20  # test questions reported for one training question in one way
HOWS = ("exact text", "near text", "same stem", "same image", "near image")


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a question: its words, its stem, its pictures' pixel ids and perceptual hashes; and its group."""

    id: str
    group: str
    modality: str
    words: str
    stem: str
    image_ids: tuple[str, ...] = ()
    hashes: tuple[int, ...] = ()


def fingerprint(question: Question, pictures: Sequence[Image.Image] | None = None) -> Fingerprint:
    """What identifies a question; `pictures` are its images where they are decoded already."""
    stem = _folded(question.question)
    words = " ".join([stem, *sorted(map(_folded, question.options.values()))])
    hashes = [perceptual_hash(image) for image in (question.images if pictures is None else pictures)]
    return Fingerprint(
        question.id,
        question.group,
        question.modality,
        words,
        stem,
        tuple(question.image_ids),
        tuple(value for value in hashes if value is not None),
    )


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def perceptual_hash(image: str | bytes | Image.Image) -> int | None:
    """The 256-bit perceptual hash (DCT, 16 x 16) of an image; None of an empty picture, which has none."""
    import imagehash

    picture = load_image(image)
    if max(ImageStat.Stat(picture.convert("L")).stddev) < 1:
        return None
    return int(str(imagehash.phash(picture, hash_size=16)), 16)


def find_leaks(train: Iterable[Fingerprint], test: list[Fingerprint]) -> Iterator[dict]:
    """Rows {train_id, test_id, how, score}: each training question with the held-out questions that it equals, at most
    MATCHES in one way.

    score: how alike the two are in percent, 100 where they are equal: the rapidfuzz ratio for words, the share of equal
    bits of the perceptual hashes for near images. Text test questions are compared with every
    training question, image test questions with text questions by words and with image questions by pictures.
    """
    words = {kind: _Words([t for t in test if kind == "text" or t.modality == "text"]) for kind in ("text", "image")}
    pictures = _Pictures(test)
    for question in train:
        yield from words[question.modality].matches(question)
        yield from pictures.matches(question)


class _Words:
    """Test questions by their words, their stems and their MinHashes."""

    def __init__(self, test: list[Fingerprint]) -> None:
        from datasketch import MinHashLSH

        self.test = test
        self.exact, self.stems = defaultdict(list), defaultdict(list)
        for t in test:
            self.exact[t.words].append(t.id)
            if len(t.stem) >= LONG_STEM:
                self.stems[t.stem].append(t.id)
        self.near = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        with self.near.insertion_session() as session:
            for i, t in enumerate(test):
                session.insert(i, _minhash(t.words))

    def matches(self, question: Fingerprint) -> Iterator[dict]:
        from rapidfuzz import fuzz, process

        if not self.test:
            return
        exact = self.exact.get(question.words, [])[:MATCHES]
        yield from (_row(question, test_id, "exact text", 100.0) for test_id in exact)
        proposed = {i: self.test[i].words for i in sorted(cast(list[int], self.near.query(_minhash(question.words))))}
        found = process.extract(question.words, proposed, scorer=fuzz.ratio, score_cutoff=RATIO, limit=MATCHES)
        near = {self.test[i].id: score for _, score, i in found if self.test[i].words != question.words}
        yield from (_row(question, test_id, "near text", round(score, 1)) for test_id, score in near.items())
        same_stem = self.stems.get(question.stem, [])[:MATCHES]
        yield from (_row(question, i, "same stem", 100.0) for i in same_stem if i not in near and i not in exact)


class _Pictures:
    """Test pictures by pixel id and by the bands of their perceptual hash: FAR differing bits leave one of FAR + 1
    bands equal."""

    def __init__(self, test: list[Fingerprint]) -> None:
        self.exact: dict[str, list[str]] = defaultdict(list)
        for t in test:
            for i in set(t.image_ids):
                self.exact[i].append(t.id)
        self.bands: dict[tuple[int, int], set[tuple[int, str]]] = defaultdict(set)
        for t in test:
            for value in t.hashes:
                for band in _bands(value):
                    self.bands[band].add((value, t.id))

    def matches(self, question: Fingerprint) -> Iterator[dict]:
        same = {test_id for i in question.image_ids for test_id in self.exact.get(i, [])[:MATCHES]}
        yield from (_row(question, test_id, "same image", 100.0) for test_id in sorted(same))
        near = {pair for value in question.hashes for band in _bands(value) for pair in self.bands.get(band, ())}
        nearest_first = sorted(
            (min((value ^ other).bit_count() for value in question.hashes), test_id)
            for other, test_id in near
            if test_id not in same
        )
        for bits, test_id in nearest_first[:MATCHES]:
            if bits <= FAR:
                yield _row(question, test_id, "near image", round(100 * (1 - bits / BITS), 1))


def _row(question: Fingerprint, test_id: str, how: str, score: float) -> dict:
    return {"train_id": question.id, "test_id": test_id, "how": how, "score": score}


def _bands(value: int) -> list[tuple[int, int]]:
    edges = [i * BITS // (FAR + 1) for i in range(FAR + 2)]
    return [(i, (value >> low) & ((1 << (high - low)) - 1)) for i, (low, high) in enumerate(itertools.pairwise(edges))]


def _minhash(words: str):
    from datasketch import MinHash

    text = words.encode()
    sketch = MinHash(num_perm=BANDS * ROWS, hashfunc=zlib.crc32)
    sketch.update_batch(list({text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))}))
    return sketch


def picture_groups(questions: Sequence[Fingerprint]) -> list[list[str]]:
    """The questions' ids in groups: questions that share a picture, directly or through others, are together."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers: dict[str, int] = {}  # of the pictures; in the graph they stand behind the questions
    edges = [
        (i, len(questions) + numbers.setdefault(pixel_id, len(numbers)))
        for i, question in enumerate(questions)
        for pixel_id in question.image_ids
    ]
    rows, columns = np.array(edges, dtype=int).reshape(-1, 2).T
    size = len(questions) + len(numbers)
    _, labels = connected_components(coo_array((np.ones(len(edges)), (rows, columns)), shape=(size, size)), False)
    groups: dict[int, list[str]] = defaultdict(list)
    for question, label in zip(questions, labels[: len(questions)].tolist(), strict=True):
        groups[label].append(question.id)
    return list(groups.values())


def leak_table(leaks: list[dict], sizes: dict[str, int], held_out: dict[str, list[Fingerprint]]) -> list[dict]:
    """Counts for the data card, one row for each training set, held-out set and group of its questions: the training
    questions that leak in each way, and those of either side that leak at all.

    `leaks` rows carry `train_set` and `test_set` beside the fields of `find_leaks`; `sizes` maps training sets to their
    sizes, `held_out` "validation" and "test" to their questions.
    """
    rows = []
    for train_set, test_set in itertools.product(sizes, held_out):
        group_of = {t.id: t.group for t in held_out[test_set]}
        of_pair = [leak for leak in leaks if (leak["train_set"], leak["test_set"]) == (train_set, test_set)]
        for group, size in sorted(Counter(group_of.values()).items()):
            found = [leak for leak in of_pair if group_of[leak["test_id"]] == group]
            row = {
                "train": train_set,
                "of_train": sizes[train_set],
                "test_set": test_set,
                "test": group,
                "of_test": size,
            }
            row |= {how: len({leak["train_id"] for leak in found if leak["how"] == how}) for how in HOWS}
            row["flagged_train"] = len({leak["train_id"] for leak in found})
            row["hit_test"] = len({leak["test_id"] for leak in found})
            rows.append(row)
    return rows
