"""The applications that run GPEN as an ONNX file, and what each expects of the file. See docs/INTEGRATIONS.md.

All of them take one image, (1, 3, S, S) float32 RGB in [-1, 1], as the input that stands first and is named `input`,
and read the same from the first output, `output`. They read no metadata.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.export.framing import Frame, fit_frame
from gpen_plugin.restore.alignment import parse_template

NEARLY = 0.9  # of the result's resolution


@dataclass(frozen=True)
class Application:
    """What one application expects."""

    name: str
    folder: str  # of its models
    files: Mapping[int, str]  # name of the file by the side of its faces in pixels
    # how it aligns faces: a template's name, or ten numbers as fractions of the side
    templates: Mapping[int, str]
    takes_weight: bool  # whether it feeds an input `weight`, (1,) float64
    checks_crc: bool = False  # whether it takes a file only with its CRC-32 in a .hash file beside it

    def fit(
        self,
        own: np.ndarray,  # (5, 2), the network's alignment, fractions of the side
        in_size: int,  # side of the network's input
        out_size: int,  # of its result
        size: int | None = None,  # side of the faces; None: the smallest that keeps the result's resolution
    ) -> tuple[int, Frame | None]:
        """The side of the application's faces, and the network's frame in them."""
        if size not in (None, *self.files):
            expected = f"one of {', '.join(map(str, self.files))}, the sizes of {self.name}"
            raise OptionError("--size", f"got {size}", expected)
        for side in [size] if size else sorted(self.files):
            frame = fit_frame(parse_template(self.templates[side]), side, own, in_size, out_size)
            seen = side if frame is None else in_size / frame.scale  # pixels that the network's square covers
            if seen >= NEARLY * out_size:
                break
        return side, frame

    def path_in(self, output: Path, size: int) -> Path:
        """The file itself, or that of this size in a folder, where a file of others is not replaced."""
        if output.suffix.lower() == ".onnx":
            return output
        path = output / self.files[size]
        if path.exists() and b"gpen.version" not in path.read_bytes():
            hint = "Move it away, or name another file."
            raise CheckpointError(str(path), "is a file that gpen-export did not write", "a free name", hint)
        return path

    def finish(self, path: Path) -> None:
        """Write what the application wants beside the file."""
        if self.checks_crc:
            path.with_suffix(".hash").write_text(f"{zlib.crc32(path.read_bytes()):08x}")


_POINTS_OF_DEEP_LIVE_CAM = (
    "0.31556875,0.4615741,0.68262291,0.4615741,0.50009375,0.6405054,0.34947187,0.8246919,0.65343645,0.8246919"
)
_BY_SIZE = {size: f"GPEN-BFR-{size}.onnx" for size in (256, 512, 1024, 2048)}

APPLICATIONS = {
    # 3.8.1, facefusion/processors/modules/face_enhancer/core.py, download.py and hash_helper.py
    "facefusion": Application(
        name="facefusion",
        folder=".assets/models",
        files={size: f"gpen_bfr_{size}.onnx" for size in _BY_SIZE},
        templates={256: "arcface", 512: "ffhq", 1024: "ffhq", 2048: "ffhq"},
        takes_weight=True,
        checks_crc=True,
    ),
    # 0.7.0-a2, nodes.py and reactor_utils.py: any name; faces have 1024 or 2048 px if it says so, else 512
    "reactor": Application(
        name="ReActor",
        folder="ComfyUI/models/facerestore_models",
        files={512: "GPEN-512.onnx", 1024: "GPEN-1024.onnx", 2048: "GPEN-2048.onnx"},
        templates=dict.fromkeys((512, 1024, 2048), "ffhq"),
        takes_weight=True,
    ),
    # commit bdeeb3a, modules/processors/frame/_onnx_enhancer.py: ArcFace's 96 x 112 points, divided by its sides
    "deep-live-cam": Application(
        name="Deep-Live-Cam",
        folder="models",
        files={size: _BY_SIZE[size] for size in (256, 512)},
        templates=dict.fromkeys((256, 512), _POINTS_OF_DEEP_LIVE_CAM),
        takes_weight=False,
    ),
    # commit 429cc08, app/processors/face_restorers.py, with the alignment Blend or Reference
    "visomaster": Application(
        name="VisoMaster",
        folder="model_assets",
        files=_BY_SIZE,
        templates=dict.fromkeys(_BY_SIZE, "ffhq"),
        takes_weight=False,
    ),
}
