"""Options for closed questions that come without them, as MedVLThinker made them (data_process/extract_options.py).

Yes-or-no questions get Yes and No at once. For the others a language model lists the options in the order in which
the question names them. A list that is no JSON, has one entry or lacks the gold answer is asked for again, up to five
times.
"""

from __future__ import annotations

import json
import re

from medvlt_lib.core.records import LETTERS
from medvlt_lib.data.rows import Refused
from medvlt_lib.rollout.chat_client import ChatClient

ATTEMPTS = 5
INSTRUCTION = (
    "List the possible answers that a closed medical question offers. Keep the order in which the question names them, "
    "and include the given answer. Reply with a JSON list of strings and nothing else."
)
SHOTS = [
    ("Is the trachea midline?", "Yes", ["Yes", "No"]),
    ("Is the mass on the left or the right?", "Left", ["Left", "Right"]),
    ("Was this picture taken by CT or by MRI?", "MRI", ["CT", "MRI"]),
    ("Which is brighter here, white matter, grey matter or fluid?", "fluid", ["white matter", "grey matter", "fluid"]),
    ("Is this an axial plane or a coronal plane?", "axial", ["axial", "coronal"]),
]


def yes_no(answer) -> dict[str, str] | None:
    """Yes and No as options when the answer is one of them."""
    return {"A": "Yes", "B": "No"} if str(answer).strip().lower() in ("yes", "no") else None


def closed_options(question: str, answer: str, client: ChatClient | None) -> dict[str, str]:
    """Options of a closed question, the answer among them. Raises Refused without an endpoint or a valid list."""
    if found := yes_no(answer):
        return found
    if client is None:
        raise Refused("options", "this closed question has no options; data.endpoint names a server that lists them")
    for attempt in range(ATTEMPTS):
        listed = _listed(client.ask(_messages(question, answer), attempt, temperature=0.0 if attempt == 0 else 1.0))
        if len(listed) >= 2 and answer.strip().lower() in [text.lower() for text in listed]:
            return dict(zip(LETTERS, listed, strict=False))
    raise Refused("options", f"no valid list of options came in {ATTEMPTS} attempts for the answer {answer!r}")


def _messages(question: str, answer: str) -> list[dict]:
    shots = [("user", _ask(q, a), "assistant", json.dumps(listed)) for q, a, listed in SHOTS]
    turns = [{"role": role, "content": text} for shot in shots for role, text in (shot[:2], shot[2:])]
    return [{"role": "system", "content": INSTRUCTION}, *turns, {"role": "user", "content": _ask(question, answer)}]


def _ask(question: str, answer: str) -> str:
    return f"Question: {question}\nAnswer: {answer}"


def _listed(text: str) -> list[str]:
    """The distinct strings of the first JSON list in a reply, at most ten; empty when there is none."""
    found = re.search(r"\[.*?\]", text, re.DOTALL)
    try:
        values = json.loads(found.group()) if found else []
    except ValueError:
        return []
    texts = [str(v).strip() for v in values if str(v).strip()]
    return list(dict.fromkeys(texts)) if len(texts) <= len(LETTERS) else []
