"""What `medvlt export` and `medvlt export-data` share: a folder that is written as a whole, and the way to the Hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medvlt_lib.core.errors import UserError, first_line


def refuse_used(out: Path) -> None:
    """Raises UserError when `out` is a file, or a folder that holds something."""
    if out.is_file():
        raise UserError(f"{out} is a file; choose another --out.")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; choose another --out.")


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` at the end, so that nobody ever sees half an export.

    When the body fails nothing is left. Raises UserError when `out` is in use.
    """
    refuse_used(out)
    temporary = out.absolute().with_name(f".{out.absolute().name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(out.absolute())
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def push(out: Path, name: str, kind: str) -> str:
    """Upload an exported folder to the Hub as `name`, a 'model' or a 'dataset'; returns its address.

    Raises UserError when it is refused; the folder stays as it is.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(name, repo_type=kind, exist_ok=True)
        api.upload_folder(folder_path=str(out), repo_id=name, repo_type=kind)
    except Exception as error:  # the Hub's, httpx's and the network's errors are of many families
        raise UserError(
            f"the Hub did not take {name} ({first_line(error)}); log in with `hf auth login`, check the name and the "
            f"network, then upload what lies in {out}: hf upload {name} {out} --repo-type {kind}"
        ) from None
    return f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{name}"


def shown(name: str) -> str:
    """The name of a model or data set for others: of a file or folder of this machine its last part alone."""
    return Path(name).name if Path(name).exists() else name
