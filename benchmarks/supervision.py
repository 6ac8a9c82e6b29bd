"""Time the labels of sparse and of dense matchers against the formulations of others.

``python benchmarks/supervision.py [--keypoints 2048] [--side 560] [--runs 15]``: keypoints against the plain table of
all distances; every pixel of a square against kornia's depth_to_3d and project_points. All are run on the same pairs by
turns, so that what else the machine does hits all; the table gives medians, on one thread, of the seconds of this
process, and the median of the paired ratios. Where depth has holes, kornia's has no answer for what lies beside them.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from kornia.geometry.camera import project_points
from kornia.geometry.depth import depth_to_3d_v2
from kornia.geometry.linalg import transform_points
from torch.nn import functional as F

from minima_core.data.image_pairs import ImageBatch
from minima_core.geometry.coords import to_grid
from minima_core.geometry.epipolar import fundamental, symmetric_distances
from minima_core.geometry.project import inside, warp_points
from minima_core.supervision.dense import TOLERANCE, DenseTargets, dense_targets
from minima_core.supervision.sparse import Targets, matches_from_depth
from minima_core.types import IGNORE, UNMATCHED

SIZE = (1024, 768)
K = torch.tensor([[900.0, 0, 512], [0, 900, 384], [0, 0, 1]])


def pair(seed: int, n: int, blind: float) -> dict[str, torch.Tensor]:
    """Return keypoints on a wavy wall seen from two places; a share ``blind`` of them has no depth."""
    g = torch.Generator().manual_seed(seed)
    T = torch.eye(4)
    T[0, 3], T[1, 3] = -0.4, 0.1
    kpts0 = torch.rand(n, 2, generator=g) * torch.tensor(SIZE)
    depth0 = 4 + 0.5 * torch.sin(kpts0[:, 0] / 90)
    kpts1 = warp_points(kpts0[None], depth0[None], K[None], K[None], T[None])[0][0]
    kpts1 = kpts1 + torch.randn(n, 2, generator=g)
    depth1 = depth0 + 0.01 * torch.randn(n, generator=g)
    order = torch.randperm(n, generator=g)
    for depth in (depth0, depth1):
        depth[torch.rand(n, generator=g) < blind] = torch.nan
    return {"kpts0": kpts0, "kpts1": kpts1[order], "depth0": depth0, "depth1": depth1[order], "T_0to1": T}


def plain(kpts0, kpts1, depth0, depth1, T_0to1, th_pos: float = 3.0, th_neg: float = 5.0) -> Targets:  # noqa: ANN001
    """Label by tables of all M x N distances, as the reference does."""
    kpts0, kpts1, depth0, depth1, Kd, T = (x.double() for x in (kpts0, kpts1, depth0, depth1, K, T_0to1))
    p0 = warp_points(kpts0[None], depth0[None], Kd[None], Kd[None], T[None])[0][0]
    p1 = warp_points(kpts1[None], depth1[None], Kd[None], Kd[None], torch.linalg.inv(T)[None])[0][0]
    valid0, valid1 = depth0 > 0, depth1 > 0
    d0 = (p0[:, None] - kpts1[None]).norm(dim=-1).nan_to_num(torch.inf)
    d1 = (kpts0[:, None] - p1[None]).norm(dim=-1).nan_to_num(torch.inf)
    seen = (valid0 & inside(p0, SIZE))[:, None] & (valid1 & inside(p1, SIZE))[None]
    d = torch.where(seen, torch.maximum(d0, d1), torch.inf)
    best0, best1 = d.min(1), d.min(0)
    mutual0 = (best1.indices[best0.indices] == torch.arange(len(kpts0))) & (best0.values < th_pos)
    mutual1 = (best0.indices[best1.indices] == torch.arange(len(kpts1))) & (best1.values < th_pos)
    m0 = torch.where(mutual0, best0.indices, IGNORE)
    m1 = torch.where(mutual1, best1.indices, IGNORE)
    m0[valid0 & (d0.amin(1) > th_neg)] = UNMATCHED
    m1[valid1 & (d1.amin(0) > th_neg)] = UNMATCHED
    epi = symmetric_distances(kpts0, kpts1, fundamental(T, Kd, Kd))
    epi = torch.where((m0 == IGNORE)[:, None] & (m1 == IGNORE)[None], epi, torch.inf)
    out0 = (m0 == IGNORE) & ~valid0 & (epi.amin(1) > th_neg)
    out1 = (m1 == IGNORE) & ~valid1 & (epi.amin(0) > th_neg)
    return Targets(m0.masked_fill(out0, UNMATCHED), m1.masked_fill(out1, UNMATCHED))


def wall(seed: int, side: int, blind: float) -> ImageBatch:
    """Return two views of a wavy wall; a rectangle that is a share ``blind`` of either has no depth."""
    x = torch.arange(side).expand(1, side, side)
    depth0, depth1 = (4 + 0.5 * torch.sin(x / 90 + seed + phase) for phase in (0.0, 0.1))
    for depth in (depth0, depth1):
        depth[:, : round(blind * side)] = 0
    K = torch.tensor([[[0.9 * side, 0, side / 2], [0, 0.9 * side, side / 2], [0, 0, 1]]])
    T = torch.eye(4)[None]
    T[0, 0, 3] = -0.4
    image, mask, size = torch.zeros(1, 3, side, side), torch.ones(1, side, side).bool(), torch.tensor([[side, side]])
    H = torch.eye(3)[None]
    return ImageBatch(image, image, mask, mask, depth0, depth1, K, K, T, H, torch.tensor([False]), size, size)


@torch.no_grad()
def kornias(batch: ImageBatch) -> DenseTargets:
    """Label every pixel with kornia's parts, put together as its ``warp_frame_depth``."""
    side = batch.image0.shape[-1]
    points = transform_points(batch.T_0to1[:, None], depth_to_3d_v2(batch.depth0, batch.K0))
    grid = to_grid(project_points(points, batch.K1[:, None, None]), (side, side))
    seen = F.grid_sample(batch.depth1[:, None], grid, align_corners=False)[:, 0]
    close = (seen - points[..., 2]).abs() < TOLERANCE * seen
    return DenseTargets(grid, ((batch.depth0 > 0) & (grid.abs() <= 1).all(-1) & close).float())


