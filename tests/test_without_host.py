"""Restoring, evaluating, exporting and converting without BasicSR, facexlib, LMDB and onnxruntime."""

import json

import pytest
from helpers import REPOSITORY

# A Python that refuses these packages and has imported what is slow and not ours; each program runs in a fork of it.
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

import json, os, traceback

for name in [name for name in sys.modules if name.partition(".")[0] == "lmdb"]:
    del sys.modules[name]
for name, program in json.load(sys.stdin).items():
    if os.fork() == 0:
        sys.stdout = sys.stderr = open(name, "w")
        try:
            exec(program, {})
            print("done")
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""

EVERYTHING_BUT_TRAINING = """
import importlib, pkgutil, gpen_plugin
for module in pkgutil.walk_packages(gpen_plugin.__path__, "gpen_plugin."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            print(module.name, error.name)
"""
RESTORE_AND_MEASURE = """
import cv2
from gpen_plugin import GPEN, Restorer
from gpen_plugin.restore.runtime import drawn_face
from gpen_plugin.host import registered
from gpen_plugin.cli.restore import main

image = cv2.copyMakeBorder(drawn_face(), 32, 32, 32, 32, cv2.BORDER_REPLICATE)
cv2.imwrite("face.png", image)
assert main(["face.png", "-o", "out.png", "--sharp-faces", "restore"]) == 0
restored = cv2.imread("out.png")
metrics = registered("metric")
assert 20 < metrics["calculate_psnr"](restored, image, crop_border=0) < 60
assert metrics["calculate_lmd"](restored[32:-32, 32:-32], image[32:-32, 32:-32], detector="yunet") < 20
assert "GPEN" in registered("arch") and "GPENDegradationDataset" in registered("dataset")
"""
NEEDING_THE_HOST = {
    "from gpen_plugin.train import main; open('o.yml', 'w').write('name: x'); main(['-opt', 'o.yml'])": "BasicSR",
    "from gpen_plugin import GPENModel": "GPENModel needs BasicSR",
    "from gpen_plugin.host.patches import inception_with; inception_with({})": (
        "FID and KID: needs BasicSR, which is not installed"
    ),
}
NEED_THE_HOST = f"""
for program in {[*NEEDING_THE_HOST]}:
    try:
        exec(program, {{}})
    except Exception as error:
        print(error)
    print("=====")
"""


@pytest.fixture(scope="module")
def printed(clean_python, tmp_path_factory) -> dict[str, str]:
    """What each program printed; it ends with "done" if nothing was raised."""
    folder = tmp_path_factory.mktemp("without_host")
    programs = {
        "everything but training": EVERYTHING_BUT_TRAINING,
        "restore and measure": RESTORE_AND_MEASURE,
        "need the host": NEED_THE_HOST,
    }
    variables = {"PYTHONPATH": str(REPOSITORY), "GPEN_PLUGIN_OFFLINE": "1", "HOME": str(folder)}
    run = clean_python.run("-c", WITHOUT, cwd=folder, stdin=json.dumps(programs), **variables)
    assert run.returncode == 0, run.stderr
    return {name: (folder / name).read_text() for name in programs}


def test_everything_but_training_is_imported(printed):
    *lines, done = printed["everything but training"].split()
    assert done == "done"
    assert set(lines[1::2]) == {"basicsr"}
    assert {name.split(".")[1] for name in lines[::2]} == {"models", "preflight"}


def test_a_face_is_found_and_restored_and_measured(printed):
    assert printed["restore and measure"].endswith("done\n"), printed["restore and measure"]


def test_what_needs_the_host_says_how_to_install_it(printed):
    *said, done = printed["need the host"].split("=====\n")
    assert done == "done\n"
    for text, message in zip(said, NEEDING_THE_HOST.values(), strict=True):
        assert message in text
        assert 'pip install "gpen_plugin[train]"' in text
        assert "Traceback" not in text
