"""Files that a package from the package index carries, checked before they are read. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import file_hash


@dataclass(frozen=True)
class Packaged:
    """Files of one version of a package: `files` gives the SHA-256 of each by its path there. `reader`: the package
    that reads them. `requirements`: the file in requirements/ that installs both."""

    package: str
    version: str
    files: Mapping[str, str]
    reader: str
    requirements: str

    @property
    def install(self) -> str:
        return f"pip install --no-deps -r requirements/{self.requirements}"

    def checked(self, use: str) -> list[Path]:
        """The files' paths, in order. `use` begins the sentence of the UserError that is raised where the package is
        missing, of another version or damaged, or its reader is missing: "phantom:smol is built"."""
        try:
            found = distribution(self.package)
        except PackageNotFoundError:
            raise UserError(
                f"{use} from the package {self.package} {self.version}; install it with `{self.install}`."
            ) from None
        if found.version != self.version:
            raise UserError(
                f"{use} from {self.package} {self.version}, and {found.version} is installed; install that version "
                f"with `{self.install}`."
            )
        if find_spec(self.reader) is None:
            raise UserError(
                f"the files in {self.package} are read with the package {self.reader}; install it with "
                f"`{self.install}`."
            )
        paths = [Path(str(found.locate_file(file))) for file in self.files]
        for path, sha256 in zip(paths, self.files.values(), strict=True):
            if not path.is_file() or file_hash(path) != sha256:
                raise UserError(
                    f"{path} is missing or damaged; install it again with `{self.install} --force-reinstall "
                    "--no-cache-dir`."
                )
        return paths
