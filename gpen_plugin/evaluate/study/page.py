"""The page that volunteers open: one file, no network, no hint of which method is which; and its key.

The key says which opaque name on the page stands for which method.
"""

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from gpen_plugin.data.image_source import decode_image
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.results import Failure, Results, Row, input_path, restored_path, write_text

FORMAT = 1  # of the key
MAX_METHODS = 12  # more are hard to rank, and letters beyond L are keys of the page
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


@dataclass(frozen=True)
class StudyImage:
    """One step of the page."""

    id: str  # its opaque name
    key: str  # of the image in the evaluation
    methods: dict[str, str]  # opaque name of an image -> method, in random order


@dataclass(frozen=True)
class StudyKey:
    """What the page keeps from the volunteers."""

    study: str  # digest of all that the page shows; every file of votes repeats it
    evaluation: str  # name of the evaluation whose images are shown
    fingerprint: dict  # of its protocol
    condition: str  # of the protocol; empty where there is but one
    seed: int  # the opaque names are a function of it
    allow_ties: bool  # whether two images may share a rank
    methods: list[str]  # in the order of the evaluation
    images: list[StudyImage]  # the steps
    left_out: list[Failure]  # images that were not shown, since a method gave nothing for them


def write_key(path: Path, key: StudyKey) -> None:
    """Write the key file atomically."""
    write_text(path, json.dumps({"format": FORMAT, **dataclasses.asdict(key)}, indent=1, ensure_ascii=False) + "\n")


def read_key(path: Path) -> StudyKey:
    """Read the key file; DataError if it is missing or damaged."""
    hint = "Give the file that was written beside the page: -k study_key.json"
    if not path.is_file():
        raise DataError(str(path), "not there", "the key of a study", hint)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        content["images"] = [StudyImage(**image) for image in content["images"]]
        content["left_out"] = [Failure(**failure) for failure in content["left_out"]]
        key = StudyKey(**content)
        if any(sorted(image.methods.values()) != sorted(key.methods) for image in key.images):
            raise ValueError("an image without each method once")
        return key
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(str(path), f"cannot be read ({error})", "the key of a study", hint) from error


@dataclass(frozen=True)
class Selection:
    """What takes part."""

    rows: list[Row]  # the methods, in the order of the evaluation
    condition: str  # of the protocol
    images: list[StudyImage]  # with their opaque names
    left_out: list[Failure]  # images that were asked for and cannot be shown


def select(
    root: Path,  # folder of the evaluation
    results: Results,
    *,
    methods: Sequence[str] = (),  # names of rows; empty for all that ran
    keys: Sequence[str] = (),  # images; empty for all
    num_images: int | None = None,  # sample this many of the images
    condition: str | None = None,  # of the protocol; None if there is only one
    seed: int = 0,  # of the sampling and of every opaque name
) -> Selection:
    """Choose the methods and images of a study.

    OptionError: an unknown name, fewer than two methods, or too many. DataError: no image is left.
    """
    condition = _condition(results, condition)
    rows = _rows(results, methods)
    keys = _keys(results, keys)
    left_out = [failure for key in keys for failure in _failures(root, results, rows, condition, key)]
    missing = {failure.key for failure in left_out}
    shown = [key for key in keys if key not in missing]
    if not shown:
        got = f"no image that all of {', '.join(row.name for row in rows)} restored"
        raise DataError(str(root), got, "at least one", "Name fewer methods.")
    if num_images is not None:
        if num_images > len(shown):
            raise OptionError("--images", f"got {num_images}", f"at most {len(shown)}, which all methods restored")
        chosen = rng_from_key(seed, "images").choice(len(shown), num_images, replace=False)
        shown = [shown[index] for index in sorted(chosen)]
    images = [_opaque_names(key, [row.name for row in rows], seed) for key in shown]
    return Selection(rows, condition, images, left_out)


def _condition(results: Results, given: str | None) -> str:
    if given is None and len(results.conditions) == 1:
        return results.conditions[0]
    if given not in results.conditions:
        got = "not given" if given is None else f"got {given!r}"
        raise OptionError("--condition", got, f"one of {', '.join(map(repr, results.conditions))}")
    return given


