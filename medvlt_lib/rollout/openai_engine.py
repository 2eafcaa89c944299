"""The engine for any server or API that speaks OpenAI's chat protocol: a teacher, a baseline, a model served elsewhere.

Requests run side by side; rollout/chat_client.py sends, repeats, caches and counts them. Servers differ, so three
things are looked after here. A server that returns fewer than n choices is asked again. Thinking that it moved into
`reasoning_content` is put back before the answer, where graders expect it. A server that drops images is found out by
its own count of prompt tokens.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Any

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Completion
from medvlt_lib.rollout.chat_client import ChatClient
from medvlt_lib.rollout.engine import Prompt, Sampling

TRIES_WITHOUT_CHOICES = 4  # times that a server which returns no choice at all is asked
IMAGE_TOKENS = 4  # the fewest tokens that an image adds to a prompt
GRACE = 1.0  # seconds that Ctrl-C leaves to answers which are about to come


class OpenAIEngine:
    """`generate` on a ChatClient, `concurrency` prompts at a time. Completions have token counts but no token ids."""

    def __init__(self, client: ChatClient, concurrency: int = 8) -> None:
        self.client, self.concurrency, self._images_checked = client, concurrency, False

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Completions prompt by prompt, in order. Raises UserError when the server fails or the cap is reached.

        What was answered stays in the cache. After an error, the answers in flight are waited for and kept, since they
        may have to be paid. Ctrl-C waits for them only a second.
        """
        turns, stopped = threading.Semaphore(self.concurrency), threading.Event()
        begun: deque[Future] = deque()
        patience: float | None = GRACE
        try:
            for prompt in prompts:
                if prompt.images and not self._images_checked:
                    self._check_images(prompt)
                begun.append(in_background(self._complete, prompt, sampling, turns, stopped))
                if len(begun) >= 2 * self.concurrency:
                    yield from begun[0].result()
                    begun.popleft()
            while begun:
                yield from begun[0].result()
                begun.popleft()
        except UserError:
            patience = None
            raise
        finally:
            stopped.set()
            wait(begun, patience)

    def _complete(
        self, prompt: Prompt, sampling: Sampling, turns: threading.Semaphore, stopped: threading.Event
    ) -> list[Completion]:
        """The completions of one prompt, when it is its turn; fewer once the engine was stopped."""
        messages = with_images(prompt)
        limits = {"temperature": sampling.temperature, "max_tokens": sampling.max_new_tokens}
        found: list[Completion] = []
        attempt = 0
        with turns:
            while len(found) < sampling.n and not stopped.is_set():
                first, missing = sampling.first + len(found), sampling.n - len(found)
                seed = _seed(sampling.seed, prompt.id, first)
                answer = self.client.request(messages, attempt, **limits, n=missing, seed=seed)
                choices = answer["choices"][:missing]
                found += _completions(prompt.id, first, choices, answer.get("usage") or {})
                attempt += 1
                if not choices and attempt >= TRIES_WITHOUT_CHOICES:
                    raise UserError(f"{self.client.url} returns no choices for {prompt.id}; look at the server's log.")
        return found

    def _check_images(self, prompt: Prompt) -> None:
        """Raises UserError when an image prompt is no longer, in the server's own tokens, than its text alone."""
        self._images_checked = True
        without_images = Prompt(prompt.id, prompt.messages)
        seen, text_only = (self._prompt_tokens(p) for p in (prompt, without_images))
        if seen and text_only and seen < text_only + IMAGE_TOKENS * len(prompt.images):
            raise UserError(
                f"{self.client.url} drops images: {prompt.id} has {seen} prompt tokens with and {text_only} without; "
                "serve a vision model."
            )

    def _prompt_tokens(self, prompt: Prompt) -> int:
        answer = self.client.request(with_images(prompt), max_tokens=1, temperature=0.0)
        return (answer.get("usage") or {}).get("prompt_tokens") or 0


def in_background(work: Callable[..., Any], *arguments: Any) -> Future:
    """Call `work` on a thread of its own that, unlike a thread pool's, Python does not wait for when it ends."""
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _completions(prompt_id: str, first: int, choices: list[dict], usage: dict) -> list[Completion]:
    """Choices as completions numbered from `first`; the server counts the tokens of all choices together."""
    tokens = (usage.get("completion_tokens") or 0) // max(1, len(choices))
    found = []
    for sample, choice in enumerate(choices, first):
        reason = "length" if choice.get("finish_reason") == "length" else "stop"
        found.append(Completion(prompt_id, sample, _text(choice["message"]), [], None, reason, tokens=tokens))
    return found


def _seed(seed: int, prompt_id: str, sample: int) -> int:
    """A seed of 31 bits that belongs to one (seed, prompt, sample)."""
    digest = hashlib.sha256(f"{seed}:{prompt_id}:{sample}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _text(message: dict) -> str:
    """An answer with the thinking that the server took out put back before it."""
    content, thinking = message.get("content") or "", message.get("reasoning_content") or message.get("reasoning")
    if not thinking:
        return content
    return f"<think>{thinking}</think>\n{content.lstrip()}" if content else f"<think>{thinking}"


def with_images(prompt: Prompt) -> list[dict]:
    """The prompt's messages with its images as data URLs, in order; image parts without an image are left out."""
    images = iter(prompt.images)
    messages = []
    for message in prompt.messages:
        content = message["content"]
        parts = []
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            if part["type"] != "image":
                parts.append(part)
            elif (image := next(images, None)) is not None:
                parts.append({"type": "image_url", "image_url": {"url": _data_url(image)}})
        messages.append({**message, "content": parts})
    return messages


def _data_url(image: Any) -> str:
    buffer = io.BytesIO()
    load_image(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
