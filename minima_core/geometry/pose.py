"""Rigid motions (4, 4), ``x1 = R x0 + t``, and how far two of them are apart."""

from __future__ import annotations

import torch


def relative_pose(T_w2c0: torch.Tensor, T_w2c1: torch.Tensor) -> torch.Tensor:
    """Return (..., 4, 4) camera 0 to camera 1."""
    return T_w2c1 @ torch.linalg.inv(T_w2c0)


def transform(T: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Apply (..., 4, 4) to (..., N, 3)."""
    return points @ T[..., :3, :3].mT + T[..., None, :3, 3]


def orthonormality_error(R: torch.Tensor) -> torch.Tensor:
    """Return the largest entry of |R R^T - I|, or 1 more where R mirrors; (..., 3, 3) to (...)."""
    eye = torch.eye(3, dtype=R.dtype, device=R.device)
    error = (R @ R.mT - eye).abs().amax((-1, -2))
    return error + (torch.linalg.det(R) < 0).to(R.dtype)


def rotation_error(R: torch.Tensor, R_gt: torch.Tensor) -> torch.Tensor:
    """Return the angle in degrees between (..., 3, 3) rotations."""
    # the chord |R - R_gt| keeps its accuracy near zero, where the arccos of the trace loses it
    chord = torch.linalg.matrix_norm(R - R_gt) / (2 * 2**0.5)
    return torch.rad2deg(2 * torch.asin(chord.clamp(0, 1)))


def translation_error(t: torch.Tensor, t_gt: torch.Tensor) -> torch.Tensor:
    """Return the angle in degrees between (..., 3) directions, folded to [0, 90] because E fixes t up to sign."""
    cross = torch.linalg.cross(t, t_gt).norm(dim=-1)
    return torch.rad2deg(torch.atan2(cross, (t * t_gt).sum(-1).abs()))