def compare_dense(side: int, runs: int, blind: float) -> str:
    """Return the line of the table; what both know has to be the same."""
    took: dict[str, list[float]] = {"kornia": [], "ours": []}
    for run in range(runs + 1):
        batch = wall(run, side, blind)
        start = time.process_time()
        theirs = kornias(batch)
        middle = time.process_time()
        found = dense_targets(batch, (side, side))
        end = time.process_time()
        both = (theirs.certainty > 0) & (found.certainty > 0)
        assert both.sum() > 0.99 * theirs.certainty.sum()
        assert (theirs.warp_0to1 - found.warp_0to1)[both].abs().max() < 1e-4
        if run:
            took["kornia"].append(middle - start)
            took["ours"].append(end - middle)
    ratio = statistics.median(a / b for a, b in zip(took["kornia"], took["ours"], strict=True))
    theirs_ms, ours_ms = (1000 * statistics.median(took[name]) for name in ("kornia", "ours"))
    times = f"kornia {theirs_ms:7.1f} ms, ours {ours_ms:6.1f} ms, {ratio:5.1f} x"
    return f"every pixel of {side} x {side}, without depth {blind:.0%}: {times}"


def main() -> None:
    """Run both by turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keypoints", type=int, default=2048)
    parser.add_argument("--side", type=int, default=560)
    parser.add_argument("--runs", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{given.keypoints} x {given.keypoints} keypoints, {given.runs} pairs, one thread")
    for blind in (0.0, 0.3):
        took: dict[str, list[float]] = {"plain": [], "ours": []}
        for run in range(given.runs + 1):
            data = pair(run, given.keypoints, blind)
            start = time.process_time()
            expected = plain(**data)
            middle = time.process_time()
            found = matches_from_depth(**data, K0=K, K1=K, size0=SIZE, size1=SIZE)
            end = time.process_time()
            assert torch.equal(found.matches0, expected.matches0) and torch.equal(found.matches1, expected.matches1)
            if run:  # the first one warms up
                took["plain"].append(middle - start)
                took["ours"].append(end - middle)
        ratio = statistics.median(a / b for a, b in zip(took["plain"], took["ours"], strict=True))
        plain_ms, ours_ms = (1000 * statistics.median(took[name]) for name in ("plain", "ours"))
        share = float((found.matches0 >= 0).double().mean())
        times = f"plain {plain_ms:7.1f} ms, ours {ours_ms:6.1f} ms, {ratio:5.1f} x"
        print(f"without depth {blind:.0%}: {times} ({share:.0%} match)")
    for blind in (0.0, 0.3):
        print(compare_dense(given.side, given.runs, blind))


if __name__ == "__main__":
    main()
