"""`imports:` of an option file."""

import sys

import pytest
import yaml
from basicsr.utils.registry import MODEL_REGISTRY

from gpen_plugin.config.imports import import_modules
from gpen_plugin.config.schema import read_options
from gpen_plugin.errors import OptionError

MODEL = """
from basicsr.utils.registry import MODEL_REGISTRY
from gpen_plugin.models.gpen_model import GPENModel

@MODEL_REGISTRY.register()
class OwnGPENModel(GPENModel):
    pass
"""


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Modules, paths and registered models are again as before each test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before, models = {*sys.modules}, {**MODEL_REGISTRY._obj_map}
    yield
    for name in {*sys.modules} - before:
        if name.startswith("own_"):
            del sys.modules[name]
    MODEL_REGISTRY._obj_map.clear()
    MODEL_REGISTRY._obj_map.update(models)


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def test_files_packages_and_modules_are_imported_once(tmp_path):
    write(tmp_path / "parts", own_a="import own_b, own_package", own_b="counted = []")
    write(tmp_path / "parts/own_package", __init__="import own_b; own_b.counted.append(1)")
    for _ in range(2):
        import_modules(["./parts/own_a.py", "parts/own_package", "own_b", "json"], tmp_path)
    assert sys.modules["own_b"].counted == [1]
    assert sys.path.count(str(tmp_path / "parts")) == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("own_a", "imports: got 'own_a'; expected a list of"),
        ([1], r"imports: got \[1\]"),
        (["own_missing"], "imports: there is no module own_missing; .* Install it"),
        (["./own_missing.py"], "imports: .*/own_missing.py does not exist"),
        (["./own_wrong.py"], r"\(SyntaxError: .*own_wrong.py, line 2\)"),
        (["./own_fails.py"], r"own_fails.py cannot be imported \(ZeroDivisionError: .*own_fails.py, line 1\)"),
        (["./own_needs.py"], r"own_needs.py cannot be imported \(ModuleNotFoundError: .*own_other.*line 1\)"),
        (["./json.py"], r"json.py has the name of another module: .*; expected a name of its own. Rename the file."),
    ],
)
def test_what_cannot_be_imported_is_named(tmp_path, names, message):
    write(tmp_path, own_wrong="x = 1\nx =", own_fails="1 / 0", own_needs="import own_other", json="")
    with pytest.raises(OptionError, match=message):
        import_modules(names, tmp_path)


def test_evaluations_import_from_the_folder_of_the_file(tmp_path):
    write(tmp_path, own_part="")
    (tmp_path / "o.yml").write_text("imports: [./own_part.py]")
    assert read_options(tmp_path / "o.yml") == {"imports": ["./own_part.py"]}
    assert "own_part" in sys.modules


def test_a_model_of_ones_own_trains(options, train, tmp_path, monkeypatch):
    write(tmp_path, own_models=MODEL)
    options |= {"model_type": "OwnGPENModel", "imports": [str(tmp_path / "own_models.py")], "val": None}
    options["train"]["total_iter"] = 1
    folder = train(options)
    assert (folder / "models/net_g_latest.pth").exists()


def test_the_key_of_another_run_is_not_ours(tmp_path, monkeypatch):
    import basicsr.train

    write(tmp_path, own_side="1 / 0")
    foreign = {
        "name": "foreign",
        "model_type": "SRModel",
        "num_gpu": 0,
        "datasets": {"train": {"type": "PairedImageDataset"}},
        "network_g": {"type": "EDSR"},
        "path": {},
        "imports": ["./own_side.py"],
    }
    (tmp_path / "o.yml").write_text(yaml.safe_dump(foreign))
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(tmp_path / "o.yml")])
    assert basicsr.train.parse_options(str(tmp_path))[0]["imports"] == ["./own_side.py"]
    assert "own_side" not in sys.modules
    foreign["datasets"]["train"]["type"] = "OwnDataset"  # BasicSR would not find it
    (tmp_path / "o.yml").write_text(yaml.safe_dump(foreign))
    with pytest.raises(OptionError, match=r"own_side\.py cannot be imported"):
        basicsr.train.parse_options(str(tmp_path))
