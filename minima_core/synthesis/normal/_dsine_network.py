"""The network of DSINE: an encoder, a decoder that knows each pixel's ray, normals refined by rotating neighbours."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from minima_core.synthesis.normal._dsine_encoder import TAPS, Encoder, Widths

SCALE = 8  # of the map that is refined
WINDOW = 5  # neighbours a side that a refined normal is made from
ITERATIONS = 5
LEAST = 0.01  # cosine between a normal and its ray: what is seen faces the camera
TINY = 1e-8


class Dsine(nn.Module):
    """Normals of every pixel (Bae and Davison, CVPR 2024; spec/data-engine.md section 5.2).

    Modules carry the names of the published weights. What is geometry is reckoned in float32 whatever the weights are.
    """

    def __init__(self, widths: Widths, hidden: int = 64, decoded: int = 128) -> None:
        super().__init__()
        self.encoder = Encoder(widths)
        self.decoder = Decoder(widths, hidden, decoded)
        self.gru = Gru(hidden, hidden + 2)
        self.prob_head = _head(hidden + 2, hidden, WINDOW**2)
        self.xy_head = _head(hidden + 2, hidden, 2 * WINDOW**2)
        self.angle_head = _head(hidden + 2, hidden, WINDOW**2)
        self.up_prob_head = _head(hidden + 2, hidden, 9 * SCALE**2)

    def forward(self, image: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
        """Return (B, 3, H, W) float32 unit normals: x right, y down, z forward, pointing away from the camera.

        Args:
            image: (B, 3, H, W) normalised, H and W multiples of 32.
            K: (B, 3, 3) float32 intrinsics; the centre of the top-left pixel is (0, 0).
        """
        features = self.encoder(image)
        encodings = [ray_encoding(K, feature, image) for feature in features]
        normal, feature, hidden = self.decoder(features, [encoding.to(image.dtype) for encoding in encodings])
        states = self.refine(normal, feature, hidden, encodings[0], focal_lengths(K, feature, image))
        return self.upsample(*states[-1], encodings[0])

    def refine(
        self,
        normal: torch.Tensor,
        feature: torch.Tensor,
        hidden: torch.Tensor,
        uv: torch.Tensor,
        focal: torch.Tensor,
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return normals and hidden state, shaped as given, before and after each iteration.

        Args:
            normal: (B, 3, h, w) float32 unit normals.
            feature: (B, C, h, w) of the decoder.
            hidden: (B, C, h, w) state of the recurrent unit.
            uv: (B, 2, h, w) float32 ray encoding of this map.
            focal: (B, 2, 1, 1, 1) focal lengths in pixels of this map.
        """
        ray = unit(torch.cat([uv, torch.ones_like(uv[:, :1])], 1))
        encoded = uv.to(feature.dtype)
        feature = torch.cat([feature, encoded], 1)
        states = [(facing(normal, ray), hidden)]
        for _ in range(ITERATIONS):
            normal, hidden = states[-1]
            hidden = self.gru(hidden, feature)
            states.append((self.rotate(normal, torch.cat([hidden, encoded], 1), uv, ray, focal), hidden))
        return states

    def rotate(
        self, normal: torch.Tensor, state: torch.Tensor, uv: torch.Tensor, ray: torch.Tensor, focal: torch.Tensor
    ) -> torch.Tensor:
        """Return (B, 3, h, w) normals: each the weighted mean of its neighbours', which were rotated.

        ``state`` is (B, C + 2, h, w), the hidden state with the ray encoding.
        """
        weight = self.prob_head(state).float().sigmoid()
        direction = unit(self.xy_head(state).float().unflatten(1, (2, WINDOW**2)))
        angle = math.pi * self.angle_head(state).float().sigmoid()
        axis = rotation_axis(neighbours(normal, WINDOW), neighbours(uv, WINDOW), direction / focal)
        rotated = unit(rotate_about(neighbours(normal, WINDOW), axis, angle[:, None]))
        seen = facing(rotated, ray[:, :, None])
        return unit((weight[:, None] * seen).sum(2))

    def upsample(self, normal: torch.Tensor, hidden: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
        """Return (B, 3, 8h, 8w) normals: each a convex combination of nine at 1/8 (as RAFT does with flow)."""
        logits = self.up_prob_head(torch.cat([hidden, uv.to(hidden.dtype)], 1)).float()
        weight = logits.unflatten(1, (9, SCALE, SCALE)).softmax(1)
        fine = (weight[:, None] * neighbours(normal, 3)[:, :, :, None, None]).sum(2)
        return unit(fine.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3))


