"""The engine for any server or API that speaks OpenAI's chat protocol: a teacher, a baseline, a model served elsewhere.

Requests run side by side; rollout/chat_client.py sends, repeats, caches and counts them. Servers differ, so three
things are looked after here. A server that returns fewer than n choices is asked again. Thinking that it moved into
`reasoning_content` is put back before the answer, where graders expect it. A server that drops images is found out by
its own count of prompt tokens.

Where one request fails for good, filtering and distillation stop: they would go on with too little. An evaluation goes
on, and the answers that did not come count as such (`keep_failures`), unless one request after the other fails.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Any, Literal

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.images import load_image, png_address
from medvlt_lib.core.records import Completion
from medvlt_lib.rollout.chat_client import ChatClient, NoAnswer
from medvlt_lib.rollout.engine import Prompt, Sampling

TRIES_WITHOUT_CHOICES = 4  # times that a server which returns no choice at all is asked
FAILURES = 8  # prompts in a row without an answer, after which even an evaluation stops
IMAGE_TOKENS = 4  # the fewest tokens that an image adds to a prompt
REASONS: dict[Any, Literal["stop", "length", "refused"]] = {"length": "length", "content_filter": "refused"}
GRACE = 1.0  # seconds that Ctrl-C leaves to answers which are about to come


class OpenAIEngine:
    """`generate` on a ChatClient, `concurrency` prompts at a time. Completions have token counts but no token ids.

    `keep_failures`: answers that do not come are completions without a word, with the finish reason `error`.
    """

    def __init__(self, client: ChatClient, concurrency: int = 8, keep_failures: bool = False) -> None:
        self.client, self.concurrency, self.keep_failures = client, concurrency, keep_failures
        self._images_checked = False
        self._failed_in_a_row = 0

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
                    yield from self._counted(*begun[0].result())
                    begun.popleft()
            while begun:
                yield from self._counted(*begun[0].result())
                begun.popleft()
        except UserError:
            patience = None
            raise
        finally:
            stopped.set()
            wait(begun, patience)

    def _complete(
        self, prompt: Prompt, sampling: Sampling, turns: threading.Semaphore, stopped: threading.Event
    ) -> tuple[list[Completion], NoAnswer | None]:
        """(completions of one prompt, why some did not come), when it is its turn; fewer once it was stopped."""
        messages = with_images(prompt)
        limits = {"temperature": sampling.temperature, "max_tokens": sampling.max_new_tokens}
        found: list[Completion] = []
        attempt = 0
        with turns:
            while len(found) < sampling.n and not stopped.is_set():
                first, missing = sampling.first + len(found), sampling.n - len(found)
                seed = _seed(sampling.seed, prompt.id, first)
                try:
                    answer = self.client.request(messages, attempt, **limits, n=missing, seed=seed)
                    attempt += 1
                    if not answer["choices"] and attempt >= TRIES_WITHOUT_CHOICES:
                        raise NoAnswer(
                            f"{self.client.url} returns no choices for {prompt.id}; look at the server's log."
                        )
                except NoAnswer as error:
                    return found + [_failed(prompt.id, first + k) for k in range(missing)], error
                found += self._completions(prompt.id, first, answer, missing)
        return found, None

    def _counted(self, completions: list[Completion], failure: NoAnswer | None) -> list[Completion]:
        """The completions of one prompt, unless what failed must stop the work. Raises the failure then."""
        if failure is None:
            self._failed_in_a_row = 0
            return completions
        self._failed_in_a_row += 1
        if not self.keep_failures or self._failed_in_a_row >= FAILURES:
            raise failure
        print(f"{completions[0].question_id} has no answer: {failure}", file=sys.stderr)
        return completions

    def _completions(self, prompt_id: str, first: int, answer: dict, most: int) -> list[Completion]:
        """At most so many choices as completions numbered from `first`; a server counts the tokens of all together."""
        choices, usage, cost = answer["choices"], answer.get("usage") or {}, None
        kept = choices[:most]
        tokens, more = divmod(usage.get("completion_tokens") or 0, max(1, len(choices)))
        if usage and max(self.client.budget.prices):
            cost = self.client.budget.cost(usage["prompt_tokens"], usage["completion_tokens"]) / max(1, len(kept))
        found = []
        for i, choice in enumerate(kept):
            reason = REASONS.get(choice.get("finish_reason"), "stop")
            own = {"tokens": tokens + (i < more), "cost": cost}
            found.append(Completion(prompt_id, first + i, _text(choice["message"]), [], None, reason, **own))
        return found

    def _check_images(self, prompt: Prompt) -> None:
        """Raises UserError when an image prompt is no longer, in the server's own tokens, than its text alone."""
        without_images = Prompt(prompt.id, prompt.messages)
        try:
            seen, text_only = (self._prompt_tokens(p) for p in (prompt, without_images))
        except NoAnswer:
            return  # the prompt itself is asked next, and tells
        self._images_checked = True
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


def _failed(prompt_id: str, sample: int) -> Completion:
    """The answer that did not come."""
    return Completion(prompt_id, sample, "", [], None, "error")


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
                parts.append({"type": "image_url", "image_url": {"url": png_address(load_image(image))}})
        messages.append({**message, "content": parts})
    return messages
