"""Models by name: those of this package and those that GPEN's authors released; their conventions and files."""

import contextlib
import difflib
import sys
from dataclasses import dataclass, field, replace
from os import path as osp
from pathlib import Path
from typing import Literal

from gpen_plugin.checkpoints.checkpoint import NetworkSpec
from gpen_plugin.checkpoints.download import WeightFile, cache_folder
from gpen_plugin.checkpoints.metadata import Conventions
from gpen_plugin.errors import CheckpointError
from gpen_plugin.restore.tasks import Restore

PUBLISHED_AT = "https://public-vigen-video.oss-cn-shanghai.aliyuncs.com/robin/models"
MODELSCOPE = "https://www.modelscope.cn/models/damo/cv_gpen_image-portrait-enhancement-hires/files"
LICENSE = (
    "Note: the weights that GPEN's authors released have no license any more. Use them at your own risk, and do not "
    "redistribute them. (This note is shown once.)"
)
NO_LICENSE = "none: GPEN's authors state none for their weights"
WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors", ".onnx")
LICENSE_SHOWN = "licence-of-released-weights-shown"  # a file in the cache


@dataclass(frozen=True)
class ReleasedModel:
    file: WeightFile  # weights
    out_size: int  # side of input and output
    channel_multiplier: float  # see `channels_of`
    narrow: float = 1
    conventions: Conventions = field(default_factory=Conventions)  # of the network
    kind: Literal["GPEN", "GPENDiscriminator"] = "GPEN"  # ``GPENDiscriminator`` if it is for training only
    num_style_feat: int = 512  # length of the latent code
    num_mlp: int = 8  # layers of the mapping network
    is_ours: bool = False  # whether it is part of this package

    @property
    def name(self) -> str:
        """E.g. ``GPEN-BFR-512``."""
        return Path(self.file.name).stem

    @property
    def spec(self) -> NetworkSpec:
        whole = self.kind == "GPEN"
        return NetworkSpec(
            kind=self.kind,
            out_size=self.out_size,
            in_size=self.out_size if whole else None,
            channel_multiplier=self.channel_multiplier,
            narrow=self.narrow,
            num_style_feat=self.num_style_feat if whole else None,
            num_mlp=self.num_mlp if whole else None,
            noise_mode="concat" if whole else None,
            layout="authors",
            prior="GPENPrior" if whole else None,
        )

    def check(self, spec: NetworkSpec, where: str) -> None:
        """Raise a `CheckpointError` for the file `where` unless `spec` is that of this model, in any layout."""
        if replace(spec, layout=self.spec.layout) != self.spec:
            hint = "Download the right file. If it is a model of your own, rename it."
            raise CheckpointError(where, f"holds {spec}", f"{self.spec}, as {self.name} is", hint)


def _published(name: str, what: str, sha256: str | None = None) -> WeightFile:
    return WeightFile(f"{name}.pth", what, f"{PUBLISHED_AT}/{name}.pth", sha256)


def _included(name: str, what: str, kind: Literal["GPEN", "GPENDiscriminator"] = "GPEN") -> ReleasedModel:
    """A model of 256 px that is part of this package; its faces are in dlib's framing, as FairFace's."""
    file = WeightFile(f"{name}.safetensors", f"{what}, 256 px; included in this package", None, None)
    faces, latents = Conventions(template="dlib"), {"num_style_feat": 128, "num_mlp": 4}
    return ReleasedModel(file, 256, 1, narrow=0.125, conventions=faces, kind=kind, **latents, is_ours=True)


DEFAULT = Restore.released

# Digests are those under which public copies of the authors' files are stored; where none was found there is none, and
# such a file is not downloaded.
#
# The tools that run the released models crop faces by FFHQ's template for 512 px and more, and by ArcFace's, which is
# closer to the face, for 256 px. The authors' own demo crops wider than either (`gpen`).
RELEASED = {
    model.name.lower(): model
    for model in (
        _included(DEFAULT, "restores faces"),
        _included(f"{DEFAULT}-D", "discriminator, for training on", "GPENDiscriminator"),
        ReleasedModel(
            _published(
                "GPEN-BFR-256",
                "restores faces, 256 px",
                "56ba6ed9d19e1e1c2ec36bc63e1ef9d54ed1bc544b4f8f0769222660d255ddc5",
            ),
            256,
            channel_multiplier=1,
            narrow=0.5,
            conventions=Conventions(template="arcface"),
        ),
        ReleasedModel(
            _published(
                "GPEN-BFR-512",
                "restores faces, 512 px",
                "f1002c41add95b0decad69604d80455576f7187dd99ca16bd611bcfd44c10b51",
            ),
            512,
            channel_multiplier=2,
        ),
        ReleasedModel(
            WeightFile("GPEN-BFR-1024.pth", "restores faces, 1024 px", MODELSCOPE, None, ("pytorch_model.pt",)),
            1024,
            channel_multiplier=2,
        ),
        ReleasedModel(
            WeightFile("GPEN-BFR-2048.pth", "restores faces, 2048 px", MODELSCOPE, None, ("pytorch_model-2048.pt",)),
            2048,
            channel_multiplier=2,
            conventions=Conventions(alpha=0.8),
        ),
        ReleasedModel(
            _published("GPEN-Colorization-1024", "colorizes gray faces"),
            1024,
            channel_multiplier=2,
            conventions=Conventions(task="colorize"),
        ),
        ReleasedModel(
            _published("GPEN-Inpainting-1024", "fills white strokes in faces"),
            1024,
            channel_multiplier=2,
            conventions=Conventions(task="inpaint"),
        ),
        ReleasedModel(
            _published("GPEN-Seg2face-512", "generates faces from segmentation maps"),
            512,
            channel_multiplier=2,
            conventions=Conventions(value_range=(0, 1), task="seg2face"),
        ),
        # Their D is not as narrow as the G beside it.
        ReleasedModel(_published("GPEN-BFR-256-D", "discriminator, for training on"), 256, 1, kind="GPENDiscriminator"),
        ReleasedModel(_published("GPEN-BFR-512-D", "discriminator, for training on"), 512, 2, kind="GPENDiscriminator"),
    )
}


# ModelScope's; what it calls pytorch_model.pt is 1024 px there, and other things elsewhere.
OTHER_NAMES = {"pytorch-model-2048": "gpen-bfr-2048"}


def get_released(name: str) -> ReleasedModel | None:
    """The model of a name, case-insensitive, with or without suffix; None if there is none.

    Names of other tools are known, too: ``gpen_bfr_512.onnx``.
    """
    plain = _normalize_name(name)
    return RELEASED.get(OTHER_NAMES.get(plain, plain))


def suggest(name: str) -> str | None:
    """The most similar released name; None if none is similar."""
    near = difflib.get_close_matches(_normalize_name(name), RELEASED, n=1, cutoff=0.6)
    return RELEASED[near[0]].name if near else None


def weight_files() -> list[WeightFile]:
    """The files that the authors released."""
    return [model.file for model in RELEASED.values() if not model.is_ours]


def print_license_once() -> None:
    """Print the note on the released weights to stderr: once per user, or each time if the cache is not writable."""
    if osp.exists(path := cache_folder() / LICENSE_SHOWN):
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "x") as marker:  # of several processes one succeeds
                marker.write(f"{LICENSE}\n")
        except FileExistsError:
            return
    print(LICENSE, file=sys.stderr)


def _normalize_name(name: str) -> str:
    stem = name.lower().replace("_", "-")
    return next((stem.removesuffix(end) for end in WEIGHT_SUFFIXES if stem.endswith(end)), stem)
