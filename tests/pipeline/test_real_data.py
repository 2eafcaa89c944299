"""Real public questions and images through import, data (cleaning, leakage, card), filter and eval;
only where MEDVLT_REAL_DATA names their folder. It holds:

    mirage/questions.jsonl.gz            rows of medqa, medmcqa, pubmedqa and mmlu, at least 200 of each: dataset, id,
                                         question, options, answer
    pubmedqa/data/ori_pqal.json          PubMedQA's expert-labelled questions, as released
    mirp/.../qa*.json                    yes-or-no questions on CT slices: filename, question_answer; the slices of
                                         qa.json in images/ beside it, those of qa_1.json in image_1/
    bccd/BCCD/Annotations, JPEGImages    the blood smears of BCCD, as released
"""

import gzip
import io
import json
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from medvlt_lib.core.records import read_questions
from tests.pipeline.conftest import medvlt, settings

FOLDER = os.environ.get("MEDVLT_REAL_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="not run: MEDVLT_REAL_DATA names no folder of public questions")
ROOT = Path(FOLDER or ".").resolve()


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def mirage() -> list[dict]:
    with gzip.open(ROOT / "mirage" / "questions.jsonl.gz", "rt") as file:
        return [{**r, "id": f"{r['dataset']}-{r['id']}"} for r in map(json.loads, file)]


def pubmedqa() -> list[dict]:
    """The expert-labelled questions with their contexts, yes, no or maybe."""
    rows = json.loads((ROOT / "pubmedqa/data/ori_pqal.json").read_text())
    options = {"A": "yes", "B": "no", "C": "maybe"}
    return [
        {
            "id": k,
            "dataset": "pubmedqa_long",
            "question": " ".join([*r["CONTEXTS"], r["QUESTION"]]),
            "options": options,
            "answer": {text: letter for letter, text in options.items()}[r["final_decision"]],
            "reasoning": r["LONG_ANSWER"],
        }
        for k, r in rows.items()
    ]


def ct() -> list[dict]:
    """Every CT question with its picture; answers are yes or no, without options."""
    rows = []
    for file in sorted((ROOT / "mirp").rglob("qa*.json")):
        images = file.parent / file.name.replace("qa", "image" if "_" in file.name else "images").removesuffix(".json")
        for case in json.loads(file.read_text()):
            for i, pair in enumerate(case["question_answer"]):
                rows.append(
                    {
                        "id": f"{file.parent.name}-{file.stem}-{case['filename']}-{i}",
                        "dataset": f"mirp-{file.parent.name}",
                        "question": pair["question"],
                        "answer": "yes" if pair["answer"] == 1 else "no",
                        "image": str(images / case["filename"]),
                        "image_modality": "CT",
                    }
                )
    return rows


def smears() -> list[dict]:
    """Blood smears: how many white cells were marked?"""
    rows = []
    for file in sorted((ROOT / "bccd/BCCD/Annotations").glob("*.xml")):
        names = [o.findtext("name") for o in ElementTree.parse(file).getroot().iter("object")]
        count = min(names.count("WBC"), 3)
        image = ROOT / "bccd/BCCD/JPEGImages" / f"{file.stem}.jpg"
        rows.append(
            {
                "id": file.stem,
                "dataset": "bccd",
                "question": "How many white blood cells are marked?",
                "options": ["none", "one", "two", "more"],
                "answer": "ABCD"[count],
                "image": str(image),
            }
        )
    return rows


def imported(folder: Path, name: str, rows: list[dict], code: int = 0) -> Path:
    write(folder / f"{name}.jsonl", rows)
    done = medvlt(folder, "import", f"{name}.jsonl", "--out", name, "--yes")
    assert done.returncode == code, done.stderr[-2000:]
    return folder / name / "questions.parquet"


def test_real_questions_go_through_without_an_exception(tmp_path):
    seen: Counter = Counter()
    rows = []
    for row in mirage():
        seen[row["dataset"]] += 1
        rows += [row] if seen[row["dataset"]] <= 200 else []
    assert set(seen) == {"medqa", "medmcqa", "pubmedqa", "mmlu"}
    text, image = imported(tmp_path, "text", rows), imported(tmp_path, "image", ct())
    every = imported(tmp_path, "test", rows + ct())
    assert len(read_questions(text)) == 800 and len(read_questions(image)) >= 100
    sets = {"data.train_text": text, "data.train_image": image, "data.test": every}
    sizes = {
        "data.train_text_size": 5000,
        "data.train_image_size": 5000,
        "data.test_size": 10000,
        "filtering.samples": 2,
        "filtering.keep_to": 1,
        "filtering.max_new_tokens": 32,
        "eval.max_new_tokens": 32,
    }
    for command in ("data", "filter", "eval"):
        done = medvlt(tmp_path, command, "--profile", "tiny", *(settings(**sets, **sizes) if command == "data" else []))
        assert done.returncode == 0, done.stderr[-3000:]
    scores = json.loads((tmp_path / "runs/tiny/05_eval/base/scores.json").read_text())
    assert scores["questions"] == len(read_questions(every))
    leaks = [json.loads(line) for line in (tmp_path / "runs/tiny/01_data/leaks.jsonl").read_text().splitlines()]
    assert {leak["train_id"] for leak in leaks} == {
        q.id for f in (text, image) for q in read_questions(f)
    }  # the test set is the training set
    answers = tmp_path / "answers.jsonl"
    graded = (
        json.loads(line)
        for part in sorted((tmp_path / "runs/tiny/02_filtering/rollouts").glob("*.jsonl"))
        for line in part.read_text().splitlines()
    )
    questions = {q.id: q for f in (text, image) for q in read_questions(f)}
    write(
        answers,
        [
            {
                "response": r["text"],
                "options": questions[r["id"]].options,
                "answer_label": questions[r["id"]].answer_label,
            }
            for r in graded
        ],
    )
    for grader in ("published", "published-medvlm-r1", "tolerant"):
        assert (
            medvlt(tmp_path, "grade", "answers.jsonl", "--grader", grader, "--out", f"{grader}.jsonl").returncode == 0
        )


def test_planted_leaks_are_found_among_real_ones(tmp_path):
    rows, smear_rows, ct_rows = mirage(), smears(), ct()
    train = rows[: len(rows) // 2] + pubmedqa()
    source = next(r for r in rows[:100] if "year-old" in r["question"] and len(r["question"]) > 300)
    near = {
        **source,
        "id": "planted",
        "question": source["question"].replace(" a ", "  A ").replace("year-old", "yr-old"),
    }
    with Image.open(smear_rows[5]["image"]) as picture:
        picture.resize((400, 300)).save(tmp_path / "copy.jpg", quality=70)
    copy = {**smear_rows[5], "id": "copy", "image": "copy.jpg"}
    torn = {**smear_rows[6], "id": "torn", "image": "torn.jpg"}
    (tmp_path / "torn.jpg").write_bytes(Path(smear_rows[6]["image"]).read_bytes()[:3000])
    half = len(smear_rows) // 2
    text = imported(tmp_path, "text", train)
    image = imported(
        tmp_path, "image", smear_rows[:half] + [r for r in ct_rows if r["dataset"] == "mirp-RQ1"] + [torn], code=1
    )
    refused = [json.loads(line) for line in (tmp_path / "image/refused.jsonl").read_text().splitlines()]
    assert [r["column"] for r in refused] == ["image"]
    test = imported(tmp_path, "test", [*rows[len(rows) // 2 :], near, *smear_rows[half:], copy])
    sets = {"data.train_text": text, "data.train_image": image, "data.test": test}
    sizes = {"data.train_text_size": 9000, "data.train_image_size": 900, "data.test_size": 9000}
    done = medvlt(tmp_path, "data", "--profile", "tiny", *settings(**sets, **sizes))
    assert done.returncode == 0, done.stderr[-3000:]
    leaks = [json.loads(line) for line in (tmp_path / "runs/tiny/01_data/leaks.jsonl").read_text().splitlines()]
    pairs = {(x["train_id"], x["test_id"], x["how"]) for x in leaks}
    assert (source["id"], "planted", "near text") in pairs
    assert (smear_rows[5]["id"], "copy", "near image") in pairs
    others = [x for x in leaks if x["how"] in ("same image", "near image") and x["test_id"] != "copy"]
    assert others == []  # 364 different smears and CT slices: no picture is taken for another
    card = (tmp_path / "runs/tiny/01_data/data_card.md").read_text()
    assert "medmcqa" in card and "bccd" in card
    with Image.open(io.BytesIO((tmp_path / "runs/tiny/01_data/samples.png").read_bytes())) as sheet:
        assert min(sheet.size) > 300
