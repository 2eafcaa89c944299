"""`mni152:FAMILIES`: slices of the MNI ICBM152 2009a template, the average of 152 people's T1-weighted MRI.

The package nilearn (BSD-3-Clause) carries the symmetric template and its maps of grey and white matter, 1 mm, brain
only; nothing is fetched, and nothing of it is kept in this repository. nibabel reads it. nilearn states no licence for
these files; the template's own allows every use, copy and change as long as its notice goes with it, so the notice
stands in every question's `source` (Fonov et al., NeuroImage 2011, doi 10.1016/j.neuroimage.2010.07.033).
"""

from __future__ import annotations

import functools
import sys

import numpy as np

from medvlt_lib.core.packaged import Packaged
from medvlt_lib.data.slices import HALF, SIDE, Brain

FILE = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
PACKAGED = Packaged(
    "nilearn",
    "0.14.1",
    {
        FILE.format("t1"): "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
        FILE.format("gm"): "97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed",
        FILE.format("wm"): "382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db",
    },
    reader="nibabel",
    requirements="slices.txt",
)
COPYRIGHT = (
    "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill "
    "University"
)
MIDDLE = (0, -17, 5)  # MNI coordinates in mm: the midline, and the brain's middle from back to front and bottom to top


@functools.cache
def read_mni152() -> Brain:
    """The template, cut to the cube that its slices show; read once a process.

    Raises UserError where the package is missing, of another version or damaged, or where nibabel is missing.
    """
    paths = PACKAGED.checked("mni152 is read")
    import nibabel  # pyright: ignore[reportMissingImports]

    print(f"mni152: an averaged brain, not for clinical use; {COPYRIGHT}.", file=sys.stderr)
    cubes = []
    for path in paths:
        image = nibabel.as_closest_canonical(nibabel.load(path))  # axes to the patient's right, front and top
        corner = np.rint(np.subtract(MIDDLE, image.affine[:3, 3])).astype(int)  # of the cube, once padded by HALF
        padded = np.pad(np.asarray(image.dataobj), HALF)
        cubes.append(np.ascontiguousarray(padded[tuple(slice(at, at + SIDE) for at in corner)]))
    source = {"name": "mni152", "revision": f"{PACKAGED.package} {PACKAGED.version}", "licence": COPYRIGHT}
    t1, grey, white = cubes
    return Brain(t1, grey, white, MIDDLE, source)
