"""The doctor: works without BasicSR and with a broken one, and names what to do."""

import json
import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from helpers.fresh_python import REAL_HOST, ROOT, FreshPython, write

from gpen_plugin.cli import convert, doctor, sample
from gpen_plugin.errors import RegistryClashError
from gpen_plugin_hook import registered_names

SETUP = {"setup.py": "from setuptools import setup\nsetup(name='basicsr')\n"}


@pytest.fixture
def site(tmp_path: Path) -> FreshPython:
    """A Python with this package and nothing else: no PyTorch, no BasicSR."""
    python = FreshPython(tmp_path / "venv")
    (python.packages / "gpen_plugin").symlink_to(ROOT / "gpen_plugin")
    return python


def test_usage_names_the_command(capsys):
    for command in (convert, doctor, sample):
        with pytest.raises(SystemExit, match="0"):
            command.main(["--help"])
        assert capsys.readouterr().out.startswith(f"usage: python -m {command.__name__.replace('.cli', '')} [-h]")


def ask(python: FreshPython, expected_code: int, **options: object) -> dict[str, dict]:
    return answer(python.start("-m", "gpen_plugin.doctor", "--json", **options), expected_code)


def answer(result: CompletedProcess, expected_code: int) -> dict[str, dict]:
    """The findings, by their names."""
    assert result.returncode == expected_code, result.stdout + result.stderr
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert report["healthy"] is (expected_code == 0)
    return {finding["name"]: finding for finding in report["findings"]}


def packages(requires: str = "", **versions: str) -> dict[str, str]:
    """Files that make Python believe that packages are installed."""
    demand = f"Requires-Dist: {requires}\n" if requires else ""
    return {
        f"{name}-{number}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {number}\n{demand}"
        )
        for name, number in versions.items()
    }


FORK = packages(fork_of_basicsr="1.0") | {"fork_of_basicsr-1.0.dist-info/top_level.txt": "basicsr\n"}


def test_without_the_host(site):
    """BasicSR is optional; PyTorch and OpenCV are not."""
    result = site.start("-m", "gpen_plugin.doctor")
    assert result.returncode == 1
    assert 'BasicSR: not installed. Only training needs it: pip install "gpen_plugin[train]"' in result.stdout
    assert "a synthetic face: failed: ModuleNotFoundError: No module named 'cv2'" in result.stdout
    assert result.stdout.endswith("GPEN cannot work here.\n")


@pytest.mark.parametrize(
    ("version", "basicsr", "remedy"),
    [
        ("4.8.0", None, ""),
        ("4.14.0", "1.4.2", ""),
        ("5.0.0-dev", None, ""),
        ("4.7.0", None, 'pip install "opencv-python>=4.8,<6"'),
        ("5.0.0", "1.4.2", 'pip install "opencv-python>=4.8,<5"'),
        ("6.0.0", None, 'pip install "opencv-python>=4.8,<6"'),
    ],
)
def test_opencvs_versions(monkeypatch, version, basicsr, remedy):
    monkeypatch.setattr(doctor, "_version", {"opencv-python": version}.get)
    monkeypatch.setattr(doctor, "host_distributions", lambda: ["basicsr"] if basicsr else [])
    monkeypatch.setattr("cv2.__version__", version)
    found = doctor._opencv()
    assert found.value == f"{version} (of opencv-python {version})"
    assert remedy in found.remedy
    assert bool(found.remedy) == bool(remedy)
    assert not found.fatal


def test_synthetic_face_is_restored():
    (found,) = doctor.restoring()
    assert found.value.startswith("found by YuNet and restored in ")
    assert not found.fatal


def test_a_broken_installation_fails(monkeypatch):
    def fail():
        raise RuntimeError("0 faces found; expected one, which is restored")

    monkeypatch.setattr(doctor, "_restored_face", fail)
    (found,) = doctor.restoring()
    assert found.fatal
    assert "RuntimeError: 0 faces found" in found.value


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "as a pair"),
        ("import not_installed", "Install the module that is named"),
        ("import basicsr.version", "In a fresh checkout"),
        ("raise ImportError('libGL.so.1: cannot open shared object file')", "opencv-python-headless"),
        ("1 / 0", "python -c 'import basicsr;"),
    ],
)
def test_broken_host_import(site, fault, remedy):
    write(site.packages, {"basicsr/__init__.py": fault})
    found = ask(site, 1)["imported host"]
    assert remedy in found["remedy"]
    assert found["fatal"]


def test_a_changed_copy_of_the_host_in_another_project(site, tmp_path):
    write(
        tmp_path / "other",
        {"basicsr/__init__.py": "", "basicsr/utils/__init__.py": "", "basicsr/utils/registry.py": ""},
    )
    found = ask(site, 1, cwd=tmp_path / "other")["imported host"]
    assert str(tmp_path / "other") in found["value"]
    assert "copy of BasicSR in another project" in found["remedy"]


