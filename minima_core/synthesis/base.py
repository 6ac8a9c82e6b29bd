"""What a synthesis engine is: one RGB image with its geometry in, one pixel-aligned image of the modality out."""

from __future__ import annotations

import importlib
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, ClassVar, Literal

import numpy as np
from omegaconf import OmegaConf

from minima_core.config import Section, checked, unknown
from minima_core.errors import ConfigError
from minima_core.licences import APACHE_2_0, Licence
from minima_core.plugins import Plugins
from minima_core.random import rng

RGBColour = tuple[int, int, int]
Weights = Literal["none", "published", "random", "local"]


@dataclass(frozen=True)
class Source:
    """What an engine may look at.

    Attributes:
        name: id of the image, ``scene/stem``; it seeds the engine.
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) float32, 0 where unknown, or None.
        K: (3, 3) float64 intrinsics, or None.
        material: (H, W) uint8 material ids of the synthetic world, or None.
        T_0to1: (4, 4) float64 from this camera to that of a neighbouring view of the scene (x1 = R x0 + t), or None.
        rendition: (h, w, 3) uint8 RGB, the modality's image as somebody else made it, or None.
        tissue: (H, W) uint8 ids of tissues, see ``data.tissues``, or None.
    """

    name: str
    image: np.ndarray
    depth: np.ndarray | None = None
    K: np.ndarray | None = None
    material: np.ndarray | None = None
    T_0to1: np.ndarray | None = None
    rendition: np.ndarray | None = None
    tissue: np.ndarray | None = None


@dataclass(frozen=True)
class Rendition:
    """One image of a modality.

    Attributes:
        image: (H, W, 3) uint8 RGB, the size of its source.
        drawn: what the engine drew at random for this image, for the record.
        raw: (H, W) float32 values that the picture was drawn from, where they are worth keeping beside it.
    """

    image: np.ndarray
    drawn: dict[str, Any] = field(default_factory=dict)
    raw: np.ndarray | None = None


class Engine(ABC):
    """Makes one modality.

    Constructing is cheap; ``setup`` loads weights; ``_synthesise`` depends on its arguments only. A modality is a
    package in ``minima_core/synthesis``, an engine a module in it that holds one subclass of this; ``<engine>.yaml``
    beside the module holds its shipped settings.
    """

    class Params(Section):
        """Settings, ``synthesis.<modality>`` in params.yaml; ``engine`` names the module."""

        engine: str

    licence: ClassVar[Licence] = APACHE_2_0  # of the engine itself
    encoding: ClassVar[Literal["png", "jpeg95"]] = "jpeg95"  # png where JPEG would smear (few colours, thin lines)
    reads: ClassVar[frozenset[str]] = frozenset({"depth", "material"})  # what it looks at beside the picture
    palette: ClassVar[tuple[RGBColour, ...]] = ()  # the only colours of its pictures, where they are at most four
    seeded: ClassVar[bool] = False  # whether another seed gives another picture
    raw: ClassVar[bool] = False  # whether it keeps raw values beside its pictures
    gpus: ClassVar[float] = 0.0  # share of a GPU that one process of it can use; 0 for engines without a network

    def __init__(self, params: Section) -> None:
        self.params = params

    @property
    def suffix(self) -> str:
        """The suffix of picture files in this encoding."""
        return ".png" if self.encoding == "png" else ".jpg"

    @property
    def weights(self) -> Weights:
        """Which weights are in use: none, published ones, random ones or a file made here."""
        return "none"

    def terms(self) -> Licence:
        """Return the licence of the engine and its weights together; nothing is fetched for that."""
        return self.licence

    def sources(self) -> dict[str, str]:
        """Return the sha256 of each weight file in use; fetches what is not there yet."""
        return {}

    def setup(self, device: str = "cpu") -> None:  # noqa: B027, most engines have nothing to load
        """Load what the engine needs onto a torch device; engines without weights need nothing."""

    def batch_size(self, width: int, height: int) -> int:  # noqa: ARG002, of engines whose networks take several
        """Return how many images of a size the engine should be given at once, once it is set up."""
        return 1

    def synthesise(self, source: Source, *, seed: int, modality: str, attempt: int = 0) -> Rendition:
        """Return the modality's image of ``source``; the result depends on the arguments and nothing else.

        Args:
            source: the image and what is known of its scene.
            seed: the project's seed.
            modality: what the engine is asked for; it seeds the engine too.
            attempt: 0, or more to draw anew for an image whose first rendition was refused.

        Raises:
            Unavailable: if the source lacks what the modality is made from.
        """
        return self.synthesise_batch([source], seed=seed, modality=modality, attempt=attempt)[0]

    def synthesise_batch(
        self, sources: Sequence[Source], *, seed: int, modality: str, attempt: int = 0
    ) -> list[Rendition]:
        """Return the renditions of several images of one size; as ``synthesise``.

        Each image has a generator of its own. A network may round differently in batches of different sizes.
        """
        again: tuple[str | int, ...] = ("attempt", attempt) if attempt else ()
        generators = [rng(seed, source.name, modality, *again) for source in sources]
        made = self._synthesise_batch(sources, generators)
        for source, rendition in zip(sources, made, strict=True):
            image = rendition.image
            if image.dtype != np.uint8 or image.shape != source.image.shape:
                raise AssertionError(
                    f"{type(self).__name__} returned {image.dtype} {image.shape} for {source.name}, "
                    f"uint8 {source.image.shape} expected"
                )
        return made

    def _synthesise_batch(self, sources: Sequence[Source], rngs: Sequence[np.random.Generator]) -> list[Rendition]:
        """Return the renditions of images of one size; engines without a network make them one by one."""
        return [self._synthesise(source, rng) for source, rng in zip(sources, rngs, strict=True)]

    @abstractmethod
    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:
        """Return the modality's image of one source."""


