"""What a study shows: methods, images that all of them restored, and the opaque names of their images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpen_plugin.data.degradation import rng_from_key
from gpen_plugin.errors import DataError, OptionError
from gpen_plugin.evaluate.results import Failure, Results, Row, image_of, input_of
from gpen_plugin.study.key_file import StudyImage

MOST_METHODS = 12  # a person cannot rank more at a glance, and letters beyond L are keys of the page


@dataclass(frozen=True)
class Selection:
    """What takes part.

    Attributes:
        rows: the methods, in the order of the evaluation.
        condition: of the protocol.
        images: with their opaque names.
        left_out: images that were asked for and cannot be shown.
    """

    rows: list[Row]
    condition: str
    images: list[StudyImage]
    left_out: list[Failure]


def select(
    root: Path,
    results: Results,
    *,
    methods: Sequence[str] = (),
    keys: Sequence[str] = (),
    num_images: int | None = None,
    condition: str | None = None,
    seed: int = 0,
) -> Selection:
    """Choose what a study shows.

    Args:
        root: folder of the evaluation.
        results: what it found out.
        methods: names of rows; none stands for all that ran.
        keys: images; none stands for all.
        num_images: draw so many of the images, by `seed`.
        condition: of the protocol; None where there is but one.
        seed: decides the draw and every opaque name.
    Raises:
        OptionError: a name that is not there, fewer than two methods, too many of them.
        DataError: no image is left.
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
        shown = [shown[place] for place in sorted(chosen)]
    images = [_blind(key, [row.name for row in rows], seed) for key in shown]
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
    if not 2 <= len(rows) <= MOST_METHODS:
        got = f"{rows[0].name!r} alone" if len(rows) == 1 else f"{len(rows)} methods"
        raise OptionError("--methods", got, f"2 to {MOST_METHODS} methods to rank", "Name some of them.")
    return rows


def _keys(results: Results, given: Sequence[str]) -> list[str]:
    unknown = [key for key in given if key not in results.keys]
    if unknown:
        raise OptionError("--keys", f"got {unknown[0]!r}", f"images of {results.name}, e.g. {results.keys[0]!r}")
    return [key for key in results.keys if not given or key in given]


def _failures(root: Path, results: Results, rows: list[Row], condition: str, key: str) -> Iterator[Failure]:
    """Why an image cannot be shown."""
    for row in rows:
        found = results.images.get(row.name, {}).get(condition, {}).get(key)
        if found is None:
            yield Failure(row.name, condition, key, "not restored yet")
        elif "failure" in found:
            yield Failure(row.name, condition, key, found["failure"])
        elif not image_of(root, row, condition, key).is_file():
            yield Failure(row.name, condition, key, "its image is gone")
    if not input_of(root, condition, key).is_file():
        yield Failure("the input", condition, key, "its image is gone")


def _blind(key: str, methods: list[str], seed: int) -> StudyImage:
    """Opaque names, drawn anew for each image: what one image gives away says nothing about the next."""
    rng = rng_from_key(seed, "opaque", key)
    shuffled = [methods[place] for place in rng.permutation(len(methods))]
    return StudyImage(_name(rng), key, {_name(rng): method for method in shuffled})


def _name(rng: np.random.Generator) -> str:
    return rng.bytes(6).hex()
