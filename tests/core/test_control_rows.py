"""What controls say, by hand: each on the same questions, against guessing, with an explanation where it is below."""

import pytest

from medvlt_lib.core.control_rows import AS_ASKED, GREY, OTHER, REORDERED, compared, notes, table
from medvlt_lib.core.records import Question

OPTIONS = dict(zip("ABCD", ("one", "two", "three", "four"), strict=True))


def questions(number: int) -> list[Question]:
    """The right answer is B, 'two', to all."""
    picture = b"x"
    return [
        Question(f"q{i}", "set", "test", "image", "?", OPTIONS, "B", "two", images=[picture], image_ids=[f"p{i}"])
        for i in range(number)
    ]


def answer(question: str, letter: str | None, control: str | None = None, shown=None, options=OPTIONS, right="B"):
    row = {"id": question, "sample": 0, "letter": letter, "correct": letter == right, "truncated": letter is None}
    row |= {"tokens": 9, "dataset": "set"}
    if control:
        row |= {"control": control, "question": question, "named": options.get(letter), "shown": shown}
    return row


def test_a_control_is_compared_on_the_same_questions():
    asked = questions(10)
    plain = [answer(q.id, "B" if i < 8 else "A") for i, q in enumerate(asked)]
    grey = [answer(q.id, "B" if i < 3 else "C", GREY) for i, q in enumerate(asked)]
    rows = {row["control"]: row for row in compared(asked, plain, grey)}
    assert list(rows) == [AS_ASKED, GREY]
    assert (rows[AS_ASKED]["macro"], rows[GREY]["macro"], rows[GREY]["change"]) == pytest.approx((0.8, 0.3, -0.5))
    assert rows[GREY]["chance"] == 0.25 and rows[GREY]["explanation"] is None
    low, high = rows[GREY]["change_interval"]
    assert -0.9 < low < -0.5 < high < -0.1
    assert table(list(rows.values()))[2][:2] == (GREY, "30.0") and "-50.0" in table(list(rows.values()))[2]


def test_letters_that_stay_while_options_move_are_seen():
    """Half of the answers follow the text to its new letter, half stay with the old letter."""
    asked = questions(20)
    moved = dict(zip("ABCD", ("two", "one", "three", "four"), strict=True))
    plain = [answer(q.id, "B") for q in asked]
    rows = [answer(q.id, "AB"[i % 2], REORDERED, options=moved, right="A") for i, q in enumerate(asked)]
    [_, row] = compared(asked, plain, rows)
    assert (row["same_text"], row["same_letter"], row["change"]) == (0.5, 0.5, -0.5)
    assert row["order_p"] == pytest.approx(1 / 2**10, abs=1e-3)  # ten questions lost, none won
    assert "50 % of the answers name the same text and 50 % the same letter" in notes([_, row])


def said(name: str, letters: list, shown=None) -> str:
    asked = questions(len(letters))
    plain = [answer(q.id, "B") for q in asked]
    rows = [answer(q.id, letter, name, shown) for q, letter in zip(asked, letters, strict=True)]
    found = compared(asked, plain, rows)
    assert found[1]["macro"] < found[1]["chance"] and found[1]["chance_p"] < 0.05
    assert f"{name} lies below chance: {found[1]['explanation']}" in notes(found)
    return found[1]["explanation"]


def test_below_chance_because_nothing_was_answered():
    words = said(GREY, [None] * 90 + ["B"] * 5 + ["A"] * 5)
    assert words.startswith("90 % gave no answer (90 % were cut off)") and "50 % are right" in words


def test_below_chance_because_it_looks_at_the_other_picture():
    words = said(OTHER, ["C"] * 85 + ["B"] * 15, shown="three")
    assert words.startswith("it looks: of 100 questions") and "names that in 85 %" in words


def test_below_chance_because_of_a_habit():
    words = said(GREY, ["D"] * 90 + ["B"] * 10)
    assert "90 of 100 times 'four' in set" in words and "no answer" not in words
    words = said(GREY, ["D"] * 70 + ["B"] * 10 + [None] * 20)
    assert words.startswith("20 % gave no answer, and its answers") and "70 of 80 times 'four' in set" in words


def test_above_or_near_chance_nothing_is_explained():
    asked = questions(40)
    plain = [answer(q.id, "B") for q in asked]
    for right in (40, 10, 8):  # all, exactly chance, and below it by no more than chance explains
        rows = [answer(q.id, "B" if i < right else "A", GREY) for i, q in enumerate(asked)]
        assert compared(asked, plain, rows)[1]["explanation"] is None
