"""A small MegaDepth: images and depth maps in its layout, and the same records in each of the three legacy forms."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from minima_core.io.depth import write_depth
from minima_core.io.images import write_image

W, H = 48, 32
SCENES = ("0001", "0002", "0015")
PAIRS = np.array([[5, 3], [1, 3], [1, 5], [3, 5]])
OVERLAP = np.array([0.15, 0.4, 0.65, 0.3])


def records(scene: str) -> dict:
    """Return six records, of which 0, 2 and 4 are holes, as D2-Net's preprocessing leaves them."""
    image, depth, K, poses = (np.full(6, None, dtype=object) for _ in range(4))
    for i in (1, 3, 5):
        image[i] = f"Undistorted_SfM/{scene}/images/{i}_o.jpg"
        depth[i] = f"phoenix/S6/zl548/MegaDepth_v1/{scene}/dense0/depths/{i}_o.h5"
        K[i] = np.array([[60.0, 0, W / 2], [0, 60, H / 2], [0, 0, 1]])
        poses[i] = np.eye(4)
        poses[i][0, 3] = -0.1 * i
    return {"image_paths": image, "depth_paths": depth, "intrinsics": K, "poses": poses}


def write_files(root: Path, *, undistorted: bool = True) -> None:
    """Write what the records name: either the undistorted images, or MegaDepth's own."""
    random = np.random.default_rng(0)
    for scene in SCENES:
        found = records(scene)
        for i in (1, 3, 5):
            own = found["depth_paths"][i].replace("depths", "imgs").replace("h5", "jpg")
            path = root / (found["image_paths"][i] if undistorted else own)
            write_image(path, random.integers(0, 255, (H, W, 3), dtype=np.uint8))
            write_depth(root / found["depth_paths"][i], np.full((H, W), 3, np.float32))


def infos(which: list[int]) -> list:
    """Return some of the pairs as LoFTR has them."""
    return [(PAIRS[k], np.float64(OVERLAP[k]), np.ones(4)) for k in which]


def write_loftr(folder: Path, *, archive: bool = False) -> None:
    """Write two files a scene, pickled as published or as an archive, as MINIMA rewrote them."""
    folder.mkdir(parents=True)
    for scene in SCENES:
        for span, which in (("0.1_0.3", [0]), ("0.3_0.7", [1, 2, 3])):
            path = folder / f"{scene}_{span}.npz"
            if archive:
                np.savez(path, **records(scene), pair_infos=np.array(infos(which), dtype=object))
            else:
                path.write_bytes(pickle.dumps({**records(scene), "pair_infos": infos(which)}))


def write_glue_factory(folder: Path) -> None:
    """Write one archive a scene."""
    folder.mkdir(parents=True)
    for scene in SCENES:
        matrix = np.full((6, 6), -1.0)
        matrix[PAIRS[:, 0], PAIRS[:, 1]] = OVERLAP
        np.savez(folder / f"{scene}.npz", **records(scene), overlap_matrix=matrix, n_points3D=np.zeros(6))


def write_roma(folder: Path) -> None:
    """Write one pickled dict a scene."""
    folder.mkdir(parents=True)
    for scene in SCENES:
        np.save(folder / f"{scene}.npy", {**records(scene), "pairs": PAIRS, "overlaps": OVERLAP}, allow_pickle=True)
