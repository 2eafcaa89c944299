"""The images that rows of a published data set name: in the rows themselves, in a zip, or in a local copy's folder.

A row comes from strangers, so a path in it is followed only where it leads into the data set: a row must not be able to
bring another file of this machine into a run, from where `export-data --push` would upload it.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

from medvlt_lib.core.errors import UserError, first_line
from medvlt_lib.data.pictures import bytes_or_path
from medvlt_lib.data.published import Source
from medvlt_lib.data.rows import Refused


class Archive:
    """The images of one source; `mirror` is the folder of local copies, None where the Hub is read."""

    def __init__(self, source: Source, mirror: str | None) -> None:
        repo, _, self.file = (source.archive or "").rpartition(":")
        self.repo = repo or source.repo
        self.revision = source.revision if self.repo == source.repo else None
        self.folder = Path(mirror) / self.repo if mirror else None
        self.zip: zipfile.ZipFile | None = None
        self.paths: dict[str, list[str]] = {}  # in the zip, by file name

    def bytes_of(self, value: Any) -> bytes:
        """An image's encoded bytes. Raises Refused for one that is not there, or that lies outside the data set."""
        image = bytes_or_path(value)
        if isinstance(image, bytes):
            return image
        if self.file and (self.folder is None or (self.folder / self.file).exists()):
            return self._from_zip(image)
        if self.folder is None:
            raise Refused("images", f"it names the file {image[:60]!r}, and {self.repo} holds images only in its rows")
        return self._from_folder(image, self.folder)

    def _from_folder(self, image: str, folder: Path) -> bytes:
        try:
            home = folder.resolve()
            for place in (home, home / "images"):
                path = (place / image).resolve()
                if not path.is_relative_to(home):
                    raise Refused("images", f"{image} leads out of {folder}, and only files of the data set are read")
                if path.is_file():
                    return path.read_bytes()
        except (OSError, ValueError) as error:  # a file that may not be read, or a name that cannot be one
            raise Refused("images", f"{image[:60]!r} cannot be read ({first_line(error)})") from None
        raise Refused("images", f"{folder} holds no {image}")

    def _from_zip(self, image: str) -> bytes:
        self.zip = self.zip or self._open()
        try:
            return self.zip.read(self._path_in_zip(image))
        except (zipfile.BadZipFile, zlib.error) as error:
            raise Refused("images", f"{image} in {self.file} is broken ({error})") from None

    def _path_in_zip(self, image: str) -> str:
        """The path of an image in the zip: the whole path, or a file name that stands there once."""
        same_name = self.paths.get(Path(image).name, [])
        fits = [path for path in same_name if path == image or path.endswith(f"/{image}")] or same_name
        if len(fits) != 1:
            raise Refused("images", f"{self.file} of {self.repo} holds {'no' if not fits else 'more than one'} {image}")
        return fits[0]

    def _open(self) -> zipfile.ZipFile:
        from huggingface_hub import hf_hub_download

        try:
            if self.folder is None:
                path = hf_hub_download(self.repo, self.file, repo_type="dataset", revision=self.revision)
            else:
                path = self.folder / self.file
            opened = zipfile.ZipFile(path)
        except Exception as error:  # of the Hub, the network and the zip
            raise UserError(
                f"cannot read {self.file} of {self.repo} ({first_line(error)}); fetch it again, or check the network."
            ) from error
        for path in opened.namelist():
            self.paths.setdefault(Path(path).name, []).append(path)
        return opened
