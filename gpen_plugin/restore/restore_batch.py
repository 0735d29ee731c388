"""`RestoreBatch`: a dict of arrays in, a dict of arrays out, for engines that share batches out among processes."""

import inspect
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
from PIL import Image

from gpen_plugin.errors import OptionError
from gpen_plugin.images.encode import ENCODERS
from gpen_plugin.restore.batch import Runner
from gpen_plugin.restore.inputs import Job
from gpen_plugin.restore.outputs import Outputs
from gpen_plugin.restore.report import FaceReport
from gpen_plugin.restore.restorer import Restorer

REPORT = "report"  # the column that is added


class RestoreBatch:
    """Restores a column of images: for `map_batches` of Ray Data and `map(batched=True)` of Hugging Face's datasets.

    A call takes a dict of columns and returns one: the images are restored, the other columns stay, and ``report`` is
    added: JSON with ``faces`` and ``notes``, as in the report file of gpen-restore. An image is one of two kinds.

    The contents of a file: bytes, or a dict with ``bytes`` and ``path``, as datasets has it undecoded. The result has
    the format of the input, or PNG if that is not written. If it cannot be restored, it is None, and the report has an
    ``error``.

    Or an array, RGB or gray, uint8 or uint16, (H, W), (H, W, 3) or (H, W, 4) with alpha; or an image of Pillow. The
    result is of the same kind. Errors: see `Restorer.restore_all`.

    The network is built at the first call, in the process that calls; an instance is pickled without it.
    """

    def __init__(
        self,
        image: str = "image",  # the column of images
        # a column with the names or paths of the files, which decide the format and appear in errors; not required
        name: str = "path",
        *,
        suffix: str | None = None,  # format of the written files, e.g. ``.png``; None: see above
        aligned: bool = False,  # whether each image shows one aligned face
        **options: Any,  # of `Restorer`: ``model``, ``device``, ...
    ):
        inspect.signature(Restorer).bind(**options)  # a TypeError for an unknown one
        if suffix is not None and suffix not in ENCODERS:
            raise OptionError("suffix", f"got {suffix}", "one of " + ", ".join(ENCODERS))
        self._image, self._name, self._suffix, self._aligned, self._options = image, name, suffix, aligned, options
        self._restorer: Restorer | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_restorer": None}

    @property
    def restorer(self) -> Restorer:
        if self._restorer is None:
            restorer = Restorer(**self._options)
            restorer.check_aligned(self._aligned)
            self._restorer = restorer
        return self._restorer

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """Restore a batch. OptionError if there is no such column; further errors: see `Restorer`."""
        columns = dict(batch)
        if self._image not in columns:
            raise OptionError("image", f"got {self._image}", "one of the columns " + ", ".join(columns))
        images = list(columns[self._image])
        names = [str(name) for name in columns.get(self._name, ())] or [_own_name(image) for image in images]
        reports: list[dict[str, Any]] = [{} for _ in images]
        contents = [_contents(image) for image in images]
        arrays = [i for i, data in enumerate(contents) if data is None]
        restored = self.restorer.restore_all([_to_bgr(images[i]) for i in arrays], aligned=self._aligned)
        for i, result in zip(arrays, restored, strict=True):
            rgb = _swap_red_blue(result.image)
            images[i] = Image.fromarray(rgb) if isinstance(images[i], Image.Image) else rgb
            reports[i] = {"notes": [], "faces": [FaceReport.of(face).entry for face in result.faces]}
        files = {i: (names[i], data) for i, data in enumerate(contents) if data is not None}
        for i, (data, report) in self._restore_files(files).items():
            images[i] = {**images[i], "bytes": data} if isinstance(images[i], Mapping) and data else data
            reports[i] = report
        return {**columns, self._image: images, REPORT: [json.dumps(report) for report in reports]}

    def _restore_files(self, files: Mapping[int, tuple[str, bytes]]) -> dict[int, tuple[bytes | None, dict[str, Any]]]:
        """Result and report of files, given by name and contents: what gpen-restore writes for them."""
        results: dict[int, tuple[bytes | None, dict[str, Any]]] = {}
        jobs: dict[Path, tuple[Job, int]] = {}
        with tempfile.TemporaryDirectory(prefix="gpen_plugin_") as parent:
            for key, (name, data) in files.items():
                source = Path(parent, f"{key}{PurePath(name).suffix}")
                source.write_bytes(data)
                suffix = self._suffix or _written_suffix(name, data)
                jobs[source] = Job(source, "image", source.with_name(f"{key}_restored{suffix}")), key
            outputs = Outputs(Path(parent))
            outputs.open()
            run = Runner(self.restorer, outputs, {}, aligned=self._aligned)
            for job, job_report in run([job for job, _ in jobs.values()]):
                key, report = jobs[Path(job.source)][1], job_report.to_dict()
                del report["source"], report["target"]
                if "error" in report:
                    for path in (job.source, job.target):
                        report["error"] = report["error"].replace(str(path), files[key][0])
                    results[key] = None, report
                else:
                    results[key] = job.target.read_bytes(), report
                    job.target.unlink()
        return results


def _contents(image: object) -> bytes | None:
    """The contents of a file; None for an array."""
    if isinstance(image, Mapping):
        return Path(image["path"]).read_bytes() if image["bytes"] is None else image["bytes"]
    return image if isinstance(image, bytes) else None


def _own_name(image: object) -> str:
    return image.get("path") or "image" if isinstance(image, Mapping) else "image"


def _written_suffix(name: str, data: bytes) -> str:
    if (suffix := PurePath(name).suffix.lower()) in ENCODERS:
        return suffix
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = image.format
    except (OSError, Image.DecompressionBombError):  # reading it will say why
        kind = None
    return next((suffix for suffix, encoder in ENCODERS.items() if kind in encoder.formats), ".png")


def _to_bgr(image: Any) -> np.ndarray:
    if isinstance(image, Image.Image) and image.mode not in ("L", "RGB", "RGBA", "I;16"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return _swap_red_blue(np.asarray(image))


def _swap_red_blue(image: np.ndarray) -> np.ndarray:
    """RGB to BGR or back; gray stays."""
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels == 3:
        return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA) if channels == 4 else image
