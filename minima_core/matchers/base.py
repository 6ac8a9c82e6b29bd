"""What a matcher plugin is: two images in, matches out; a batch in, a loss out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import torch
from torch import nn
from torch.nn import functional as F

from minima_core import licences
from minima_core.config import Section
from minima_core.errors import ConfigError, DataError
from minima_core.geometry.coords import rescale_points
from minima_core.licences import APACHE_2_0, Licence
from minima_core.plugins import Plugins
from minima_core.published import PUBLISHED
from minima_core.types import Matches

if TYPE_CHECKING:
    from pathlib import Path

    from minima_core.data.pairs import PairSource
    from minima_core.data.sampling import Item

Precision = Literal["float32", "bfloat16", "float16"]
FLAT = 1.5 / 255  # an image whose channels span less than this has no texture, only rounding


@dataclass(frozen=True)
class Losses:
    """A training loss (scalar tensor) and its parts, for the curves; both are means over the pairs of the batch."""

    total: torch.Tensor
    parts: dict[str, float]


@dataclass(frozen=True)
class Provenance:
    """Where weights come from: official file name -> sha256, and under which licence they may be used."""

    source: dict[str, str]
    licence: Licence

    @classmethod
    def of(cls, *files: str) -> Self:
        """Return where the published ``files`` come from, under their licences together."""
        terms = licences.combine(PUBLISHED[name].licence for name in files)
        return cls({name: PUBLISHED[name].sha256 for name in files}, terms)


@dataclass(frozen=True)
class Extracted:
    """What a matcher needs of one image.

    Attributes:
        features: the matcher's own; None where the image has no texture.
        to_original: factors from pixels of the resized image to those of the original, x and y.
        size: width and height of the original.
        max_keypoints: that were asked for.
    """

    features: Any
    to_original: tuple[float, float]
    size: tuple[int, int]
    max_keypoints: int


class TrainingData(Protocol):
    """Training samples of a matcher: which ones, the sampler says."""

    key: str  # digest of everything that the samples come from

    def sample(self, item: Item) -> Any:
        """Return one sample, a function of ``item`` alone."""

    def collate(self, samples: list[Any]) -> Any:
        """Return the batch that ``Matcher.loss`` takes."""

    def close(self) -> None:
        """Close the files that samples are read from; the next sample opens them again."""


class Matcher(nn.Module, ABC):
    """A matcher; construction is cheap and random, weights come from ``load_published`` or a model folder."""

    class Params(Section):
        """Settings, ``matcher.<name>`` in params.yaml."""

        long_side: int  # images are resized to this before matching
        max_keypoints: int  # or matches, where the matcher has no keypoints

    sparse: ClassVar[bool] = False  # whether it matches keypoints

    def __init__(self, params: Any) -> None:
        super().__init__()
        self.params = params
        self.precision: Precision = "float32"  # in which two images are matched; weights and pixels are float32
        self._momentum: dict[str, float] = {}  # of batch statistics, as the networks were made

    def train(self, mode: bool = True) -> Self:
        """Set the mode, and let batch statistics begin as the plain mean of what the first batches show.

        They start at mean 0 and variance 1, which at the usual momentum stays in them for a hundred steps: a short
        training from random weights would be judged and used with statistics that are not those of its features.
        """
        super().train(mode)
        for name, norm in self.named_modules():
            if isinstance(norm, nn.BatchNorm2d) and norm.training and norm.momentum is not None:
                usual = self._momentum.setdefault(name, norm.momentum)
                batch = int(norm.num_batches_tracked or 0) + 1
                # one over the number of the batch, in powers of two: torch.compile compiles anew for each value
                norm.momentum = max(usual, 0.5 ** (batch.bit_length() - 1))
        return self

    def compiled(self) -> list[nn.Module]:
        """Return the parts of the networks that ``compile`` compiles; none, unless the matcher names some."""
        return []

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Have torch.compile, which takes the arguments, compile the networks, for matching as for training.

        It does so at the first use, and again for other sizes unless told that they are ``dynamic``; it takes up to
        minutes and a C++ compiler, which torch 2.13 calls wrongly where the path of the environment has a space.
        """
        for part in self.compiled():
            part.compile(*args, **kwargs)

    @property
    def reads_gray(self) -> bool:
        """Whether its network sees gray images, which the published evaluation then reads from the files."""
        return False

    @property
    def size_multiple(self) -> int:
        """Both sides of a resized image are floored to a multiple of this."""
        return 1

    def match(
        self,
        image0: torch.Tensor,
        image1: torch.Tensor,
        *,
        max_keypoints: int | None = None,
        long_side: int | None = None,
    ) -> Matches:
        """Match two (3, H, W) RGB float images in [0, 1]; returns original pixels, on the CPU.

        An image without texture gives no matches, not an error.

        Raises:
            DataError: if an image has another shape or is not finite.
            ConfigError: if a number is below 1.
        """
        return self.match_batch([(image0, image1)], max_keypoints=max_keypoints, long_side=long_side)[0]

    def match_batch(
        self,
        pairs: Sequence[tuple[torch.Tensor, torch.Tensor]],
        *,
        max_keypoints: int | None = None,
        long_side: int | None = None,
    ) -> list[Matches]:
        """Match pairs of images of any sizes together; gives what ``match`` gives of each, but for rounding.

        Raises:
            DataError: as ``match``.
            ConfigError: as ``match``.
        """
        how = {"max_keypoints": max_keypoints, "long_side": long_side}
        return self._match_extracted([(self.extract(i0, **how), self.extract(i1, **how)) for i0, i1 in pairs])

    def match_in_turns(
        self,
        pairs: Sequence[tuple[torch.Tensor, torch.Tensor]],
        *,
        max_keypoints: int | None = None,
        long_side: int | None = None,
    ) -> list[Matches]:
        """Match pairs whose images may be turned by any angle: image 1 as it is and by 90, 180 and 270 degrees.

        Of each pair the turn is taken whose scores have the largest sum; a matcher that bears 45 degrees bears any
        angle so. The points are those of the image as it was given.

        Raises:
            DataError: as ``match``.
            ConfigError: as ``match``.
        """
        how = {"max_keypoints": max_keypoints, "long_side": long_side}
        found0 = [self.extract(image0, **how) for image0, _ in pairs]
        best = [Matches.empty()] * len(pairs)
        for quarters in range(4):
            turned = [self.extract(torch.rot90(image1, quarters, (1, 2)), **how) for _, image1 in pairs]
            for n, found in enumerate(self._match_extracted(list(zip(found0, turned, strict=True)))):
                if found.scores.sum() > best[n].scores.sum():
                    best[n] = Matches(found.mkpts0, _turned_back(found.mkpts1, quarters, turned[n].size), found.scores)
        return best

    @torch.inference_mode()
    def extract(
        self, image: torch.Tensor, *, max_keypoints: int | None = None, long_side: int | None = None
    ) -> Extracted:
        """Return what ``match_features`` needs of one image; worth keeping where an image is in several pairs.

        Raises:
            DataError: as ``match``.
            ConfigError: as ``match``.
        """
        for name, number in (("max_keypoints", max_keypoints), ("long_side", long_side)):
            if number is not None and number < 1:
                raise ConfigError(f"{name} must be at least 1, or None for the model's own, not {number}")
        if image.ndim != 3 or image.shape[0] != 3 or not image.numel() or not _is_finite(image):
            raise DataError(
                f"an image of shape (3, H, W) with pixels, all of them finite, expected, not {tuple(image.shape)}"
            )
        small, scale = resize(image.to(_device(self)), long_side or self.params.long_side, self.size_multiple)
        number = max_keypoints or self.params.max_keypoints
        features = None if textureless(small) else self.eval()._extract(small, number)
        return Extracted(features, (1 / scale[0], 1 / scale[1]), (image.shape[-1], image.shape[-2]), number)

    def match_features(self, found0: Extracted, found1: Extracted) -> Matches:
        """Match two extracted images; the result is that of ``match`` on the images."""
        return self._match_extracted([(found0, found1)])[0]

    @torch.inference_mode()
    def _match_extracted(self, pairs: Sequence[tuple[Extracted, Extracted]]) -> list[Matches]:
        """Match pairs of extracted images that were asked for the same number of keypoints."""
        matches = [Matches.empty()] * len(pairs)
        textured = [n for n, pair in enumerate(pairs) if all(image.features is not None for image in pair)]
        if textured:
            features0, features1 = ([pairs[n][side].features for n in textured] for side in (0, 1))
            with computing_in(self.precision, _device(self)):
                found = self.eval()._match(features0, features1, pairs[0][0].max_keypoints)
            for n, some in zip(textured, found, strict=True):
                matches[n] = _in_originals(some, *pairs[n])
        return matches

    def _extract(self, image: torch.Tensor, max_keypoints: int) -> Any:  # noqa: ARG002 (for those that need it)
        """Return what the matcher makes of one resized image alone; by default nothing: the image."""
        return image

    @abstractmethod
    def _match(self, features0: Sequence[Any], features1: Sequence[Any], max_keypoints: int) -> list[Matches]:
        """Match pairs of what ``_extract`` returned; pixels of the resized images.

        What one pair gives does not depend, but for rounding, on the others.
        """

    @abstractmethod
    def terms(self) -> Licence:
        """Return the licence that ``load_published`` returns, without loading anything."""

    @abstractmethod
    def load_published(self) -> Provenance:
        """Load the official weights.

        Raises:
            WeightsError: if they cannot be had or their sha256 differs.
        """

    def load_frozen(self) -> Provenance:
        """Load the official weights of those parts that have some where the rest starts at random; most have none."""
        return Provenance({}, APACHE_2_0)

    def training_data(self, pairs: PairSource, *, max_keypoints: int, cache: Path, workers: int) -> TrainingData:  # noqa: ARG002
        """Return training samples of ``pairs``.

        What is expensive and does not change (features of a frozen extractor) is computed once and kept in ``cache``.

        Raises:
            ConfigError: if the matcher is a rival with nothing to train; those do not define this.
        """
        raise self._untrainable()

    def loss(self, batch: Any) -> Losses:  # noqa: ARG002
        """Return the loss of one collated batch; zero, with a gradient, where the batch has no ground truth.

        Raises:
            ConfigError: as ``training_data``.
        """
        raise self._untrainable()

    def _untrainable(self) -> ConfigError:
        name = type(self).__name__.lower()
        return ConfigError(f"{name} has nothing to train; take it off matchers and use it by name, --model {name}")

    def trainable(self) -> list[nn.Parameter]:
        """Return the parameters that training changes; all, unless the matcher freezes a part."""
        return [p for p in self.parameters() if p.requires_grad]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters by the names under which ``optimiser.lr`` gives their learning rates."""
        return {"all": self.trainable()}


def _turned_back(points: torch.Tensor, quarters: int, size: tuple[int, int]) -> torch.Tensor:
    """Return (N, 2) pixels of an image of ``size``, which was turned by ``torch.rot90``, in those before the turns."""
    width, height = size
    for _ in range(quarters):
        width, height = height, width
        points = torch.stack([width - 1 - points[:, 1], points[:, 0]], 1)
    return points


def _is_finite(image: torch.Tensor) -> bool:
    return bool(torch.stack(image.aminmax()).isfinite().all())  # NaN is an extreme too; of each pixel it takes memory


def computing_in(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context in which networks with float32 weights compute in ``precision``."""
    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")


