"""The models that have a name: the one that comes with this package, and those that GPEN's authors released.

What each is, how it wants its faces, and where its file is found.
"""

import contextlib
import difflib
import sys
from dataclasses import dataclass, field, replace
from os import path as osp
from pathlib import Path
from typing import Literal

from gpen_plugin.checkpoints.checkpoint import NetworkSpec
from gpen_plugin.checkpoints.download import WeightFile, cache_folder
from gpen_plugin.errors import CheckpointError
from gpen_plugin.restore.tasks import Restore

PUBLISHED_AT = "https://public-vigen-video.oss-cn-shanghai.aliyuncs.com/robin/models"
MODELSCOPE = "https://www.modelscope.cn/models/damo/cv_gpen_image-portrait-enhancement-hires/files"
LICENCE = (
    "Note: the weights that GPEN's authors released carry no licence any more. Use them at your own judgement, and do "
    "not pass them on. (This is said once.)"
)
WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors", ".onnx")
TOLD = "licence-of-released-weights-was-told"  # a file in the cache


@dataclass(frozen=True)
class Conventions:
    """How a network wants its faces, as far as its tensors do not tell.

    Attributes:
        value_range: lowest and highest value that it takes and gives.
        task: what it does: ``restore``, ``colorize``, ``inpaint`` or ``seg2face``.
        template: how faces are aligned for it. Ours are trained on images in FFHQ's framing.
        alpha: how much of its result is blended in, unless somebody says otherwise; from 0 to 1.
    """

    value_range: tuple[float, float] = (-1, 1)
    task: str = "restore"
    template: str = "ffhq"
    alpha: float = 1.0


@dataclass(frozen=True)
class ReleasedModel:
    """A model as it was released.

    Attributes:
        file: with its weights.
        out_size: side of its images, in and out.
        channel_multiplier: see `channels_of`.
        narrow: likewise.
        conventions: how it wants its faces.
        kind: ``GPENDiscriminator`` for those that only trainings need.
        num_style_feat: length of its latent code.
        num_mlp: layers of its mapping network.
        is_ours: whether it comes with this package.
    """

    file: WeightFile
    out_size: int
    channel_multiplier: float
    narrow: float = 1
    conventions: Conventions = field(default_factory=Conventions)
    kind: Literal["GPEN", "GPENDiscriminator"] = "GPEN"
    num_style_feat: int = 512
    num_mlp: int = 8
    is_ours: bool = False

    @property
    def name(self) -> str:
        """As it was released, e.g. ``GPEN-BFR-512``."""
        return Path(self.file.name).stem

    @property
    def spec(self) -> NetworkSpec:
        """What the shapes in its file tell."""
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
        )

    def check(self, spec: NetworkSpec, where: str) -> None:
        """Raise a `CheckpointError` that names the file, `where`, unless what it holds is this model, in any layout."""
        if replace(spec, layout=self.spec.layout) != self.spec:
            hint = "Get the right file; or, if it is a model of yours, give it a name of its own."
            raise CheckpointError(where, f"holds {spec}", f"{self.spec}, as {self.name} is", hint)


def _published(name: str, what: str, sha256: str | None = None) -> WeightFile:
    return WeightFile(f"{name}.pth", what, f"{PUBLISHED_AT}/{name}.pth", sha256)


def _carried(name: str, what: str, kind: Literal["GPEN", "GPENDiscriminator"] = "GPEN") -> ReleasedModel:
    """A model of 128 px whose file lies in this package; its faces are FairFace's, in dlib's framing."""
    file = WeightFile(f"{name}.safetensors", f"{what}, 128 px; comes with this package", None, None)
    faces, of_latents = Conventions(template="dlib"), {"num_style_feat": 128, "num_mlp": 4}
    return ReleasedModel(file, 128, 1, narrow=0.125, conventions=faces, kind=kind, **of_latents, is_ours=True)


DEFAULT = Restore.released

# Digests are those under which public copies of the authors' files are stored; where none was found there is none, and
# such a file is not downloaded.
#
# The tools that run the released models crop faces by FFHQ's template for 512 px and more, and by ArcFace's, which is
# closer to the face, for 256 px. The authors' own demo crops wider than either (`gpen`).
RELEASED = {
    model.name.lower(): model
    for model in (
        _carried(DEFAULT, "restores faces"),
        _carried(f"{DEFAULT}-D", "discriminator, for training on", "GPENDiscriminator"),
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
            _published("GPEN-Colorization-1024", "gives colour to grey faces"),
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
            _published("GPEN-Seg2face-512", "draws faces from segmentation maps"),
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
    """The model of this name, in upper or lower case, with ``.pth`` or without; None if there is none.

    Other tools' names of its file are known too: ``gpen_bfr_512.onnx``.
    """
    plain = _plain(name)
    return RELEASED.get(OTHER_NAMES.get(plain, plain))


def suggest(name: str) -> str | None:
    """The released name that somebody may have meant; None if nothing is near."""
    near = difflib.get_close_matches(_plain(name), RELEASED, n=1, cutoff=0.6)
    return RELEASED[near[0]].name if near else None


def weight_files() -> list[WeightFile]:
    """The files of all models that the authors released."""
    return [model.file for model in RELEASED.values() if not model.is_ours]


def print_licence_once() -> None:
    """Write the note on the released weights to standard error: once per user, or each time if nothing can be kept."""
    if osp.exists(told := cache_folder() / TOLD):
        return
    with contextlib.suppress(OSError):
        told.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(told, "x") as marker:  # of several processes one succeeds
                marker.write(f"{LICENCE}\n")
        except FileExistsError:
            return
    print(LICENCE, file=sys.stderr)


def _plain(name: str) -> str:
    stem = name.lower().replace("_", "-")
    return next((stem.removesuffix(end) for end in WEIGHT_SUFFIXES if stem.endswith(end)), stem)