def _rows(results: Results, given: Sequence[str]) -> list[Row]:
    known = {row.name: row for row in results.rows}
    for name in given:
        if name not in known:
            raise OptionError("--methods", f"got {name!r}", f"one of {', '.join(map(repr, known))}")
        if known[name].failure:
            raise OptionError("--methods", f"{name!r} could not run ({known[name].failure})", "a method with images")
    rows = [row for row in results.rows if (row.name in given if given else not row.failure)]
    if not 2 <= len(rows) <= MAX_METHODS:
        got = f"{rows[0].name!r} only" if len(rows) == 1 else f"{len(rows)} methods"
        raise OptionError("--methods", got, f"2 to {MAX_METHODS} methods to rank", "Name some of them.")
    return rows


def _keys(results: Results, given: Sequence[str]) -> list[str]:
    unknown = [key for key in given if key not in results.keys]
    if unknown:
        raise OptionError("--keys", f"got {unknown[0]!r}", f"images of {results.name}, e.g. {results.keys[0]!r}")
    return [key for key in results.keys if not given or key in given]


def _failures(root: Path, results: Results, rows: list[Row], condition: str, key: str) -> Iterator[Failure]:
    """The reasons why an image cannot be shown."""
    for row in rows:
        found = results.images.get(row.name, {}).get(condition, {}).get(key)
        if found is None:
            yield Failure(row.name, condition, key, "not restored yet")
        elif reason := results.missing_reason(row.name, condition, key):
            yield Failure(row.name, condition, key, reason)
        elif not restored_path(root, row, condition, key).is_file():
            yield Failure(row.name, condition, key, "its image is missing")
    if not input_path(root, condition, key).is_file():
        yield Failure("the input", condition, key, "its image is missing")


def _opaque_names(key: str, methods: list[str], seed: int) -> StudyImage:
    """Opaque names, sampled anew for each image, so that one image reveals nothing about the next."""
    rng = rng_from_key(seed, "opaque", key)
    shuffled = [methods[index] for index in rng.permutation(len(methods))]
    return StudyImage(_name(rng), key, {_name(rng): method for method in shuffled})


def _name(rng: np.random.Generator) -> str:
    return rng.bytes(6).hex()


def make_page(
    root: Path,  # folder of the evaluation
    results: Results,
    selection: Selection,
    *,
    title: str,  # of the page; it must not name a method
    tile: int = 512,  # longest side of an image in pixels; larger ones are reduced
    lossless: bool = False,  # PNG instead of JPEG of quality 95 without chroma subsampling; about four times as large
    show_input: bool = True,  # show the degraded image too, enlarged to the size of the results
    allow_ties: bool = False,  # let two images share a rank
    seed: int = 0,  # that `selection` was made with, for the key
) -> tuple[str, StudyKey]:
    """Make the page of a study, as HTML, and its key.

    OptionError: the title names a method, or jinja2 is not installed. DataError: an image cannot be read.
    """
    _check_title(title, [row.name for row in selection.rows])
    rows = {row.name: row for row in selection.rows}
    side = min(tile, results.size)
    steps = []
    for image in selection.images:
        sources = {
            name: restored_path(root, rows[method], selection.condition, image.key)
            for name, method in image.methods.items()
        }
        images = {name: _encode(_downscale(_read(path), side), lossless) for name, path in sources.items()}
        lq = _read(input_path(root, selection.condition, image.key)) if show_input else None
        shown = None if lq is None else _encode(_upscale(lq, side), lossless)
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


def _check_title(title: str, methods: list[str]) -> None:
    for method in methods:
        if re.search(rf"(?<!\w){re.escape(method)}(?!\w)", title, re.IGNORECASE):
            raise OptionError("--title", f"got {title!r}, which names {method!r}", "a title that names no method")


def _read(path: Path) -> np.ndarray:
    try:
        return decode_image(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(str(path), f"cannot be read ({error})", "an image of the evaluation") from error


def _downscale(image: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(image.shape[:2])
    return image if scale >= 1 else _resized(image, scale, cv2.INTER_AREA)


def _upscale(image: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(image.shape[:2])
    return _resized(image, scale, cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _resized(image: np.ndarray, scale: float, method: int) -> np.ndarray:
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=method)


def _encode(image: np.ndarray, lossless: bool) -> str:
    """Encode all images alike and from their pixels only, without metadata."""
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
        raise OptionError("study make", "jinja2 is not installed", "the package that fills templates", hint) from error
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("page.html")
