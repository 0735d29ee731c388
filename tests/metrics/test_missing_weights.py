"""A metric without its weights, or with damaged ones: NaN and one line, and nothing else about it changes."""

import inspect
import logging
import math
from typing import Literal

import numpy as np
import pytest

from gpen_plugin.config import schema
from gpen_plugin.errors import CheckpointError, MissingFileError, OptionError
from gpen_plugin.metrics import base
from gpen_plugin.metrics.base import nan_if_weights_missing


@nan_if_weights_missing
def calculate_brightness(img: np.ndarray, img2: np.ndarray | None = None, file: str = "a.pth", better: Literal[1] = 1):
    """The mean of an image."""
    if file.startswith("missing"):
        raise MissingFileError("weights", f"{file} is not there.")
    if file.startswith("damaged"):
        raise CheckpointError(file, "cannot be read.")
    if file == "wrong":
        raise OptionError("file", "is wrong")
    return float(img.mean())


IMAGE = np.full((4, 4, 3), 7, np.uint8)


@pytest.fixture(autouse=True)
def nothing_told():
    base._tell_once.cache_clear()


def test_a_missing_file_is_told_once_per_file(caplog):
    with caplog.at_level(logging.WARNING, "basicsr"):
        for file in ("missing_a.pth", "missing_b.pth", "missing_a.pth"):
            assert math.isnan(calculate_brightness(img=IMAGE, file=file))
    assert [record.getMessage() for record in caplog.records] == [
        f"calculate_brightness gives no values. weights: {file} is not there."
        for file in ("missing_a.pth", "missing_b.pth")
    ]


def test_a_damaged_file_is_told_too_and_a_mended_one_gives_values(caplog):
    with caplog.at_level(logging.WARNING, "basicsr"):
        for _ in range(2):
            assert math.isnan(calculate_brightness(img=IMAGE, file="damaged.pth"))
    assert [record.getMessage() for record in caplog.records] == [
        "calculate_brightness gives no values. damaged.pth: cannot be read."
    ]
    assert calculate_brightness(img=IMAGE) == 7
    with pytest.raises(CheckpointError, match=r"damaged.pth: cannot be read"):
        inspect.unwrap(calculate_brightness)(IMAGE, file="damaged.pth")


def test_the_rest_is_as_it_was():
    assert calculate_brightness(IMAGE) == 7
    with pytest.raises(OptionError, match="file: is wrong"):
        calculate_brightness(IMAGE, file="wrong")
    with pytest.raises(MissingFileError, match="missing is not there"):
        inspect.unwrap(calculate_brightness)(IMAGE, file="missing")


def test_the_signature_is_the_schema():
    problems = schema.validate(calculate_brightness, {"img": None, "fiel": "x"}, "val:metrics:brightness")
    assert any("Did you mean 'file'" in str(problem) for problem in problems)
    assert calculate_brightness.__name__ == "calculate_brightness"
    assert calculate_brightness.__module__ == __name__
