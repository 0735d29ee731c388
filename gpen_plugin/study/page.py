"""The page that volunteers open: one file, no network, and nothing in it that tells the methods apart."""

import base64
import hashlib
import json
import re
from pathlib import Path

import cv2
import numpy as np

from gpen_plugin.data.image_source import decode_image
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.results import Results, image_of, input_of
from gpen_plugin.study.key_file import StudyKey
from gpen_plugin.study.selection import Selection

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


def make_page(
    root: Path,
    results: Results,
    selection: Selection,
    *,
    title: str,
    tile: int = 512,
    lossless: bool = False,
    show_input: bool = True,
    allow_ties: bool = False,
    seed: int = 0,
) -> tuple[str, StudyKey]:
    """Make the page of a study and its key.

    Args:
        root: folder of the evaluation.
        results: what it found out.
        selection: what is shown.
        title: the page's head; it must not name a method.
        tile: longest side of an image in pixels; larger ones are reduced, smaller ones stay as they are.
        lossless: PNG in place of JPEG of quality 95 without chroma subsampling; about four times as large.
        show_input: show the degraded image too, enlarged to the size of the results.
        allow_ties: let two images share a rank.
        seed: that `selection` was drawn with, for the key.
    Returns:
        (HTML, key).
    Raises:
        OptionError: the title gives a method away, or jinja2 is not installed.
        DataError: an image cannot be read.
    """
    _keep_blind(title, [row.name for row in selection.rows])
    rows = {row.name: row for row in selection.rows}
    side = min(tile, results.size)
    steps = []
    for image in selection.images:
        sources = {
            name: image_of(root, rows[method], selection.condition, image.key) for name, method in image.methods.items()
        }
        images = {name: _encode(_reduced(_read(path), side), lossless) for name, path in sources.items()}
        lq = _read(input_of(root, selection.condition, image.key)) if show_input else None
        shown = None if lq is None else _encode(_enlarged(lq, side), lossless)
        steps.append({"id": image.id, "input": shown, "images": images})
    study = _digest([title, allow_ties, steps])
    key = StudyKey(
        study=study,
        evaluation=results.name,
        fingerprint=results.fingerprint,
        condition=selection.condition,
        seed=seed,
        allow_ties=allow_ties,
        methods=list(rows),
        images=selection.images,
        left_out=selection.left_out,
    )
    settings = {"study": study, "images": [image.id for image in selection.images], "ties": allow_ties}
    html = _template().render(
        title=title,
        settings=settings,
        steps=[(step["id"], json.dumps(step)) for step in steps],
        methods=len(rows),
        images=len(steps),
        kind="image/png" if lossless else "image/jpeg",
        show_input=show_input,
        allow_ties=allow_ties,
    )
    return html, key


def _keep_blind(title: str, methods: list[str]) -> None:
    for method in methods:
        if re.search(rf"(?<!\w){re.escape(method)}(?!\w)", title, re.IGNORECASE):
            raise OptionError("--title", f"got {title!r}, which names {method!r}", "a title that gives no method away")


def _read(path: Path) -> np.ndarray:
    try:
        return decode_image(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(str(path), f"cannot be read ({error})", "an image of the evaluation") from error


def _reduced(image: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(image.shape[:2])
    return image if scale >= 1 else _resized(image, scale, cv2.INTER_AREA)


def _enlarged(image: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(image.shape[:2])
    return _resized(image, scale, cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _resized(image: np.ndarray, scale: float, method: int) -> np.ndarray:
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=method)


def _encode(image: np.ndarray, lossless: bool) -> str:
    """All images alike and from their pixels alone, so that no metadata comes along."""
    done, data = cv2.imencode(".png", image) if lossless else cv2.imencode(".jpg", image, JPEG)
    assert done, "OpenCV always writes PNG and JPEG"
    return base64.b64encode(data.tobytes()).decode("ascii")


def _digest(content: list) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _template():
    try:
        import jinja2
    except ImportError as error:
        hint = 'Run: pip install "gpen_plugin[evaluate]"'
        raise OptionError("study make", "jinja2 is not installed", "what fills in pages", hint) from error
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("page.html")
