"""Files that are whole or not there: atomic writes, JSON and JSONL, hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from medvlt_lib.core.errors import UserError


def cache_folder() -> Path:
    """Where what may be made again is kept: $MEDVLT_CACHE, or medvlt in the user's cache folder."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("MEDVLT_CACHE") or user_cache_dir("medvlt"))


def atomic_write(path: str | os.PathLike, write: Callable[[str], Any]) -> None:
    """Call `write(temporary_path)` and rename the result to `path`, so that nobody ever sees half a file.

    The file may be read and written by whom the user's umask lets: a new file is opened with 0666, as `open` does.
    Raises UserError when the place cannot be written (a missing or read-only folder, a full disk).
    """
    path = Path(path)
    temporary = str(path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose a folder you may write to.") from error
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder."
        ) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole (see `atomic_write`)."""
    atomic_write(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """A JSON file's content. Raises UserError when it is missing or torn."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; run the stage that writes it.") from None
    except ValueError:
        raise UserError(f"{path} is not readable JSON; delete its folder and run that stage again.") from None


def read_jsonl(path: Path) -> Iterator[dict]:
    """The rows of a JSONL file, one at a time. Raises UserError for a missing file, and with the line for a torn one.

    A row ends at a line feed and nowhere else: inside JSON text may stand U+2028, U+0085 and other ends of a line.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; run the stage that writes it.")
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number} is torn or no JSON object; delete the file and write it again.")
            yield row


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's weights and configuration (its .safetensors and .json but metrics)."""
    if path.is_dir():
        names = sorted(
            p
            for p in path.iterdir()
            if p.suffix in (".safetensors", ".json") and p.name not in ("metrics.json", "stage.json")
        )
        return hashlib.sha256("".join(p.name + file_hash(p) for p in names).encode()).hexdigest()
    if not path.is_file():
        raise UserError(f"there is no file {path}; run the stage that writes it.")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def disk_refused(error: Exception) -> bool:
    """Whether a full or read-only disk is behind an error; torch and safetensors hide the system's own error."""
    refusals = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
    hidden = ("No space left", "File too large", "PytorchStreamWriter failed", "unexpected pos")
    return getattr(error, "errno", None) in refusals or any(words in str(error) for words in hidden)
