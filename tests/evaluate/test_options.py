"""Option files of evaluations: those of the project, and mistakes in others."""

import pytest
from helpers import REPOSITORY
from helpers.small_evaluation import given, weights  # noqa: F401 - fixtures

from gpen_plugin.config.schema import read_options
from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate.options import EvaluationOptions
from gpen_plugin.evaluate.results import slugify

FILES = sorted((REPOSITORY / "options" / "evaluate").glob("*.yml"))


def test_files_are_there():
    assert {"table1", "table2", "table3", "wild"} <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_option_files_are_valid_and_name_their_command(file):
    options = EvaluationOptions.from_mapping(read_options(file))
    assert file.read_text().splitlines()[0] == f"# python -m gpen_plugin.evaluate -opt options/evaluate/{file.name}"
    assert options.name == file.stem
    assert str(options.root) == f"results/evaluate/{file.stem}"
    assert options.columns


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "bilinaer"}, "methods:X:type.*bilinear"),
        ({"type": "bilinear", "scale": 2}, "methods:X:scale"),
        ({"type": "gpen"}, "methods:X:weights.*missing"),
        ({"type": "pulse", "prior": "a.pth", "iteration": 3}, "methods:X:iteration.*iterations"),
        ({"type": "arch", "weights": "random"}, "methods:X:network.*missing"),
    ],
)
def test_wrong_method_entry_is_an_error_before_reading(given, entry, message):
    given["methods"]["X"] = entry
    with pytest.raises(OptionError, match=message):
        EvaluationOptions.from_mapping(given)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("GPEN-w/o-ft", "gpen_w_o_ft"), ("pSp [38]", "psp_38"), ("../..", "_"), ("方法", "_")],
)
def test_names_as_folders(name, folder):
    assert slugify(name) == folder
