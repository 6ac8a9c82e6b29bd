"""A source of pictures that are arrays."""

import numpy as np

from minima_core.data.index import Scene
from minima_core.types import RGB


class InMemory:
    """A source of one scene whose pictures are arrays, by modality, None where an engine left one out."""

    def __init__(self, pictures, depth=None, K=None, T_w2c=None, pairs=()):
        n, (height, width) = len(pictures[RGB]), pictures[RGB][0].shape[:2]
        self.arrays, self.maps = pictures, depth
        self.names = [name for name in pictures if name != RGB]
        unknown = (np.full((n, 3, 3), np.nan), np.full((n, 4, 4), np.nan))
        K, T_w2c = unknown if K is None else (np.tile(K, (n, 1, 1)), T_w2c)
        pairs = np.array(pairs, np.int64).reshape(-1, 2)
        files = ["" if depth is None else f"{k}.h5" for k in range(n)]
        size = np.tile([width, height], (n, 1))
        images = [f"{k}.jpg" for k in range(n)]
        self.scenes = [Scene("scene", "train", images, files, [""] * n, size, K, T_w2c, pairs, np.ones(len(pairs)))]

    def has(self, scene, i, modality):
        return self.arrays[modality][i] is not None

    def image(self, scene, i, modality):
        return self.arrays[modality][i]

    def depth(self, scene, i):
        return self.maps[i]
