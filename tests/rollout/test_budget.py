"""The cap on money: what is reserved, counted and kept on disk, and that a cap without prices is refused."""

import base64
import io
import threading
import time

import pytest
from PIL import Image

from medvlt_lib.core.config import load_profile
from medvlt_lib.core.errors import UserError
from medvlt_lib.core.runs import open_run
from medvlt_lib.rollout.budget import Budget, prompt_tokens_at_most


def budget(path, cap=None) -> Budget:
    return Budget(path / "spent.json", (1.0, 2.0), cap, "engine.max_cost")


def test_a_cost_takes_the_place_of_its_reservation_and_is_there_after_a_restart(tmp_path):
    first = budget(tmp_path, cap=1.0)
    assert first.cost(1_000_000, 500_000) == 2.0
    first.reserve(0.6)
    assert budget(tmp_path).spent() == pytest.approx(0.6)
    first.settle(0.6, 0.25)
    again = budget(tmp_path, cap=1.0)
    assert again.spent() == pytest.approx(0.25)
    with pytest.raises(UserError, match=r"0.2500 dollars .* may cost 0.8000, .* engine.max_cost = 1.0; raise it"):
        again.reserve(0.8)
    again.reserve(0.7)
    assert again.spent() == pytest.approx(0.95)


def test_a_request_that_does_not_fit_waits_for_those_in_flight(tmp_path):
    money = budget(tmp_path, cap=1.0)
    money.reserve(0.9)
    done = []
    waiting = threading.Thread(target=lambda: done.append(money.reserve(0.5)), daemon=True)
    waiting.start()
    time.sleep(0.1)
    assert not done
    money.settle(0.9, 0.2)
    waiting.join(5)
    assert done and money.spent() == pytest.approx(0.7)


def test_many_at_once_never_pass_the_cap(tmp_path):
    """Sixteen threads on two ledgers of the same file, as two processes would have them."""
    refused, highest, watch = [], [0.0], threading.Lock()
    sharers = [budget(tmp_path, cap=1.0) for _ in range(2)]

    def spend(money: Budget) -> None:
        try:
            for _ in range(50):
                money.reserve(0.1)
                with watch:
                    highest[0] = max(highest[0], money.spent())
                money.settle(0.1, 0.03)
        except UserError:
            refused.append(1)

    threads = [threading.Thread(target=spend, args=(sharers[k % 2],)) for k in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 16 and highest[0] <= 1.0 + 1e-9
    spent = budget(tmp_path).spent()
    assert 0.85 < spent <= 1.0 and spent / 0.03 == pytest.approx(round(spent / 0.03), abs=1e-6)


def test_a_ledger_that_cannot_be_read_is_a_sentence(tmp_path):
    (tmp_path / "spent.json").write_text("{torn")
    with pytest.raises(UserError, match="not readable; delete it to count from zero"):
        budget(tmp_path, cap=1.0).reserve(0.1)


def test_text_has_no_more_tokens_than_bytes():
    short, long = ([{"role": "user", "content": text}] for text in ("?", "ä" * 1000))
    assert prompt_tokens_at_most(long) - prompt_tokens_at_most(short) == 1999


@pytest.mark.parametrize(
    ("width", "height", "known"), [(1024, 1024, 25_501), (2048, 768, 48_169), (7000, 7000, 62_500)]
)
def test_a_picture_counts_at_least_what_known_servers_count(width, height, known):
    """gpt-4o-mini charges 2,833 and 5,667 a tile: a square of 1,024 pixels is cut into 4. Qwen2.5-VL takes (7000 /
    28)²."""
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    assert known <= prompt_tokens_at_most([message]) <= known + 100


@pytest.mark.parametrize("cap, prices", [
    ("engine.max_cost", ("engine.prompt_price", "engine.completion_price")),
    ("data.endpoint_max_cost", ("data.endpoint_prompt_price", "data.endpoint_completion_price")),
])  # fmt: skip
def test_a_cap_without_prices_is_refused_when_the_profile_loads(cap, prices):
    for given in ({}, {prices[0]: 1.0}, {prices[1]: 1.0}):
        with pytest.raises(UserError, match=f"{cap} needs {prices[0]} and {prices[1]}"):
            load_profile("tiny", {cap: 5.0, **given})
    load_profile("tiny", {cap: 5.0, prices[0]: 1.0, prices[1]: 1.0})


def test_prices_and_caps_tell_no_run_from_another(tmp_path):
    """Whoever raises a cap goes on in the same run; no stage takes it for another setting."""
    run = open_run("tiny", None, root=tmp_path)
    names = [name.partition(".")[2] for name in run.settings("data", "engine")]
    assert [name for name in names if name.endswith(("_price", "max_cost"))] == []