class _Modalities:
    """The modalities by name, and their engines by module."""

    package = "minima_core.synthesis"

    def names(self) -> list[str]:
        """Return the names of all modalities: the sub-packages, sorted."""
        path = importlib.import_module(self.package).__path__
        return sorted(m.name for m in pkgutil.iter_modules(path) if m.ispkg and not m.name.startswith("_"))

    def engines(self, modality: str) -> Plugins[Engine]:
        """Return the engines of a modality.

        Raises:
            ConfigError: if there is no such modality; the message lists the right names and the closest.
        """
        if modality not in self.names():
            if owner := next((name for name in self.names() if modality in self.engines(name).names()), ""):
                raise ConfigError(f"unknown modality: '{modality}' is an engine of {owner}; name that")
            raise ConfigError(f"unknown modality: {unknown(modality, self.names(), self.package)}")
        return Plugins(f"{self.package}.{modality}", Engine, f"engine of {modality}")  # type: ignore[type-abstract]

    def settings(self, modality: str, engine: str = "") -> dict[str, Any]:
        """Return the shipped settings of an engine: ``<modality>/<engine>.yaml``, and ``engine``, its name.

        Args:
            modality: its name.
            engine: its name; "" for the modality's default, which defaults.yaml names.

        Raises:
            ConfigError: if there is no such modality or engine; the message lists the right names and the closest.
        """
        engines = self.engines(modality)
        folder = resources.files(self.package)
        name = engine or _read_yaml(folder / "defaults.yaml").get(modality) or engines.names()[0]
        engines.require(name)
        return {"engine": name, **_read_yaml(folder / modality / f"{name}.yaml")}

    def create(self, modality: str, settings: Any, where: str = "") -> Engine:
        """Return the engine that ``settings`` names, not yet set up.

        Args:
            modality: its name.
            settings: of the engine, and ``engine``, its name.
            where: what messages call the settings; ``synthesis.<modality>`` of params.yaml unless said otherwise.

        Raises:
            ConfigError: if the modality, the engine or a setting is unknown.
        """
        where = where or f"params.yaml: synthesis.{modality}"
        engines = self.engines(modality)
        if not isinstance(settings, dict) or "engine" not in settings:
            raise ConfigError(f"{where} must name its engine, one of {', '.join(engines.names())}")
        engine = engines.get(str(settings["engine"]))
        return engine(checked(settings, engine.Params, where))


def _read_yaml(file: Traversable) -> dict[str, Any]:
    """Return the mapping in a file of the package; of one that is not there, none."""
    if not file.is_file():
        return {}
    return dict(OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8"))))  # type: ignore[arg-type]


MODALITIES = _Modalities()


@lru_cache(maxsize=1)
def engine_at_work(modality: str, settings: str, device: str = "cpu") -> Engine:
    """Return the engine of settings in JSON, set up once in each worker process while its jobs are of one modality."""
    engine = MODALITIES.create(modality, json.loads(settings))
    engine.setup(device)
    return engine