@pytest.mark.parametrize(
    ("held", "name", "remedy"),
    [
        (packages(opencv_python="4.14", opencv_python_headless="4.14"), "OpenCV", "pip uninstall opencv-python "),
        (packages(tensorboard="2.21", tb_nightly="2.21"), "TensorBoard", "pip uninstall tensorboard tb-nightly"),
        (
            packages(basicsr="1.4.2") | FORK,
            "BasicSR and its forks",
            "pip uninstall basicsr fork-of-basicsr",
        ),
        (
            packages(torch="2.13.0") | packages(torchvision="0.29.1", requires="torch==2.14.1"),
            "torch and torchvision",
            "torch==2.14.1 torchvision==0.29.1",
        ),
    ],
)
def test_packages_in_conflict(site, held, name, remedy):
    assert name not in ask(site, 1)
    write(site.packages, held)
    assert remedy in ask(site, 1)[name]["remedy"]


def test_a_fork_of_the_host_is_named_and_no_problem(site):
    write(site.packages, FORK | {"basicsr/__init__.py": ""})
    program = "from gpen_plugin.cli.doctor import *; print([*where_host(None), *versions()])"
    found = site.run("-c", program, GPEN_PLUGIN="0")
    assert "name='basicsr', value='1.0 (of fork-of-basicsr)', remedy=''" in found
    assert f"name='imported from', value='{site.packages / 'basicsr'}'" in found
    assert "neither an installed BasicSR nor a checkout" not in found


def test_a_pair_of_one_build_is_no_conflict(site):
    write(site.packages, packages(torch="2.14.1+cu130") | packages(torchvision="0.29.1", requires="torch==2.14.1"))
    assert "torch and torchvision" not in ask(site, 1)


def test_a_hook_that_is_not_installed(site):
    assert ask(site, 1)["at Python's start"]["value"] == "active"
    (site.packages / "gpen_plugin.pth").unlink()
    (site.packages / "gpen_plugin.start").unlink()
    found = ask(site, 1)["at Python's start"]
    assert found["value"] == "not active"
    assert "pip install ." in found["remedy"]


def test_published_weights_are_found_or_named():
    findings = [*doctor.published_weights()]
    assert len(findings) == 18
    for finding in findings:
        assert Path(finding.value).is_file() or finding.value.startswith("not on this machine; ")


def test_an_extra_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "gradio" else "1.0")
    found = {finding.name: finding.value for finding in doctor.extras()}
    assert found["gradio"] == 'not installed; for gpen-web: pip install "gpen_plugin[web]"'
    assert found["onnx"] == "1.0"


def test_hint_of_our_errors_is_the_remedy():
    assert doctor._remedy(RegistryClashError("arch registry", "taken", "one", "Uninstall one.")) == "Uninstall one."


def test_every_extra_that_is_named_exists():
    setup = (ROOT / "setup.py").read_text()
    for name, _, extra in doctor.EXTRAS:
        assert re.search(rf'"{extra}": \[[^]]*"{name}', setup)


def test_failed_import_names_the_doctor(site):
    result = site.start("-c", "import gpen_plugin; print(hasattr(gpen_plugin, 'other')); gpen_plugin.GPEN")
    assert result.stdout == "False\n"
    cause = "ModuleNotFoundError: No module named 'torch'"
    assert f"ImportError: gpen_plugin.GPEN cannot be loaded ({cause}" in result.stderr
    assert "Run `python -m gpen_plugin.doctor`" in result.stderr


def test_healthy_installation_and_ignored_checkout(clean_python, tmp_path):
    """With the real host."""
    checkout = tmp_path / "checkout"
    write(checkout, SETUP)
    shutil.copytree(REAL_HOST, checkout / "basicsr")

    found = answer(clean_python.run("-m", "gpen_plugin.doctor", "--json", cwd=checkout), 0)
    assert found["imported from"]["value"] == str(checkout / "basicsr")
    assert found["python basicsr/train.py imports"]["value"] == str(REAL_HOST)
    assert "--editable ." in found["python basicsr/train.py imports"]["remedy"]
    for kind, names in registered_names().items():
        for name in names:
            assert found[f"{kind} {name}"]["value"].startswith("gpen_plugin.")
    faults = [finding for finding in found.values() if finding["topic"] == "known faults of the host"]
    assert len(faults) > 4
    assert {finding["value"] for finding in faults} <= {"patched", "not present"}
    assert "patched" in {finding["value"] for finding in faults}
    assert any(finding["topic"].startswith("weights ") for finding in found.values())
    assert {name for name, _, _ in doctor.EXTRAS} <= found.keys()
    assert found["BasicSR's CUDA ops"]["value"].startswith(("built", "not built"))
