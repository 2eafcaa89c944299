"""The README's first screen, from the reference run: one picture question, two answers to it, the reward's curve."""

from __future__ import annotations

import io
import json
import textwrap
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medvlt_lib.core.files import atomic_write, read_json, read_jsonl
from medvlt_lib.core.images import load_image
from medvlt_lib.core.plot_style import BLUE, GREY, running_mean
from medvlt_lib.core.records import Question, read_questions
from medvlt_lib.course.lesson import REFERENCE, RESULTS
from medvlt_lib.course.times import PACE, whole_course

SHOWN = "phantom-cardiothoracic_ratio-test-0-3"  # one of those that the base gets wrong and the trained arm right
ARM = "rl_text"
QUESTION, REWARD = "reference-question.png", "reference-reward.png"


def first_screen() -> str:
    """The lines of the README, as Markdown, between its pictures of the course and its commands."""
    question, before, after = _question(SHOWN), _answers("base"), _answers(ARM)
    options = ", ".join(f"{letter}. {text}" for letter, text in question.options.items())
    pictures = [key for key, row in before.items() if row["modality"] == "image"]
    better = sum(after[key]["correct"] and not before[key]["correct"] for key in pictures)
    worse = sum(before[key]["correct"] and not after[key]["correct"] for key in pictures)
    rewards = reward_curve()
    record = read_json(RESULTS / "course-tiny.json")
    seconds = sum(own["seconds"] for own in record["notebooks"].values())
    reading, exercises = whole_course()
    about = (
        "From the [reference run](medvlt_lib/assets/reference) that ships with the package (profile `tiny`, LoRA). "
        "The question asks for the width of the heart over that of the chest. "
        f"The mean reward of five steps goes from {sum(rewards[:5]) / 5:.2f} to {sum(rewards[-5:]) / 5:.2f}. "
        f"The question is chosen: of the run's {len(pictures)} test questions with a picture {better} were wrong "
        f"before and right afterwards, and {worse} the other way round. Nobody wrote the model an answer; a rule said "
        "right or wrong."
    )
    course = (
        f"The course runs in {seconds / 60:.0f} minutes on {record['hardware']['cores']} CPU cores (recorded). To read "
        f"it takes about {_hours(reading)} hours, its exercises {_hours(exercises)} more (estimates: {PACE} words a "
        "minute, and the minutes that each exercise names). Afterwards you can write GRPO's loss from memory, for a "
        "question with a picture, too; say which questions teach, and why; train with SFT and with GRPO, and read the "
        "curves; tell a gain from luck; and check whether a model looks at its pictures."
    )
    return f"""![A drawn chest film](results/{QUESTION})

> {question.question} {options}

| | says | |
|---|---|---|
| the base model | {_told(before[SHOWN])} | {_verdict(before[SHOWN])} |
| after {len(rewards)} steps of GRPO on *text* questions | {_told(after[SHOWN])} | {_verdict(after[SHOWN])} |

![The mean reward of every step](results/{REWARD})

{textwrap.fill(f"*{about}*", 120, break_on_hyphens=False, break_long_words=False)}

{textwrap.fill(course, 120, break_on_hyphens=False, break_long_words=False)}"""


def draw(folder: Path = RESULTS) -> list[Path]:
    """Draw the two pictures into `folder`; each holds, as text, what it was drawn from. Returns their paths."""
    picture = load_image(_question(SHOWN).images[0])
    picture = picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.NEAREST)
    _save(folder / QUESTION, picture, {"question": SHOWN})
    rewards = reward_curve()
    figure = Figure(figsize=(6, 2.2), layout="constrained")
    axis = figure.subplots()
    steps = range(1, len(rewards) + 1)
    axis.plot(steps, rewards, color=GREY, linewidth=0.8, label="one step")
    axis.plot(steps, running_mean(rewards), color=BLUE, linewidth=2, label="mean of five steps")
    axis.set(xlabel="step of GRPO", ylabel="mean reward", ylim=(0, 1))
    axis.legend(loc="lower right", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    _save(folder / REWARD, Image.open(buffer), {"rewards": json.dumps(rewards)})
    return [folder / QUESTION, folder / REWARD]


def reward_curve() -> list[float]:
    """The mean reward of every step of the reference run's GRPO."""
    log = read_jsonl(REFERENCE / "04_grpo" / ARM / "log.jsonl")
    return [float(row["reward"]) for row in log if "reward" in row]


def _save(path: Path, picture: Image.Image, words: dict[str, str]) -> None:
    about = PngInfo()
    for key, value in words.items():
        about.add_text(key, value)
    atomic_write(path, lambda temporary: picture.save(temporary, "PNG", pnginfo=about, optimize=True))


@cache
def _question(key: str) -> Question:
    return next(q for q in read_questions(REFERENCE / "01_data" / "test.parquet") if q.id == key)


@cache
def _answers(arm: str) -> dict[str, dict]:
    return {row["id"]: row for row in pq.read_table(REFERENCE / "05_eval" / arm / "answers.parquet").to_pylist()}


def _told(answer: dict) -> str:
    """The thinking and the letter, without the tags."""
    thinking = answer["text"].partition("<think>")[2].partition("</think>")[0].strip()
    return f"{thinking} **{answer['letter']}**"


def _hours(minutes: int) -> str:
    return f"{round(minutes / 30) / 2:g}"


def _verdict(answer: dict) -> str:
    return "right" if answer["correct"] else "wrong"