def _device(matcher: Matcher) -> torch.device:
    return next((p.device for p in matcher.parameters()), torch.device("cpu"))  # some have no weights


def _in_originals(found: Matches, image0: Extracted, image1: Extracted) -> Matches:
    """Return matches in pixels of the resized images in those of the originals, none outside, on the CPU."""
    mkpts = []
    for points, image in ((found.mkpts0, image0), (found.mkpts1, image1)):
        top = torch.tensor(image.size, dtype=torch.float32) - 1
        mkpts.append(rescale_points(points.float().cpu(), image.to_original).clamp(min=torch.zeros(2), max=top))
    return Matches(mkpts[0], mkpts[1], found.scores.float().cpu())


def textureless(image: torch.Tensor) -> bool:
    """Say whether a (3, H, W) image is one colour, up to rounding."""
    return bool((image.amax((1, 2)) - image.amin((1, 2))).amax() < FLAT)


def resize(image: torch.Tensor, long_side: int, multiple: int = 1) -> tuple[torch.Tensor, tuple[float, float]]:
    """Resize (3, H, W) so that its longer side is ``long_side``, both floored to ``multiple``; returns it and (sx, sy).

    Bilinear with antialiasing.
    """
    h, w = image.shape[-2:]
    new_w, new_h = resized((w, h), long_side, multiple)
    if (new_w, new_h) == (w, h):
        return image, (1.0, 1.0)
    small = F.interpolate(image[None], size=(new_h, new_w), mode="bilinear", align_corners=False, antialias=True)[0]
    return small.clamp(0, 1), (new_w / w, new_h / h)


def resized(size: tuple[int, int], long_side: int, multiple: int = 1) -> tuple[int, int]:
    """Return the width and height that ``resize`` gives an image of ``size``."""
    factor = long_side / max(size)
    w, h = (max(round(side * factor) // multiple, 1) * multiple for side in size)
    return w, h


def stretch(image: torch.Tensor, side: int) -> tuple[torch.Tensor, tuple[float, float]]:
    """Resize (3, H, W) to a square whatever its aspect; returns it and (sx, sy). Bicubic with antialiasing, as RoMa."""
    h, w = image.shape[-2:]
    if (w, h) == (side, side):
        return image, (1.0, 1.0)
    square = F.interpolate(image[None], size=(side, side), mode="bicubic", align_corners=False, antialias=True)[0]
    return square.clamp(0, 1), (side / w, side / h)


MATCHERS: Plugins[Matcher] = Plugins("minima_core.matchers", Matcher, "matcher")  # type: ignore[type-abstract]
