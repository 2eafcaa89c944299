"""Prompts for the language model: questions of the phantom world and plain text, by a fixed rule."""

from medvlt_lib.core.prompts import STYLES, prompt_text
from medvlt_lib.phantom.questions import make_questions

SENTENCES = (
    "The heart is a muscle that", "Once upon a time there was", "In 1928 Alexander Fleming",
    "naïve Müller: 37.5 °C, 120/80",
    "def mean(values):\n    return", "Question: what is 12 + 30?\n\nAnswer:", "A. yes\n\nB. no\n\n", "   two  spaces",
)  # fmt: skip


def prompts(count=200):
    """`count` texts: of every eight, seven ask text questions in the published styles; they differ in length."""
    questions = make_questions("text", "validation", count)
    texts = [prompt_text(q, STYLES[i % len(STYLES)]) for i, q in enumerate(questions)]
    for i in range(0, count, 8):
        texts[i] = f"{SENTENCES[i // 8 % len(SENTENCES)]} {i}"
    return texts
