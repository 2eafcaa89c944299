"""Any server or API that speaks OpenAI's chat protocol: requests with retries, and a cache so that nothing is paid twice.

The key is read from OPENAI_API_KEY. Retries with growing, jittered pauses on timeouts, 429 and 5xx are the client's own.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from medvlt_lib.records import UserError
from medvlt_lib.runs import read_json, write_json


def default_cache() -> Path:
    """Where answers are kept: $MEDVLT_CACHE/openai, or medvlt/openai in the user's cache folder."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("MEDVLT_CACHE") or user_cache_dir("medvlt")) / "openai"


class ChatClient:
    """`ask` one endpoint and model; answers are cached on disk by the full request."""

    def __init__(self, url: str, model: str, cache: Path | None = None, retries: int = 5, timeout: float = 120) -> None:
        from openai import OpenAI

        self.url, self.model, self.cache = url, model, cache or default_cache()
        self.client = OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY") or "none", max_retries=retries, timeout=timeout)

    def ask(self, messages: list[dict], attempt: int = 0, **sampling) -> str:
        """The text of the answer. `attempt` tells askings of the same request apart. Raises UserError when none comes."""
        request = {"url": self.url, "model": self.model, "messages": messages, "attempt": attempt, **sampling}
        path = self.cache / f"{hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()}.json"
        if path.exists():
            return read_json(path)["answer"]
        answer = self._request(messages, sampling)
        write_json(path, {"request": request, "answer": answer})
        return answer

    def _request(self, messages: list[dict], sampling: dict) -> str:
        import openai

        try:
            done = self.client.chat.completions.create(model=self.model, messages=messages, **sampling)
        except openai.AuthenticationError:
            raise UserError(f"{self.url} refuses the key; set OPENAI_API_KEY.") from None
        except openai.NotFoundError:
            raise UserError(f"{self.url} has no model {self.model}; name one that it serves.") from None
        except openai.APIConnectionError as error:
            raise UserError(f"{self.url} cannot be reached ({error.__cause__ or error}); check the address and that it runs.") from None
        except openai.APIStatusError as error:
            again = "try again later" if error.status_code >= 429 else "mend the request or choose another model"
            raise UserError(f"{self.url} answers {error.status_code} ({error.message[:200]}); {again}.") from None
        except (openai.OpenAIError, ValueError) as error:
            raise UserError(f"{self.url} does not answer as a chat server ({error}); does the address end in /v1?") from None
        try:
            return done.choices[0].message.content or ""
        except (AttributeError, IndexError, TypeError):
            raise UserError(f"{self.url} does not answer as a chat server; does the address end in /v1?") from None
