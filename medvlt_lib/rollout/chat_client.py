"""A client of any server or API that speaks OpenAI's chat protocol.

Answers are cached on disk by everything that is asked, so that nothing is paid for twice. What they cost is counted and
capped (rollout/budget.py). Timeouts, dropped connections, 429 and 5xx are tried again after a growing, jittered pause;
the retries of the `openai` package stay off, because each try may have to be paid. The key is read from OPENAI_API_KEY,
or from the variable that `key` names. A server that refuses a request for its content has answered it: with nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import cache_folder, write_json
from medvlt_lib.rollout.budget import Budget, prompt_tokens_at_most

if TYPE_CHECKING:
    import openai

REFUSALS = ("content_filter", "content_policy_violation", "moderation_blocked")  # codes of Azure's and OpenAI's API
ANSWER_TOKENS = 4096  # the longest answer to a question that names no limit of its own


def default_cache() -> Path:
    """Where answers are kept: $MEDVLT_CACHE/openai, or medvlt/openai in the user's cache folder."""
    return cache_folder() / "openai"


class NoAnswer(UserError):
    """No answer came to one request, whatever was tried; others may still be answered."""


class ChatClient:
    """One endpoint and model, with the cache of its answers.

    `prices` are US dollars a million prompt and completion tokens. `max_cost` caps the dollars of all requests that
    were ever made to this model with this cache, and `cap_setting` is its name in the profile. A cached answer costs
    nothing.
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
        cap_setting: str = "engine.max_cost",
        key: str = "OPENAI_API_KEY",
    ) -> None:
        from openai import OpenAI

        self.url, self.model, self.cache = url, model, cache or default_cache()
        self.retries, self.timeout = retries, timeout
        self.key = key
        self.client = OpenAI(base_url=url, api_key=os.environ.get(key) or "none", max_retries=0, timeout=timeout)
        ledger = self.cache / f"spent-{_hash(f'{url} {model}')[:16]}.json"
        self.budget = Budget(ledger, prices, max_cost, cap_setting)

    def ask(self, messages: list[dict], attempt: int = 0, **sampling: Any) -> str:
        """The text of one answer. Raises UserError when none comes."""
        choices = self.request(messages, attempt, **sampling)["choices"]
        return choices[0]["message"].get("content") or "" if choices else ""

    def request(self, messages: list[dict], attempt: int = 0, **sampling: Any) -> dict:
        """The server's whole answer. `attempt` tells repetitions of the same request apart.

        Raises NoAnswer when none comes, UserError when the server can answer nothing or the cost could pass the cap.
        """
        asked = {"url": self.url, "model": self.model, "messages": messages, "attempt": attempt, **sampling}
        path = self.cache / f"{_hash(json.dumps(asked, sort_keys=True))}.json"
        if kept := _kept_answer(path):
            return kept
        answer = self._answer(messages, {"max_tokens": ANSWER_TOKENS, **sampling})
        if answer["choices"]:
            write_json(path, answer)
        return answer

    def _answer(self, messages: list[dict], sampling: dict) -> dict:
        """A new answer, tried for several times where that may help. Every try is reserved and counted by itself."""
        import openai

        most = self.budget.cost(prompt_tokens_at_most(messages), sampling["max_tokens"] * sampling.get("n", 1))
        for tried in range(self.retries + 1):
            self.budget.reserve(most)
            cost = most
            try:
                answer = self._post(messages, sampling)
                usage = answer.get("usage")
                if usage:
                    cost = self.budget.cost(usage["prompt_tokens"], usage["completion_tokens"])
                return answer
            except openai.APIError as error:
                if not _may_be_charged(error):
                    cost = 0.0
                if getattr(error, "code", None) in REFUSALS:
                    return _refusal(sampling.get("n", 1))
                if tried == self.retries or not _may_pass(error):
                    raise self._explained(error) from None
                pause = _pause(error, tried)
            finally:
                self.budget.settle(most, cost)
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _post(self, messages: list[dict], sampling: dict) -> dict:
        """One try. Raises openai.APIError, or UserError when what answers is no chat server."""
        import openai

        try:
            completion = self.client.chat.completions.create(model=self.model, messages=messages, **sampling)
            answer = completion.model_dump(mode="json")
            for choice in answer["choices"]:
                choice["message"]["content"]
        except openai.APIResponseValidationError:
            raise self._no_chat_server() from None
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise self._no_chat_server() from None
        return answer

    def _no_chat_server(self) -> UserError:
        return UserError(f"{self.url} does not answer as a chat server; does the address end in /v1?")

    def _explained(self, error: openai.APIError) -> UserError:
        """A failure of the last try as a sentence."""
        import openai

        match error:
            case openai.AuthenticationError():
                return UserError(f"{self.url} refuses the key; set {self.key}.")
            case openai.NotFoundError():
                return UserError(f"{self.url} has no model {self.model}; name one that it serves.")
            case openai.APITimeoutError():
                tries = self.retries + 1
                return NoAnswer(f"{self.url} gave no answer in {self.timeout} s, {tries} times; try again later.")
            case openai.APIConnectionError():
                why = error.__cause__ or error
                kind = NoAnswer if _may_be_charged(error) else UserError  # it went out, or nobody listens
                return kind(f"{self.url} cannot be reached ({why}); check the address and that it runs.")
            case openai.APIStatusError():
                later = error.status_code >= 429
                advice = "try again later" if later else "mend the request or choose another model"
                kind = UserError if error.status_code in (402, 403) else NoAnswer
                return kind(f"{self.url} answers {error.status_code} ({error.message[:200]}); {advice}.")
            case _:
                return self._no_chat_server()


def _kept_answer(path: Path) -> dict | None:
    """An answer in the cache; None where there is none, or a file that a full disk or another program left torn."""
    try:
        answer = json.loads(path.read_bytes())
        return answer if answer["choices"] else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _refusal(choices: int) -> dict:
    """The answer of a server that refuses a request for its content: so many choices without a word."""
    message = {"role": "assistant", "content": None}
    return {"choices": [{"index": i, "finish_reason": "content_filter", "message": message} for i in range(choices)]}


def _may_be_charged(error: openai.APIError) -> bool:
    """Whether a server may have made an answer that did not arrive: the request went out and no refusal came back."""
    import openai

    refused = isinstance(error, openai.APIStatusError)
    not_sent = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
    return not refused and not not_sent


def _may_pass(error: openai.APIError) -> bool:
    """Whether the same request may succeed a little later."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError)


def _pause(error: openai.APIError, tried: int) -> float:
    """Seconds until the next try: what the server asks for, up to a minute, or else from half a second up to eight."""
    import openai

    wish = error.response.headers.get("retry-after", "") if isinstance(error, openai.APIStatusError) else ""
    seconds = min(60.0, float(wish)) if wish.replace(".", "", 1).isdigit() else min(8.0, 0.5 * 2**tried)
    return seconds * random.uniform(1.0, 1.25)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
