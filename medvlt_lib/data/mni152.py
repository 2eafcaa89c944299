"""`mni152:FAMILIES`: slices of the MNI ICBM152 2009a template, the average of 152 people's T1-weighted MRI.

The package nilearn (BSD-3-Clause) carries the symmetric template and its maps of grey and white matter, 1 mm, brain
only; nothing is fetched, and nothing of it is kept in this repository. nibabel reads it. nilearn states no licence for
these files; the template's own allows every use, copy and change as long as its notice goes with it, so the notice
stands in every question's `source` (Fonov et al., NeuroImage 2011, doi 10.1016/j.neuroimage.2010.07.033).
"""

from __future__ import annotations

import functools
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from medvlt_lib.core.errors import UserError
from medvlt_lib.core.files import file_hash
from medvlt_lib.data.slices import HALF, SIDE, Brain

PACKAGE, VERSION = "nilearn", "0.14.1"
FILES = {
    "t1": "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
    "gm": "97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed",
    "wm": "382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db",
}
INSTALL = "pip install --no-deps -r requirements/slices.txt"
COPYRIGHT = (
    "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill "
    "University"
)
MIDDLE = (0, -17, 5)  # MNI coordinates, mm: the midline, and the middle of the brain from front to back and from top to
# bottom


@functools.cache
def read_mni152() -> Brain:
    """The template, cut to the cube that its slices show; read once a process.

    Raises UserError where the package is missing, of another version or damaged, or where nibabel is missing.
    """
    paths = _checked_files()
    import nibabel  # pyright: ignore[reportMissingImports]

    print(f"mni152: an averaged brain, not for clinical use; {COPYRIGHT}.", file=sys.stderr)
    cubes = {}
    for name, path in paths.items():
        image = nibabel.as_closest_canonical(nibabel.load(path))  # axes to the patient's right, front and top
        corner = np.rint(np.subtract(MIDDLE, image.affine[:3, 3])).astype(int)  # of the cube, once padded by HALF
        padded = np.pad(np.asarray(image.dataobj), HALF)
        cubes[name] = np.ascontiguousarray(padded[tuple(slice(at, at + SIDE) for at in corner)])
    source = {"name": "mni152", "revision": f"{PACKAGE} {VERSION}", "licence": COPYRIGHT}
    return Brain(cubes["t1"], cubes["gm"], cubes["wm"], MIDDLE, source)


def _checked_files() -> dict[str, Path]:
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        raise UserError(f"mni152 is read from the package {PACKAGE} {VERSION}; install it with `{INSTALL}`.") from None
    if package.version != VERSION:
        raise UserError(
            f"mni152 is read from {PACKAGE} {VERSION}, and {package.version} is installed; install that version with "
            f"`{INSTALL}`."
        )
    if find_spec("nibabel") is None:
        raise UserError(f"the template in {PACKAGE} is read with the package nibabel; install it with `{INSTALL}`.")
    paths = {}
    for name, sha256 in FILES.items():
        file = f"nilearn/datasets/data/mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        paths[name] = Path(str(package.locate_file(file)))
        if not paths[name].is_file() or file_hash(paths[name]) != sha256:
            raise UserError(
                f"{paths[name]} is missing or damaged; install it again with `{INSTALL} --force-reinstall "
                "--no-cache-dir`."
            )
    return paths
