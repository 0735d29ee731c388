"""Restoring, evaluating, exporting and converting without BasicSR, facexlib, LMDB and onnxruntime."""

import os
import subprocess
import sys
import textwrap

from helpers import REPOSITORY

WITHOUT = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"basicsr", "facexlib", "lmdb", "gfpgan"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in {"basicsr", "facexlib", "lmdb", "gfpgan"} else find(name, package)
)
"""


def python(program: str, cwd) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "GPEN_PLUGIN_OFFLINE": "1", "HOME": str(cwd)}
    command = [sys.executable, "-c", WITHOUT + textwrap.dedent(program)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_everything_but_training_is_imported(tmp_path):
    program = """
    import importlib, pkgutil, gpen_plugin
    for module in pkgutil.walk_packages(gpen_plugin.__path__, "gpen_plugin."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                print(module.name, error.name)
    """
    lines = python(program, tmp_path).split()
    assert set(lines[1::2]) == {"basicsr"}
    assert {name.split(".")[1] for name in lines[::2]} == {"models", "preflight"}


def test_a_face_is_found_and_restored_and_measured(tmp_path):
    program = """
    import cv2
    from gpen_plugin import GPEN, Restorer
    from gpen_plugin.cli.doctor import FACE_IMAGE
    from gpen_plugin.host import registered
    from gpen_plugin.cli.restore import main

    image = cv2.copyMakeBorder(cv2.imread(str(FACE_IMAGE)), 32, 32, 32, 32, cv2.BORDER_REPLICATE)
    cv2.imwrite("face.png", image)
    assert main(["face.png", "-o", "out.png", "--sharp-faces", "restore"]) == 0
    restored = cv2.imread("out.png")
    metrics = registered("metric")
    assert 20 < metrics["calculate_psnr"](restored, image, crop_border=0) < 60
    assert metrics["calculate_lmd"](restored[32:-32, 32:-32], image[32:-32, 32:-32], detector="yunet") < 20
    assert "GPEN" in registered("arch") and "GPENDegradationDataset" in registered("dataset")
    """
    python(program, tmp_path)


NEEDING_THE_HOST = {
    "from gpen_plugin.train import main; open('o.yml', 'w').write('name: x'); main(['-opt', 'o.yml'])": "BasicSR",
    "from gpen_plugin import GPENModel": "GPENModel needs BasicSR",
    "from gpen_plugin.host.patches import inception_with; inception_with({})": (
        "FID and KID: needs BasicSR, which is not installed"
    ),
}


def test_what_needs_the_host_says_how_to_install_it(tmp_path):
    caught = f"""
    import sys
    sys.stderr = sys.stdout
    for program in {[*NEEDING_THE_HOST]}:
        try:
            exec(program, {{}})
        except Exception as error:
            print(error)
        print("=====")
    """
    *said, end = python(caught, tmp_path).split("=====\n")
    assert end == ""
    for text, message in zip(said, NEEDING_THE_HOST.values(), strict=True):
        assert message in text
        assert 'pip install "gpen_plugin[train]"' in text
        assert "Traceback" not in text
