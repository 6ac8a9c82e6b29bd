"""What the stages share that train on the pictures of any number of certified data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minima_core import licences
from minima_core.config import digest
from minima_core.data.pairs import PairSource
from minima_core.errors import DataError, TrainingError
from minima_core.licences import Licence, named
from minima_core.manifest import Certificate, ModalityManifest, ModelCard, RawDataset, SceneManifest, Split, file_sha256
from minima_core.matchers.lightglue import LightGlue
from minima_core.models import read_model, save_model
from minima_core.tracking import Tracker
from minima_core.training.loop import summary
from minima_core.training.run import certified, save_curves, training_code
from minima_core.training.steps import Fitted
from minima_core.training.view_loop import ViewTraining
from minima_core.training.views import Album
from tasks.stage import remove_when_done


class DataSets:
    """The data sets of a folder by name, each with raw, index, modalities and certificate.

    Raises:
        DataError: if there is none, or one lacks a part.
    """

    def __init__(self, folder: Path) -> None:
        found = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()} if folder.is_dir() else {}
        if not found:
            raise DataError(
                f"no data set in {folder}; it holds folders, each with raw, index, modalities and certificate"
            )
        for path in found.values():
            for part in ("raw", "index", "modalities", "certificate"):
                if not (path / part).is_dir():
                    raise DataError(
                        f"no folder {path / part}; copy it from the data folder of a checkout whose stages ran"
                    )
        self.folders = found

    def indices(self) -> dict[str, Path]:
        """Return the folder of each one's index."""
        return {name: folder / "index" for name, folder in self.folders.items()}

    def album(self, split: Split) -> Album:
        """Return all pictures of a split, in every modality that was certified.

        Raises:
            DataError: if there are none, or a certificate is missing.
            TrainingError: if a certificate was given to other data.
        """
        return Album(
            [
                PairSource(folder / "index", folder / "raw", folder / "modalities", split=split, names=names)
                for folder, names in self._certified()
            ]
        )

    def digest(self) -> str:
        """Return a digest of what was certified."""
        files = {name: folder / "certificate" / Certificate.FILE for name, folder in self.folders.items()}
        return digest({name: file_sha256(path) for name, path in files.items()})

    def terms(self) -> list[Licence]:
        """Return the licences of the pictures and of what was made of them."""
        of_pictures = [named(SceneManifest.load(folder / "index").licence) for folder in self.folders.values()]
        manifests = [
            ModalityManifest.load(folder / "modalities" / name) for folder, names in self._certified() for name in names
        ]
        return [*of_pictures, *(Licence(manifest.licence, manifest.commercial) for manifest in manifests)]

    def authors(self) -> list[str]:
        """Return whom the pictures are to be attributed to."""
        return [line for folder in self.folders.values() for line in RawDataset.authors(folder / "raw")]

    def _certified(self) -> list[tuple[Path, list[str]]]:
        return [
            (folder, sorted(certified(folder / "certificate", folder / "index", folder / "modalities").modalities))
            for folder in self.folders.values()
        ]


def read_lightglue(folder: Path) -> tuple[LightGlue, ModelCard]:
    """Return the matcher of a folder of a LightGlue model that moves no matches, and its card.

    Raises:
        TrainingError: if it is another one.
    """
    matcher, card = read_model(folder)
    if not isinstance(matcher, LightGlue):
        raise TrainingError(f"{folder} is a {card.matcher}; give a lightglue model")
    if matcher.refiner is not None:
        raise TrainingError(f"{folder} moves its matches already; give the model that it was trained from")
    return matcher, card


def training_key(models: Sequence[ModelCard], data: DataSets, params: ViewTraining, seed: int) -> str:
    """Return a digest of everything that decides what a training ends with."""
    settings, code = params.model_dump(mode="json"), training_code(models[0].matcher)
    return digest([[card.digest() for card in models], settings, seed, data.digest(), code])


def trained_card(
    models: Sequence[ModelCard],
    data: DataSets,
    training: dict[str, Any],
    seed: int,
    fitted: Fitted,
) -> ModelCard:
    """Return the card of a model with the parent's settings that took weights from all ``models``, the parent first.

    The trainings that the parent had stand in it too, each ``before`` the next.
    """
    parent = models[0]
    before = {"before": parent.training} if parent.training else {}
    terms = licences.combine([*(Licence(card.licence, card.commercial) for card in models), *data.terms()])
    authors = [line for lines in (*(card.attribution for card in models), data.authors()) for line in lines]
    return ModelCard(
        matcher=parent.matcher,
        stage="finetuned",
        params=parent.params,
        training={"data_sets": list(data.folders), **training, **summary(fitted), **before},
        seed=seed,
        source={name: sha256 for card in models for name, sha256 in card.source.items()},
        attribution=list(dict.fromkeys(authors)),
        data_digest=data.digest(),
        parent=parent.digest(),
        weights_sha256="",  # known once they are written
        licence=terms.name,
        commercial=terms.commercial,
    )


def save_trained(
    out: Path, matcher: LightGlue, card: ModelCard, fitted: Fitted, *, scratch: Path, tracker: Tracker
) -> ModelCard:
    """Write a trained model and its curves, have the checkpoints removed and the card recorded; return the card."""
    card = save_model(out, matcher, card)
    save_curves(out, fitted)
    remove_when_done(scratch)  # a forced rerun is to train again
    tracker.artifact(out / ModelCard.FILE)
    tracker.tags(card.tags())
    return card
