"""Two views of 64 x 64 pixels whose geometry is known: planes, or a homography."""

import torch

from minima_core.data.image_pairs import ImageBatch

S = 64
K = torch.tensor([[80.0, 0, 32], [0, 80, 32], [0, 0, 1]])


def scene(depth0, depth1, *, shift=-0.5, H=None):
    """Return a batch of one pair; camera 1 sees everything shifted by 80 * shift / depth pixels."""
    T = torch.eye(4)
    T[0, 3] = shift
    image, mask, size = torch.rand(1, 3, S, S), torch.ones(1, S, S, dtype=torch.bool), torch.tensor([[S, S]])
    return ImageBatch(
        image, image, mask, mask, depth0[None], depth1[None], K[None], K[None], T[None],
        torch.eye(3)[None] if H is None else H[None], torch.tensor([H is not None]), size, size,
    )  # fmt: skip


def plane(depth):
    """Return the depth of a plane that the camera faces."""
    return torch.full((S, S), depth)
