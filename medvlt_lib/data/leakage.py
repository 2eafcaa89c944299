"""Is a training question also a test question? Words and pictures, exact and near, in time linear in the number of questions.

Words are compared as question and options together, without case and order of options: equal, or with a rapidfuzz ratio
of at least 95 (the threshold with which m1, arXiv 2504.00869, cleaned the text set); MinHash proposes the pairs that are
measured. Long question stems are also compared alone. Pictures are compared by their pixels and by a perceptual hash of
256 bits, which survives another file format and another size.
Two image questions are the same only if their pictures are: the same words are asked of many pictures.
Not found: a question inside a much longer one, another language, a picture cropped, turned or drawn over.
"""

from __future__ import annotations

import itertools
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Question

RATIO = 95  # rapidfuzz ratio, percent
SHINGLE = 4  # characters
BANDS, ROWS = 32, 4  # MinHash: a pair that shares half its shingles is proposed with probability 0.87, two thirds 0.999
LONG_STEM = 60  # characters from which an equal stem with other options is told
BITS = 256  # of the perceptual hash
FAR = 16  # differing bits up to which two pictures count as one; on 430 smears, CT slices and drawn films, smaller JPEG copies differed in at most 14, pictures of other scenes in 18 or more
MATCHES = 20  # test questions told of one training question in one way
HOWS = ("exact text", "near text", "same stem", "same image", "near image")


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a question: its words, its stem, its pictures' pixel ids and perceptual hashes."""

    id: str
    dataset: str
    modality: str
    words: str
    stem: str
    image_ids: tuple[str, ...] = ()
    hashes: tuple[int, ...] = field(default=())


def fingerprint(question: Question, pictures: list | None = None) -> Fingerprint:
    """What identifies a question; `pictures` are its images where they are unpacked already."""
    fold = lambda text: " ".join(text.casefold().split())  # noqa: E731
    words = " ".join([fold(question.question), *sorted(map(fold, question.options.values()))])
    hashes = tuple(
        value
        for image in (question.images if pictures is None else pictures)
        if (value := perceptual_hash(image)) is not None
    )
    name = question.family or question.dataset
    return Fingerprint(
        question.id, name, question.modality, words, fold(question.question), tuple(question.image_ids), hashes
    )


def perceptual_hash(image) -> int | None:
    """The 256-bit perceptual hash (DCT, 16 x 16) of an image as an integer; None of an empty picture, which has none."""
    import imagehash
    from PIL import ImageStat

    picture = load_image(image)
    if max(ImageStat.Stat(picture.convert("L")).stddev) < 1:
        return None
    return int(str(imagehash.phash(picture, hash_size=16)), 16)


def find_leaks(train: Iterable[Fingerprint], test: list[Fingerprint]) -> Iterator[dict]:
    """Rows {train_id, test_id, how, score}: each training question with the test questions (at most MATCHES a way) that it equals.

    score: rapidfuzz ratio for words, differing bits for near images. Text test questions are compared with every training
    question, image test questions with text questions by words and with image questions by pictures.
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
        told = self.exact.get(question.words, [])[:MATCHES]
        yield from (_row(question, name, "exact text", 100.0) for name in told)
        proposed = {i: self.test[i].words for i in sorted(cast(list[int], self.near.query(_minhash(question.words))))}
        found = process.extract(question.words, proposed, scorer=fuzz.ratio, score_cutoff=RATIO, limit=MATCHES)
        near = [(self.test[i].id, score) for _, score, i in found if self.test[i].words != question.words]
        yield from (_row(question, name, "near text", round(score, 1)) for name, score in near)
        told = {*told, *(name for name, _ in near)}
        yield from (
            _row(question, name, "same stem", 100.0)
            for name in self.stems.get(question.stem, [])[:MATCHES]
            if name not in told
        )


class _Pictures:
    """Test pictures by pixel id and by the bands of their perceptual hash: FAR differing bits leave one of FAR + 1 bands equal."""

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
        told = {name for i in question.image_ids for name in self.exact.get(i, [])[:MATCHES]}
        yield from (_row(question, name, "same image", 0.0) for name in sorted(told))
        near = {n for value in question.hashes for band in _bands(value) for n in self.bands.get(band, ())}
        far = sorted(
            (min((value ^ other).bit_count() for value in question.hashes), name)
            for other, name in near
            if name not in told
        )
        yield from (_row(question, name, "near image", float(bits)) for bits, name in far[:MATCHES] if bits <= FAR)


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


def leak_table(leaks: list[dict], sizes: dict[str, int], test: list[Fingerprint]) -> list[dict]:
    """Counts for the data card: for each training set and test data set, training questions by way, and flagged on both sides.

    `leaks` rows carry `train_set` beside the fields of `find_leaks`; `sizes` maps training sets to their sizes.
    """
    dataset = {t.id: t.dataset for t in test}
    rows = []
    for train_set, size in sizes.items():
        for name in sorted(set(dataset.values())):
            here = [leak for leak in leaks if leak["train_set"] == train_set and dataset[leak["test_id"]] == name]
            row = {
                "train": train_set,
                "of_train": size,
                "test": name,
                "of_test": sum(d == name for d in dataset.values()),
            }
            row |= {how: len({leak["train_id"] for leak in here if leak["how"] == how}) for how in HOWS}
            rows.append(
                {
                    **row,
                    "flagged_train": len({x["train_id"] for x in here}),
                    "hit_test": len({x["test_id"] for x in here}),
                }
            )
    return rows
