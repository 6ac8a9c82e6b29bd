"""The head of one man, averaged over 27 scans of him (Colin 27, Holmes et al. 1998), and what tissue is where in it.

The package has the head as T1 weighted magnetic resonance shows it, and the same with all but the brain erased. Tissues
follow from the two: fluid, gray and white matter are the three classes of brightness inside the brain. Around it the
bright is fat, the dark is bone (and what air the head holds), or fluid where the brain is near; the rest is muscle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_multiotsu

from minima_core.data.datasets._commons.catalogue import Image, Package
from minima_core.data.tissues import TISSUE_NAMES
from minima_core.errors import DataError

HEAD, BRAIN = "head.nii.gz", "brain.nii.gz"
_POOL = "pool/main/m/mricron/mricron-data_1.2.20211006+dfsg-4_all.deb"
_MEMBERS = {
    HEAD: ("ch2", "a009051127f64dc3dd554d5f5b589870ea72106d9642c21b4e7093e478cfc309"),
    BRAIN: ("ch2bet", "592a2d20abdf36eefcb540ca8958428040edffc1bc1a18ba1dcfbabac77c5dd1"),
}
PACKAGE = Package(
    name="mricron-data",
    kind="deb",
    version="1.2.20211006+dfsg-4",
    urls=[
        f"https://deb.debian.org/debian/{_POOL}",
        f"https://snapshot.debian.org/archive/debian/20240701T000000Z/{_POOL}",
    ],
    sha256="d40aa0ed66cf89bf6cafa049ad3884703c9d975c2ee2737525b7196528df9d6f",
    images=[
        Image(
            file=file,
            path=f"usr/share/mricron/templates/{member}.nii.gz",
            sha256=sha256,
            licence="BSD-3-Clause",
            author="Colin 27, Holmes et al. 1998",
        )
        for file, (member, sha256) in _MEMBERS.items()
    ],
)
DIM = 20  # gray values up to which a voxel shows nothing
SHUT = 5  # voxels, half the width of an opening that is not the outside: nose, ears
AT_BRAIN = 3  # voxels from the brain within which the dark is fluid


def read_head(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the head in ``folder`` as (X, Y, Z) float32 gray values, and its tissues as uint8 of that shape.

    A voxel is a cubic millimetre; x goes to the right, y to the front, z upwards.

    Raises:
        DataError: if nibabel is not there.
    """
    gray, brain = (_read(folder / name) for name in (HEAD, BRAIN))
    return gray, tissues_of(gray, brain > 0)


def tissues_of(gray: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Return the (X, Y, Z) uint8 tissues of a head whose T1 weighted ``gray`` and ``brain`` (bool) are known."""
    air, bone, fluid, gray_matter, white_matter, fat, muscle = range(TISSUE_NAMES.index("muscle") + 1)
    around = gray[~brain & (gray > DIM)]
    dark, bright = _thirds(around)
    labels, _ = ndimage.label((gray > dark) | brain)
    rest = _filled(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])) & ~brain
    found = np.full(gray.shape, air, np.uint8)
    found[rest] = np.select([gray[rest] < dark, gray[rest] < bright], [bone, muscle], fat)
    found[rest & (gray < dark) & ndimage.binary_dilation(brain, iterations=AT_BRAIN)] = fluid
    classes = np.digitize(gray[brain], _thirds(gray[brain]))
    found[brain] = np.array([fluid, gray_matter, white_matter], np.uint8)[classes]
    return found


def _filled(body: np.ndarray) -> np.ndarray:
    """Return a (X, Y, Z) bool body with the hollows that a plane through it shows closed, and narrow ways in shut."""
    room = np.pad(body, SHUT + 1)
    shut = ndimage.binary_closing(room, iterations=SHUT)[(slice(SHUT + 1, -SHUT - 1),) * 3] | body
    whole = shut.copy()
    for axis in range(3):
        whole |= np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(shut, axis, 0)], axis)
    return whole


def _thirds(values: np.ndarray) -> np.ndarray:
    """Return the two borders between three classes of values (Otsu)."""
    return np.asarray(threshold_multiotsu(values, 3))  # type: ignore[no-untyped-call]


def _read(path: Path) -> np.ndarray:
    try:
        import nibabel
    except ImportError:
        raise DataError("data set anatomy reads volumes; install `pip install 'minima-pipeline[pipeline]'`") from None
    volume: Any = nibabel.as_closest_canonical(nibabel.load(path))  # type: ignore[no-untyped-call]
    return np.asarray(volume.get_fdata(dtype=np.float32))
