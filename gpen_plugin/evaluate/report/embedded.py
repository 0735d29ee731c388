"""Images inside a page: which ones, how they are packed, and how heavy they get."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from gpen_plugin.data.image_source import decode_image
from gpen_plugin.errors import DataError
from gpen_plugin.evaluate.results import Results, image_of, input_of, truth_of

QUALITY = 90
LOSSLESS_SIDE = 128  # images up to this side stay as they are
SPREAD_SHARE = 3  # one image in three is taken evenly, the others are extremes


class Card(NamedTuple):
    """An image in a condition, as the page shows it: input, methods, ground truth."""

    condition: str
    key: str


class Embedded(NamedTuple):
    """Images inside a page.

    Attributes:
        uris: path below the evaluation's folder, with ``/`` -> data URI.
        cards: how many images they belong to; one counts once per condition.
    """

    uris: dict[str, str]
    cards: int


def choose_cards(results: Results, count: int) -> list[Card]:
    """Which images have their images inside the page: extremes of every metric, and some evenly spaced.

    The worst and the best image of each metric, condition and method come first, then the second worst and the
    second best, and so on; later methods are looked at before earlier ones.
    """
    everything = [Card(condition, key) for condition in results.conditions for key in results.keys]
    if count >= len(everything):
        return everything
    evenly = count // SPREAD_SHARE
    spread = [everything[place] for place in np.linspace(0, len(everything) - 1, evenly).astype(int)]
    extremes = islice(_without_doubles(_extremes(results)), count - evenly)
    return list(islice(_without_doubles([*extremes, *spread, *everything]), count))


def _without_doubles(cards: Iterable[Card]) -> Iterator[Card]:
    seen = set()
    for card in cards:
        if card not in seen:
            seen.add(card)
            yield card


def _extremes(results: Results) -> Iterator[Card]:
    orders = []
    for column in results.columns:
        for condition in results.conditions:
            for row in reversed(results.rows):
                values = results.of_images(row.name, condition, column.name)
                known = np.flatnonzero(np.isfinite(values))
                worst_first = known[np.argsort(values[known] * (-1 if column.lower_is_better else 1), kind="stable")]
                orders.append([Card(condition, results.keys[place]) for place in worst_first])
    for depth in range(len(results.keys)):
        for order in orders:
            if depth < len(order):
                yield order[depth]
                yield order[-1 - depth]


def embedded_cards(root: Path, results: Results, cards: Sequence[Card], size: int, limit: int) -> Embedded:
    """Pack the images of `cards`.

    Args:
        root: folder of the evaluation.
        results: what was measured.
        cards: images, the first ones first.
        size: larger images are reduced to this side, pixels.
        limit: characters that all of them may take; the first card that would pass it ends the packing.
    Returns:
        What was packed; images that are not there are left out.
    """
    packed: dict[str, str] = {}
    weight, done = 0, 0
    for card in cards:
        paths = [input_of(root, card.condition, card.key), truth_of(root, card.key)]
        restored = [row for row in results.rows if results.has_image(row.name, card.condition, card.key)]
        paths += [image_of(root, row, card.condition, card.key) for row in restored]
        names = {path: path.relative_to(root).as_posix() for path in paths}
        new = {name: _packed_file(path, size) for path, name in names.items() if name not in packed}
        new = {name: uri for name, uri in new.items() if uri}
        weight += sum(map(len, new.values()))
        if weight > limit:
            break
        packed |= new
        done += 1
    return Embedded(packed, done)


def _packed_file(path: Path, size: int) -> str:
    try:
        return packed_image(decode_image(path.read_bytes(), str(path)), size)
    except (OSError, DataError):
        return ""


def packed_image(image: np.ndarray, size: int | None = None) -> str:
    """An image, (H, W, 3) BGR uint8, as a data URI: PNG if it is small, else JPEG."""
    longer = max(image.shape[:2])
    if size and longer > size:
        height, width = (max(1, round(length * size / longer)) for length in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if max(image.shape[:2]) <= LOSSLESS_SIDE:
        return lossless_uri(image)
    return _uri(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1], "jpeg")


def lossless_uri(image: np.ndarray) -> str:
    """An image, (H, W, 3) BGR uint8, as a data URI of a PNG file."""
    return _uri(cv2.imencode(".png", image)[1], "png")


def _uri(file: np.ndarray, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.tobytes()).decode()}"
