"""What an installation puts where, and that the pinned versions can be installed together."""

import base64
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import backend
import environment
import pytest
from helpers.fresh_python import ROOT, FreshPython
from packaging.requirements import Requirement

SOURCES = ("gpen_plugin", "packaging", "gpen_plugin_hook.py", "setup.py", "pyproject.toml", "LICENSE", "MANIFEST.in")


DATA = (".html", ".css", ".js", ".json", ".png")
REQUIREMENT = r"^Requires-Dist: ([\w-]+)([^;\n]*)(.*)"


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """A copy to build from, which leaves its rubbish where it is."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module", params=["build_wheel", "build_editable"])
def wheel(request, sources, tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp(request.param)
    program = f"import backend; print(backend.{request.param}({str(folder)!r}))"
    paths = {"PYTHONPATH": str(sources / "packaging")}
    built = subprocess.run(
        [sys.executable, "-c", program], cwd=sources, capture_output=True, text=True, env=os.environ | paths
    )
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as archive:
        yield archive


def test_the_wheel_and_its_record_agree(wheel):
    record = next(name for name in wheel.namelist() if name.endswith("RECORD"))
    lines = dict(line.split(",", 1) for line in wheel.read(record).decode().splitlines())
    assert sorted(lines) == sorted(wheel.namelist())
    for name in set(lines) - {record}:
        content = wheel.read(name)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        assert lines[name] == f"sha256={digest},{len(content)}"


def test_the_startup_files_lie_in_site_packages_after_the_path(wheel):
    top = [name for name in wheel.namelist() if "/" not in name]
    assert set(backend.STARTUP_FILES) <= set(top)
    assert sorted(name for name in top if name.endswith(".pth"))[-1] == "gpen_plugin.pth"


def test_only_this_package_is_installed(wheel):
    top = {name.partition("/")[0] for name in wheel.namelist()} - set(backend.STARTUP_FILES)
    top = {name for name in top if not name.endswith((".dist-info", ".pth"))}
    assert top in ({"gpen_plugin", "gpen_plugin_hook.py"}, set())  # the second: editable


def test_an_installation_is_active_and_adds_no_finder_but_ours(wheel, tmp_path):
    python = FreshPython(tmp_path / "venv")
    (python.packages / "gpen_plugin_hook.py").unlink()
    wheel.extractall(python.packages)
    program = "import sys; print(*(type(finder).__name__ for finder in sys.meta_path if type(finder) is not type))"
    assert python.execute(program) == "HostFinder"


def test_the_verbs_are_commands(wheel):
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    commands = dict(re.findall(r"(.+) = (.+)", wheel.read(name).decode()))
    verbs = (
        "convert",
        "doctor",
        "evaluate",
        "export",
        "grow",
        "restore",
        "sample",
        "study",
        "test",
        "train",
        "web",
    )
    assert sorted(commands) == [f"gpen-{verb}" for verb in verbs]
    for place in commands.values():
        module, function = place.split(":")
        source = (ROOT / (module.replace(".", "/") + ".py")).read_text()
        assert f"def {function}(argv: Sequence[str] | None = None) -> int:" in source


@pytest.mark.parametrize("wheel", ["build_wheel"], indirect=True)
def test_yunet_comes_with_its_license(wheel):
    names = wheel.namelist()
    assert {"gpen_plugin/weights/YuNet.onnx", "gpen_plugin/weights/YuNet.LICENSE.txt", "gpen_plugin/py.typed"} <= set(
        names
    )
    license = wheel.read("gpen_plugin/weights/YuNet.LICENSE.txt").decode()
    for words in ("libfacedetection.train", "OpenMMLab", "This file was changed", "Apache License"):
        assert words in license


@pytest.mark.parametrize("wheel", ["build_wheel"], indirect=True)
def test_templates_and_images_are_installed(wheel):
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gpen_plugin").rglob("*") if path.suffix in DATA}
    assert {Path(name).suffix for name in ours} == set(DATA)
    assert ours <= set(wheel.namelist())


def test_the_metadata(wheel):
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
    assert f"\nVersion: {runpy.run_path(str(ROOT / 'gpen_plugin/version.py'))['__version__']}\n" in metadata
    names = [(name, wanted) for name, wanted, _ in re.findall(REQUIREMENT, metadata, re.MULTILINE)]
    core = {name for name, _, marker in re.findall(REQUIREMENT, metadata, re.MULTILINE) if "extra ==" not in marker}
    training = {name for name, _, marker in re.findall(REQUIREMENT, metadata, re.MULTILINE) if '"train"' in marker}
    hosts = [
        Requirement("".join(found))
        for found in re.findall(REQUIREMENT, metadata, re.MULTILINE)
        if "basicsr" in found[0]
    ]
    for version, name in ("3.12", "basicsr"), ("3.13", "animesisr-basicsr"):
        where = {"extra": "train", "python_version": version}
        assert [host.name for host in hosts if host.marker.evaluate(where)] == [name]
    assert environment.HOST in {host.name for host in hosts if host.marker.evaluate({"extra": "train"})}
    assert {"torch", "torchvision", "opencv-python", "numpy"} <= core
    assert {"basicsr", "animesisr-basicsr", "facexlib", "lmdb"} <= training
    assert not {"basicsr", "animesisr-basicsr", "facexlib", "lmdb", "gfpgan", "onnxruntime"} & core
    assert not [name for name, wanted in names if "==" in wanted], "ranges here; pins are in constraints.txt"
    assert not {"opencv-python-headless", "tensorboard", "tb-nightly"} & {name for name, _ in names}


def constraints() -> dict[str, Requirement]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = [
        requirement
        for requirement in map(Requirement, lines)
        if not requirement.marker or requirement.marker.evaluate()
    ]
    assert len({pin.name for pin in pins}) == len(pins) > 40
    return {pin.name.lower().replace("_", "-"): pin for pin in pins}


def test_the_pins_fit_what_this_package_asks_for(sources):
    pins = constraints()
    setup = subprocess.run([sys.executable, "setup.py", "-q", "egg_info"], cwd=sources, capture_output=True, text=True)
    assert setup.returncode == 0, setup.stderr
    asked = (sources / "gpen_plugin.egg-info" / "requires.txt").read_text()
    wanted = [Requirement(line) for line in asked.splitlines() if line and not line.startswith("[")]
    assert {requirement.name for requirement in wanted} <= set(pins)
    for requirement in wanted:
        assert str(pins[requirement.name].specifier).removeprefix("==") in requirement.specifier


@pytest.fixture
def folder(tmp_path, monkeypatch):
    create = venv.create
    monkeypatch.setattr(venv, "create", lambda folder, with_pip: create(folder, symlinks=True))  # pip takes seconds
    return tmp_path / "venv"


def test_an_interrupted_environment_is_made_anew(folder):
    environment.create(folder)
    assert environment.unfinished(folder).exists()
    (folder / "half").touch()
    environment.create(folder)
    assert not (folder / "half").exists()
    assert environment.unfinished(folder).exists()


def test_a_whole_environment_is_kept(folder):
    environment.create(folder)
    environment.unfinished(folder).unlink()
    (folder / "mine").touch()
    environment.create(folder)
    assert (folder / "mine").exists()
    assert not environment.unfinished(folder).exists()


def test_a_folder_that_is_no_environment_is_left_alone(folder):
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(SystemExit, match="is no virtual environment"):
        environment.create(folder)
    assert (folder / "mine").exists()


def test_an_environment_of_another_python_is_left_alone(folder):
    folder.mkdir()
    (folder / "pyvenv.cfg").touch()
    with pytest.raises(SystemExit, match="of another Python"):
        environment.create(folder)


@pytest.mark.parametrize("found", [(3, 9, 1), (3, 14, 0)])
def test_an_unsupported_python_is_refused(monkeypatch, folder, found):
    monkeypatch.setattr(sys, "version_info", found)
    with pytest.raises(SystemExit, match=r"3\.10 to 3\.13 are supported"):
        environment.main(folder)
    assert not folder.exists()
