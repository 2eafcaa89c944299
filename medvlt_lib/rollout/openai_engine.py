"""Any server or API that speaks OpenAI's chat protocol: a teacher, a baseline, a model served elsewhere.

Requests run side by side and are cached on disk by everything that is asked, so that nothing is paid for twice. Retries
with growing, jittered pauses on timeouts, dropped connections, 429 and 5xx are the client's own. A server that returns
fewer than n choices is asked again; thinking that it moved into `reasoning_content` is put back before the answer, where
graders expect it; and one that drops images is found out by its own count of prompt tokens.
The key is read from OPENAI_API_KEY.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import read_json, write_json
from medvlt_lib.core.images import load_image
from medvlt_lib.core.records import Completion
from medvlt_lib.rollout.engine import Prompt, Sampling

AGAIN = 3  # times that a server which returns no choice at all is asked
IMAGE_TOKENS = 4  # the fewest tokens that an image adds to a prompt


def default_cache() -> Path:
    """Where answers are kept: $MEDVLT_CACHE/openai, or medvlt/openai in the user's cache folder."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("MEDVLT_CACHE") or user_cache_dir("medvlt")) / "openai"


class ChatClient:
    """One endpoint and model. `prices`: US dollars a million prompt and completion tokens; `max_cost` stops cleanly before more is spent.

    `spent` and `tokens` count what was asked now; answers from the cache cost nothing.
    """

    def __init__(
        self,
        url: str,
        model: str,
        cache: Path | None = None,
        retries: int = 5,
        timeout: float = 600,
        prices: tuple[float, float] = (0.0, 0.0),
        max_cost: float | None = None,
    ) -> None:
        from openai import OpenAI

        self.url, self.model, self.cache = url, model, cache or default_cache()
        self.prices, self.max_cost = prices, max_cost
        self.client = OpenAI(
            base_url=url, api_key=os.environ.get("OPENAI_API_KEY") or "none", max_retries=retries, timeout=timeout
        )
        self.spent, self.tokens, self._lock = 0.0, [0, 0], threading.Lock()

    def ask(self, messages: list[dict], attempt: int = 0, **sampling) -> str:
        """The text of one answer. Raises UserError when none comes."""
        choices = self.request(messages, attempt, **sampling)["choices"]
        return choices[0]["message"].get("content") or "" if choices else ""

    def request(self, messages: list[dict], attempt: int = 0, **sampling) -> dict:
        """The server's whole answer. `attempt` tells askings of the same request apart. Raises UserError when none comes."""
        asked = {"url": self.url, "model": self.model, "messages": messages, "attempt": attempt, **sampling}
        path = self.cache / f"{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()}.json"
        if path.exists():
            return read_json(path)
        with self._lock:
            if self.max_cost is not None and self.spent >= self.max_cost:
                raise UserError(
                    f"{self.spent:.4f} dollars are spent, the cap is engine.max_cost = {self.max_cost}; raise it to go on from the cache."
                )
        answer = self._post(messages, sampling)
        usage = answer.get("usage") or {}
        with self._lock:
            for i, key in enumerate(("prompt_tokens", "completion_tokens")):
                self.tokens[i] += usage.get(key) or 0
                self.spent += (usage.get(key) or 0) * self.prices[i] / 1e6
        write_json(path, answer)
        return answer

    def _post(self, messages: list[dict], sampling: dict) -> dict:
        import openai

        try:
            answer = self.client.chat.completions.create(model=self.model, messages=messages, **sampling).model_dump(
                mode="json"
            )
            for choice in answer["choices"]:
                choice["message"]["content"]
        except openai.AuthenticationError:
            raise UserError(f"{self.url} refuses the key; set OPENAI_API_KEY.") from None
        except openai.NotFoundError:
            raise UserError(f"{self.url} has no model {self.model}; name one that it serves.") from None
        except openai.APITimeoutError:
            raise UserError(
                f"{self.url} gave no answer in {self.client.timeout} s, {self.client.max_retries + 1} times; try again later."
            ) from None
        except openai.APIConnectionError as error:
            raise UserError(
                f"{self.url} cannot be reached ({error.__cause__ or error}); check the address and that it runs."
            ) from None
        except openai.APIStatusError as error:
            again = "try again later" if error.status_code >= 429 else "mend the request or choose another model"
            raise UserError(f"{self.url} answers {error.status_code} ({error.message[:200]}); {again}.") from None
        except (openai.OpenAIError, AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise UserError(f"{self.url} does not answer as a chat server; does the address end in /v1?") from None
        return answer


class OpenAIEngine:
    """`generate` on a ChatClient, `concurrency` prompts at a time. Completions have text and token counts, no token ids."""

    def __init__(self, client: ChatClient, concurrency: int = 8) -> None:
        self.client, self.concurrency, self._images_seen = client, concurrency, False

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        """Completions prompt by prompt, in order. Raises UserError when the server fails; what was answered stays in the cache."""
        waiting: deque[Future] = deque()
        with ThreadPoolExecutor(self.concurrency) as pool:
            try:
                for prompt in prompts:
                    if prompt.images and not self._images_seen:
                        self._check_images(prompt)
                    waiting.append(pool.submit(self._complete, prompt, sampling))
                    if len(waiting) >= 2 * self.concurrency:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _complete(self, prompt: Prompt, sampling: Sampling) -> list[Completion]:
        body = {"temperature": sampling.temperature, "max_tokens": sampling.max_new_tokens}
        messages, found, attempt = _with_images(prompt), [], 0
        while len(found) < sampling.n:
            first, more = sampling.first + len(found), sampling.n - len(found)
            seed = (
                int.from_bytes(hashlib.sha256(f"{sampling.seed}:{prompt.id}:{first}".encode()).digest()[:4], "big") >> 1
            )
            answer = self.client.request(messages, attempt, **body, n=more, seed=seed)
            choices, used = answer["choices"][:more], (answer.get("usage") or {}).get("completion_tokens") or 0
            for choice in choices:
                reason = "length" if choice.get("finish_reason") == "length" else "stop"
                found.append(
                    Completion(
                        prompt.id,
                        sampling.first + len(found),
                        _text(choice["message"]),
                        [],
                        None,
                        reason,
                        tokens=used // len(choices),
                    )
                )
            attempt += 1
            if not choices and attempt > AGAIN:
                raise UserError(f"{self.client.url} returns no choices for {prompt.id}; look at the server's log.")
        return found

    def _check_images(self, prompt: Prompt) -> None:
        """Raises UserError when the first image prompt is no longer, in the server's own tokens, than its text."""
        self._images_seen = True
        counts = []
        for messages in (_with_images(prompt), _with_images(Prompt(prompt.id, prompt.messages))):
            counts.append(
                (self.client.request(messages, max_tokens=1, temperature=0.0).get("usage") or {}).get("prompt_tokens")
                or 0
            )
        if counts[1] and counts[0] < counts[1] + IMAGE_TOKENS * len(prompt.images):
            raise UserError(
                f"{self.client.url} drops images: {prompt.id} has {counts[0]} prompt tokens with and {counts[1]} without; serve a vision model."
            )


def _text(message: dict) -> str:
    """An answer with the thinking that the server took out put back before it."""
    content, thinking = message.get("content") or "", message.get("reasoning_content") or message.get("reasoning")
    if not thinking:
        return content
    return f"<think>{thinking}</think>\n{content.lstrip()}" if content else f"<think>{thinking}"


def _with_images(prompt: Prompt) -> list[dict]:
    """The prompt's messages with its images as data URLs, in order; image parts without an image are left out."""
    images = iter(prompt.images)
    messages = []
    for message in prompt.messages:
        parts = []
        for part in (
            message["content"]
            if isinstance(message["content"], list)
            else [{"type": "text", "text": message["content"]}]
        ):
            if part["type"] != "image":
                parts.append(part)
            elif (image := next(images, None)) is not None:
                parts.append({"type": "image_url", "image_url": {"url": _data_url(image)}})
        messages.append({**message, "content": parts})
    return messages


def _data_url(image) -> str:
    buffer = io.BytesIO()
    load_image(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
