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

from medvlt_lib.records import Question, load_image

RATIO = 95  # rapidfuzz ratio, percent
SHINGLE = 4  # characters
BANDS, ROWS = 32, 4  # MinHash: a pair that shares half its shingles is proposed with probability 0.87, two thirds 0.999
LONG_STEM = 60  # characters from which an equal stem with other options is told
BITS = 256  # of the perceptual hash
FAR = 16  # differing bits up to which two pictures count as one; on 430 smears, CT slices and drawn films, smaller JPEG copies differed in at most 14, pictures of other scenes in 18 or more
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


def fingerprint(question: Question) -> Fingerprint:
    fold = lambda text: " ".join(text.casefold().split())  # noqa: E731
    words = " ".join([fold(question.question), *sorted(map(fold, question.options.values()))])
    hashes = tuple(perceptual_hash(image) for image in question.images)
    name = question.family or question.dataset
    return Fingerprint(question.id, name, question.modality, words, fold(question.question), tuple(question.image_ids), hashes)


def perceptual_hash(image) -> int:
    """The 256-bit perceptual hash (DCT, 16 x 16) of an image as an integer."""
    import imagehash

    return int(str(imagehash.phash(load_image(image), hash_size=16)), 16)


def find_leaks(train: Iterable[Fingerprint], test: list[Fingerprint]) -> Iterator[dict]:
    """One row {train_id, test_id, how, score} for each training question and way in which it equals a test question.

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
        self.exact = {t.words: t.id for t in reversed(test)}
        self.stems = {t.stem: t.id for t in reversed(test) if len(t.stem) >= LONG_STEM}
        self.near = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        with self.near.insertion_session() as session:
            for i, t in enumerate(test):
                session.insert(i, _minhash(t.words))

    def matches(self, question: Fingerprint) -> Iterator[dict]:
        from rapidfuzz import fuzz, process

        if not self.test:
            return
        if question.words in self.exact:
            yield _row(question, self.exact[question.words], "exact text", 100.0)
            return
        proposed = sorted(self.near.query(_minhash(question.words)))
        best = process.extractOne(question.words, [self.test[i].words for i in proposed], scorer=fuzz.ratio, score_cutoff=RATIO)
        if best:
            yield _row(question, self.test[proposed[best[2]]].id, "near text", round(best[1], 1))
        elif question.stem in self.stems:
            yield _row(question, self.stems[question.stem], "same stem", 100.0)


class _Pictures:
    """Test pictures by pixel id and by the bands of their perceptual hash: FAR differing bits leave one of FAR + 1 bands equal."""

    def __init__(self, test: list[Fingerprint]) -> None:
        self.exact = {i: t.id for t in reversed(test) for i in t.image_ids}
        self.bands: dict[tuple[int, int], set[tuple[int, str]]] = defaultdict(set)
        for t in test:
            for value in t.hashes:
                for band in _bands(value):
                    self.bands[band].add((value, t.id))

    def matches(self, question: Fingerprint) -> Iterator[dict]:
        for i in question.image_ids:
            if i in self.exact:
                yield _row(question, self.exact[i], "same image", 0.0)
                return
        near = {n for value in question.hashes for band in _bands(value) for n in self.bands.get(band, ())}
        found = [((value ^ other).bit_count(), name) for value in question.hashes for other, name in near]
        if found and min(found)[0] <= FAR:
            yield _row(question, min(found)[1], "near image", float(min(found)[0]))


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
    """Counts for the data card: for each training set and test data set, matches by way, and questions flagged on both sides.

    `leaks` rows carry `train_set` beside the fields of `find_leaks`; `sizes` maps training sets to their sizes.
    """
    dataset = {t.id: t.dataset for t in test}
    rows = []
    for train_set, size in sizes.items():
        for name in sorted(set(dataset.values())):
            here = [leak for leak in leaks if leak["train_set"] == train_set and dataset[leak["test_id"]] == name]
            row = {"train": train_set, "of_train": size, "test": name, "of_test": sum(d == name for d in dataset.values())}
            row |= {how: sum(leak["how"] == how for leak in here) for how in HOWS}
            rows.append({**row, "flagged_train": len({x["train_id"] for x in here}), "hit_test": len({x["test_id"] for x in here})})
    return rows