class Decoder(nn.Module):
    """From the encoder's maps, coarse to fine, to normals, features and a hidden state at 1/8."""

    def __init__(self, widths: Widths, hidden: int, decoded: int) -> None:
        super().__init__()
        head = widths.head
        self.conv2 = nn.Conv2d(head + 2, head, 1)
        self.up1 = _UpSample(head + widths.stages[TAPS[1]] + 2, head // 2)
        self.up2 = _UpSample(head // 2 + widths.stages[TAPS[0]] + 2, head // 4)
        self.normal_head = _head(head // 4 + 2, decoded, 3)
        self.feature_head = _head(head // 4 + 2, decoded, hidden)
        self.hidden_head = _head(head // 4 + 2, decoded, hidden)

    def forward(
        self, features: tuple[torch.Tensor, ...], encodings: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (B, 3, h, w) float32 unit normals, (B, C, h, w) features, hidden state; arguments: fine map first."""
        fine, middle, coarse = (torch.cat(pair, 1) for pair in zip(features, encodings, strict=True))
        x = self.up2(self.up1(self.conv2(coarse), middle), fine)
        x = torch.cat([x, encodings[0]], 1)
        return unit(self.normal_head(x).float()), self.feature_head(x), self.hidden_head(x)


class Gru(nn.Module):
    """A convolutional gated recurrent unit."""

    def __init__(self, hidden: int, given: int) -> None:
        super().__init__()
        self.convz, self.convr, self.convq = (nn.Conv2d(hidden + given, hidden, 5, padding=2) for _ in range(3))

    def forward(self, hidden: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the next (B, C, h, w) hidden state."""
        both = torch.cat([hidden, x], 1)
        update, reset = self.convz(both).sigmoid(), self.convr(both).sigmoid()
        proposed = self.convq(torch.cat([reset * hidden, x], 1)).tanh()
        return (1 - update) * hidden + update * proposed


class _UpSample(nn.Module):
    """Two weight-standardised convolutions of a coarse map at the size of a finer one, beside it."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        layers = [
            layer
            for channels in (cin, cout)
            for layer in (_StandardisedConv(channels, cout, 3), nn.GroupNorm(8, cout), nn.LeakyReLU(0.01))
        ]
        self._net = nn.Sequential(*layers)

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        resized = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        return self._net(torch.cat([resized, fine], 1))


class _StandardisedConv(nn.Conv2d):
    """A convolution whose filters have mean zero and deviation one (Qiao et al. 2019)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.float()
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        deviation = weight.flatten(1).std(1).view(-1, 1, 1, 1)
        weight = (weight / (deviation + 1e-5)).to(x.dtype)
        return F.conv2d(x, weight, self.bias, padding="same")


def _head(cin: int, inner: int, cout: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, inner, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(inner, inner, 1),
        nn.ReLU(),
        nn.Conv2d(inner, cout, 1),
    )


def ray_encoding(K: torch.Tensor, feature: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return (B, 2, h, w) float32: where each pixel of ``feature`` meets the plane z = 1.

    Half a pixel is added because the network counts the centre of the top-left pixel as (0.5, 0.5).
    """
    height, width = feature.shape[-2:]
    xs = torch.arange(width, device=K.device, dtype=torch.float32) + 0.5
    ys = torch.arange(height, device=K.device, dtype=torch.float32) + 0.5
    fx, fy = focal_lengths(K, feature, image).flatten(2).unsqueeze(-1).unbind(1)
    cx = ((K[:, 0, 2] + 0.5) * (width / image.shape[-1])).view(-1, 1, 1)
    cy = ((K[:, 1, 2] + 0.5) * (height / image.shape[-2])).view(-1, 1, 1)
    u = ((xs - cx) / fx).expand(-1, height, -1)
    v = ((ys[:, None] - cy) / fy).expand(-1, -1, width)
    return torch.stack([u, v], 1)


def focal_lengths(K: torch.Tensor, feature: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return (B, 2, 1, 1, 1) float32 focal lengths in pixels of ``feature``."""
    across, down = (feature.shape[i] / image.shape[i] for i in (-1, -2))
    return torch.stack([K[:, 0, 0] * across, K[:, 1, 1] * down], 1).view(-1, 2, 1, 1, 1)


def facing(normal: torch.Tensor, ray: torch.Tensor) -> torch.Tensor:
    """Return unit normals (along dimension 1) turned so that their cosine with the unit ray is ``LEAST`` or more."""
    cosine = (normal * ray).sum(1, keepdim=True)
    return unit(normal + ray * ((cosine - LEAST).relu() + LEAST - cosine))


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Return ``vectors`` along dimension 1 at length one; zero stays zero (torch's own norm is slow along it)."""
    return vectors / vectors.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)


def neighbours(x: torch.Tensor, window: int) -> torch.Tensor:
    """Return (B, C, window², h, w): around each pixel of (B, C, h, w) the pixels in reading order, edges repeated."""
    batch, channels, height, width = x.shape
    padded = F.pad(x, (window // 2,) * 4, mode="replicate")
    return F.unfold(padded, window).view(batch, channels, window**2, height, width)


def rotation_axis(normal: torch.Tensor, uv: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Return (B, 3, N, h, w) unit axes: the directions along each plane whose projections are given; zero where none.

    Args:
        normal: (B, 3, N, h, w) of the planes.
        uv: (B, 2, N, h, w) where the rays meet z = 1.
        step: (B, 2, N, h, w) the directions in the image, on z = 1.
    """
    moved = uv + step
    divisor = (moved * normal[:, :2]).sum(1, keepdim=True) + normal[:, 2:]
    divisor = torch.where(divisor < 0, divisor.clamp(max=-TINY), divisor.clamp(min=TINY))
    rise = -(step * normal[:, :2]).sum(1, keepdim=True) / divisor
    axis = unit(torch.cat([step + rise * moved, rise], 1))
    return axis.nan_to_num(0, 0, 0)


def rotate_about(vector: torch.Tensor, axis: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Return ``vector`` rotated about unit ``axis`` (both along dimension 1) by ``angle`` (radians, right-handed)."""
    along = (axis * vector).sum(1, keepdim=True)
    across = torch.linalg.cross(axis.expand_as(vector), vector, dim=1)
    return vector * angle.cos() + across * angle.sin() + axis * along * (1 - angle.cos())
