"""Memory does not grow with the number of pictures: they are decoded when a step or a batch needs them."""

import io
from dataclasses import replace

import psutil
import pytest
from PIL import Image
from transformers import TrainerCallback

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Completion, Question, iterate_questions, write_questions
from medvlt_lib.core.runs import open_run
from medvlt_lib.models.loading import load_policy, profile_processor
from medvlt_lib.phantom.questions import make_questions
from medvlt_lib.rollout.transformers_engine import TransformersEngine
from medvlt_lib.stages import filtering, grpo, sft
from medvlt_lib.training import grpo_trainer
from medvlt_lib.training.grpo_trainer import training_rows
from medvlt_lib.training.stored_questions import StoredQuestions

PICTURES, DECODED = 150, 1000 * 800 * 3 / 2**20  # in all 343 MB decoded, and half a megabyte as files


def memory() -> float:
    """What this process holds, in MB."""
    return psutil.Process().memory_info().rss / 2**20


def encoded(picture: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def question(number: int, picture: bytes) -> Question:
    options = {"A": "Heart", "B": "Lung"}
    return Question(f"q{number}", "films", "train", "image", "What is it?", options, "B", "Lung", images=[picture])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """train_text.parquet and train_image.parquet, the latter with large pictures of one colour."""
    folder, picture = tmp_path_factory.mktemp("pictures"), encoded(Image.new("RGB", (1000, 800), "grey"))
    write_questions(make_questions("curb65", "train", 4), folder / "train_text.parquet")
    write_questions((question(number, picture) for number in range(PICTURES)), folder / "train_image.parquet")
    return folder


def test_grpos_data_set_holds_no_decoded_pictures(files, tmp_path, monkeypatch):
    held = []

    def decode(picture):
        held.append(memory())
        return load_image(picture)

    monkeypatch.setattr(grpo_trainer, "load_image", decode)
    before = memory()
    rows = training_rows(StoredQuestions(iterate_questions(files / "train_image.parquet"), tmp_path / "q.arrow"))
    for number in range(PICTURES):
        assert rows[number]["images"][0].size == (1000, 800)
    assert len(held) == PICTURES
    assert max(held) - before < 60 < PICTURES * DECODED / 4


def test_filtering_holds_the_pictures_of_a_batch(files, tmp_path, monkeypatch):
    """With the real engine but for the model, which answers nothing; a batch holds fewer than ten of these pictures."""
    run = open_run(
        "tiny", "films", {"filtering.samples": 8, "filtering.keep_from": 0, "filtering.keep_to": 7}, root=tmp_path
    )
    with run.stage("01", {}, {}) as stage:
        for path in files.iterdir():
            (stage.folder / path.name).write_bytes(path.read_bytes())
        stage.metrics = {"done": 1}
    held = []

    class Engine(TransformersEngine):
        def _batch(self, jobs, sampling):
            held.append(memory())
            samples = [(job, job.first + k) for job in jobs for k in range(job.samples)]
            return [Completion(job.prompt.id, sample, "", [1], None, "stop") for job, sample in samples]

    monkeypatch.setattr(filtering, "build_engine", lambda profile: Engine(None, profile_processor(profile), 10_000))
    before = memory()
    assert filtering.run(run)["rollouts"] == 8 * (PICTURES + 4)
    assert max(held) - before < 60 < PICTURES * DECODED / 4


def test_copies_of_a_row_share_their_picture(files):
    first, second, other = training_rows(list(iterate_questions(files / "train_image.parquet")))[[0, 0, 1]]["images"]
    assert first[0] is second[0] and first[0] is not other[0]


def deep() -> bytes:
    """A film with 16 bits a pixel, most of them above 255."""
    picture = Image.new("I;16", (64, 32))
    picture.putdata([40 * n for n in range(64 * 32 // 2)] * 2)
    return encoded(picture)


def turned() -> bytes:
    """A photograph that its EXIF data turn by 90 degrees."""
    exif = Image.Exif()
    exif[274] = 6
    return encoded(Image.linear_gradient("L").convert("RGB").crop((0, 0, 64, 32)), "JPEG", exif=exif)


@pytest.mark.parametrize("picture", [deep(), turned()], ids=["16 bits", "EXIF"])
def test_trl_is_given_the_picture_that_the_engine_reads(picture, tmp_path):
    """Also after the engine has read TRL's picture once more; text questions have none."""
    questions = [question(0, picture), *make_questions("curb65", "train", 1)]
    rows = training_rows(StoredQuestions(questions, tmp_path / "questions.arrow"))
    [given], none = rows[[0, 1]]["images"]
    expected = load_image(picture)
    assert none == [] and given.mode == "RGB"
    assert given.size == expected.size and given.tobytes() == expected.tobytes() == load_image(given).tobytes()


class Memory(TrainerCallback):
    """What the process holds after every step."""

    def __init__(self) -> None:
        self.held: list[float] = []

    def on_step_end(self, args, state, control, **_):
        self.held.append(memory())


@pytest.mark.slow
@pytest.mark.parametrize("stage", [sft, grpo])
def test_three_hundred_steps_over_fifty_picture_sizes_hold_no_more(stage, tmp_path):
    """Sizes repeat after 50 questions, so what is kept by size is full by step 100."""
    sizes = [(56 + 14 * (n % 25), 56 + 28 * (n // 25)) for n in range(50)]
    pictures = [encoded(Image.new("RGB", size, (n, 2 * n, 3 * n))) for n, size in enumerate(sizes)]
    questions = [replace(question(n, picture), reasoning="grey " * (n % 7 + 1)) for n, picture in enumerate(pictures)]
    limits = {"sft.batch": 1, "sft.micro_batch": 1, "grpo.prompts": 1, "grpo.group_size": 2, "grpo.micro_batch": 2}
    steps = {
        f"{section}.{key}": n for section in ("sft", "grpo") for key, n in (("max_steps", 300), ("save_every", 1000))
    }
    profile = load_profile("tiny", {"model.name": "phantom:small", "grpo.max_completion_length": 8, **limits, **steps})
    stored, watch = StoredQuestions(questions, tmp_path / "questions.arrow"), Memory()
    model = load_policy(profile, trainable=True)
    trainer = stage.make_trainer(profile, model, profile_processor(profile), stored, tmp_path, [watch])
    trainer.train()
    assert len(watch.held) == 300 and max(watch.held[200:]) - max(watch.held[:100]) < 5
