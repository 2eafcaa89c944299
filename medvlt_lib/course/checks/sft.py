"""Checks of the exercises in notebook 03."""

from __future__ import annotations

import math
from typing import Any

from medvlt_lib.course.telling import tell, tell_names


def label_mask(function: Any) -> None:
    """label_mask(ids, header, end): the ids of the assistant's turns after their header, end included; else -100."""
    head, end, no = [1, 2], 3, -100

    def case(ids: list[int], labels: list[int], look: Any) -> tuple:
        return (ids, head, end), labels, look

    def first(got: Any) -> str:
        values = got.tolist() if hasattr(got, "tolist") else got
        if not isinstance(values, list | tuple) or len(values) != 10:
            return "Every token needs one label: as many labels as ids."
        if values[6] != no:
            return "The header is given to the model, not learned."
        if values[9] == no:
            return "Without a label on the closing token the model would never learn to stop."
        return "Labels stand on the assistant's words alone, each at its own token's place; all others are -100."

    cases = [
        case([1, 9, 7, 8, 3, 1, 2, 5, 6, 3], [no] * 7 + [5, 6, 3], first),
        case([1, 9, 7, 3, 1, 2, 5, 3, 3, 3], [no] * 6 + [5, 3, no, no], "Padding may use the closing token's id."),
        case([1, 2, 5, 3, 1, 9, 3, 1, 2, 6, 3], [no, no, 5, 3, *[no] * 5, 6, 3], "The assistant may speak twice."),
        case([1, 9, 2, 7, 3, 1, 2, 5, 3], [no] * 7 + [5, 3], "A token of the header alone opens no turn."),
        case([1, 9, 7, 3], [no] * 4, "A row may have no turn of the assistant."),
        case([1, 2, 5, 6], [no, no, 5, 6], "An answer that was cut off has no closing token."),
        case([], [], "A row may be empty."),
        (([7, 4, 4, 8, 5, 6], [4, 4, 8], 6), [no] * 4 + [5, 6], "A header may be longer than two tokens."),
    ]
    tell(function, cases, "Loss on the assistant's words and on the token that ends them, and on nothing else.")


def qlora_bytes(function: Any) -> None:
    """qlora_bytes(layers, rank): bytes of NF4 weights, and of LoRA adapters in training; layers (outputs, inputs)."""

    def case(layers: list[tuple[int, int]], rank: int, look: str) -> tuple:
        frozen = sum(out * into for out, into in layers)
        return (layers, rank), frozen * 4.5 / 8 + sum(16 * rank * (out + into) for out, into in layers), look

    adapter = "The adapter: two small matrices a layer. How many bytes does training keep for each of their weights?"
    cases = [
        case([(64, 64)], 0, "Frozen weights: half a byte each. What else does NF4 keep, and for how many weights?"),
        case([(64, 64)], 1, adapter),
        case([(64, 64)], 8, "How does the adapter grow with the rank?"),
        case([(256, 64)], 8, "A layer may have more outputs than inputs; each small matrix has one of them as a side."),
        case([(256, 64), (64, 256), (64, 64)], 4, "Every layer has an adapter of its own."),
        case([], 8, "Without layers there are no bytes."),
    ]
    tell(function, cases, "Frozen weights are cheap, and the few trained ones cost 16 bytes each.")


def whole_loss(function: Any) -> None:
    """whole_loss(parts): the loss of all micro-batches as of one batch; parts (mean loss, tokens with loss)."""
    cases = [
        (([(2.0, 10)],), 2.0, "One part is the whole batch."),
        (([(1.0, 10), (3.0, 10)],), 2.0, "Parts of equal size weigh alike, and it is a mean, not a sum."),
        (([(1.0, 30), (3.0, 10)],), 1.5, "Every token weighs alike. Do yours?"),
        (([(4.0, 1), (1.0, 4), (2.0, 5)],), 1.8, "Every token weighs alike, in any number of parts."),
        (([(1.0, 5), (math.nan, 0)],), 1.0, "A part without such tokens has no mean (nan): what does it spoil?"),
    ]
    tell(function, cases, "Cut a batch as you like: the loss stays the same.")


def broken(answer: Any) -> None:
    """broken(answer): {run: what was done to it} for the five runs of `breaking.py`."""
    from medvlt_lib.course.breaking import RUNS, WAYS

    tell_names(
        answer, RUNS, WAYS, "An error, a first loss, a later loss, and answers: each break shows elsewhere first."
    )
