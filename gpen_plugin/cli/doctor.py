"""Check this installation: versions, the host's faults, registered names, and what to do about problems."""

import argparse
import json
import os
import platform
import re
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import gpen_plugin
import gpen_plugin_hook
from gpen_plugin.errors import INSTALL_FACEXLIB, INSTALL_HOST, GPENError
from gpen_plugin_hook import HOST


def is_editable_install(folder: Path) -> bool:
    """Whether the folder is a checkout of BasicSR."""
    setup = folder / "setup.py"
    if not (setup.is_file() and (folder / "basicsr" / "train.py").is_file()):
        return False
    return bool(re.search(r"name=['\"]basicsr['\"]", setup.read_text(encoding="utf-8", errors="replace")))


def host_of_scripts() -> Path | None:
    """The `basicsr` that ``python basicsr/train.py`` imports: the current folder is not on its path."""
    full_path = sys.path
    sys.path = full_path[1:] if Path(full_path[0] or ".").resolve() == Path.cwd().resolve() else full_path
    try:
        specs = (finder.find_spec(HOST, None) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None and spec.origin), None)
    finally:
        sys.path = full_path
    return Path(spec.origin).parent if spec else None


if TYPE_CHECKING:
    from gpen_plugin.checkpoints.download import WeightFile

OPENCVS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
BORDER = 32  # pixels around it
TENSORBOARDS = ("tensorboard", "tb-nightly")
EXTRAS = (  # package, what for, name of the extra
    ("av", "videos", "video"),
    ("gradio", "gpen-web", "web"),
    ("onnx", "gpen-export", "export"),
    ("onnxruntime", "ONNX files", "export"),
    ("onnxslim", "gpen-export", "export"),
    ("pillow-heif", "HEIC photographs", "heic"),
)
INSTALL_CHECKOUT = "pip install --no-deps --no-build-isolation --use-pep517 --editable ."

# Part of an error message at the import of BasicSR -> what to do.
REMEDIES = {
    "torchvision::nms": "Install torch and torchvision from one source, as a pair: pip install -U torch torchvision",
    "functional_tensor": "Install this package (pip install .), so that its start-up file repairs BasicSR's import.",
    "distutils": 'Python 3.12 has no distutils, setuptools has: pip install "setuptools<82"',
    "basicsr.version": f"BasicSR's own set-up writes that file. In a fresh checkout of it, run: {INSTALL_CHECKOUT}",
    "libGL": "This machine has no libGL. Run: pip uninstall -y opencv-python; pip install opencv-python-headless",
    "cannot import name": "A changed copy of BasicSR in another project: start elsewhere, or take it off PYTHONPATH.",
    "No module named": "Install the module that is named, or gpen_plugin again with all that it needs: pip install .",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str  # the heading
    name: str  # what was checked
    value: str  # the result
    remedy: str = ""  # what to do; empty if there is no problem
    fatal: bool = False  # whether GPEN cannot work


def examine() -> list[Finding]:
    """Run all checks, in the order of the report."""
    findings = [*versions(), *packages_in_conflict(), *restoring()]
    can_restore = not any(finding.fatal for finding in findings)
    with_host = find_spec(gpen_plugin_hook.HOST) is not None
    failure = _failure() if with_host else None
    if with_host:
        findings += where_host(failure)
    else:
        without = f"not installed. Only training needs it: {INSTALL_HOST}"
        findings.append(Finding("host", "BasicSR", without))
    findings += where_plugin()
    if can_restore and with_host and failure is None:
        findings += [*faults(), *names_registered()]
    if can_restore:
        findings += [*published_weights(), *extras(), *cuda()]
    return findings


def versions() -> Iterator[Finding]:
    """Versions of what GPEN runs on."""
    python = platform.python_version()
    advice = "" if (3, 10) <= sys.version_info[:2] <= (3, 14) else "Use Python 3.10 to 3.14."
    yield Finding("versions", "python", python, advice)
    yield Finding("versions", "gpen_plugin", gpen_plugin.__version__)
    for name in ("torch", "torchvision", "numpy", "scipy", "lmdb"):
        yield Finding("versions", name, _version(name) or "not installed as a package")
    yield Finding("versions", HOST, _host_version() or "not installed as a package")
    yield _opencv()
    without = f"not installed. RetinaFace, masks by the face's outline and 98 landmarks need it: {INSTALL_FACEXLIB}"
    yield Finding("versions", "facexlib", _version("facexlib") or without)


def _opencv() -> Finding:
    """The version that is imported, and the packages that brought it."""
    packages = " and ".join(f"{name} {_version(name)}" for name in OPENCVS if _version(name))
    try:
        from cv2 import __version__ as version
    except Exception as error:  # a missing libGL; NumPy 2 under OpenCV before 4.10
        return Finding("versions", "opencv", f"{packages}: {error}", _remedy(error), True)
    got = f"{version} (of {packages or 'no package'})"
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    newest = 5 if host_distributions() else 6  # BasicSR 1.4.2 fails with OpenCV 5
    if (4, 8) <= numbers < (newest, 0):
        return Finding("versions", "opencv", got)
    name = next((name for name in OPENCVS if _version(name)), OPENCVS[0])
    return Finding("versions", "opencv", got, f'Run: pip install "{name}>=4.8,<{newest}"')


def packages_in_conflict() -> Iterator[Finding]:
    """Packages that cannot be installed together."""
    families = {"OpenCV": OPENCVS, "TensorBoard": TENSORBOARDS, "BasicSR and its forks": host_distributions()}
    for name, family in families.items():
        held = [package for package in family if _version(package)]
        if len(held) > 1:
            advice = f"They own the same files. Uninstall all of them, then install one: pip uninstall {' '.join(held)}"
            yield Finding("packages in conflict", name, " and ".join(held), advice)
    torch, torchvision = _version("torch"), _version("torchvision")
    demands = " ".join((torchvision and metadata.requires("torchvision")) or [])
    wanted = re.search(r"\btorch *\(?==([\w.]+)", demands)
    if torch and wanted and torch.partition("+")[0] != wanted[1]:
        seen = f"{torch}, but torchvision {torchvision} wants {wanted[1]}"
        advice = f"Install the pair: pip install torch=={wanted[1]} torchvision=={torchvision}"
        yield Finding("packages in conflict", "torch and torchvision", seen, advice, True)


def restoring() -> Iterator[Finding]:
    """Whether the package finds and restores a small synthetic face without downloads."""
    begun = time.perf_counter()
    try:
        with mock.patch.dict(os.environ, {"GPEN_PLUGIN_OFFLINE": "1"}):
            seen = _restored_face()
    except Exception as error:  # of any kind
        value = f"failed: {type(error).__name__}: {error}"
        yield Finding("restoring", "a synthetic face", value, _remedy(error), True)
        return
    yield Finding("restoring", "a synthetic face", f"{seen} in {time.perf_counter() - begun:.1f} s with loading")


def _restored_face() -> str:
    import cv2
    import numpy as np

    from gpen_plugin.restore.restorer import Restorer
    from gpen_plugin.restore.runtime import drawn_face

    image = cv2.copyMakeBorder(drawn_face(), BORDER, BORDER, BORDER, BORDER, cv2.BORDER_REPLICATE)
    result = Restorer(device="cpu", detector="yunet", mask="soft", skip_sharp=False).restore(image)
    found = len(result.faces)
    if found != 1 or result.faces[0].skip_reason or not np.any(result.image != image):
        raise RuntimeError(f"{found} faces found; expected one, which is restored")
    return "found by YuNet and restored"


def _failure() -> Exception | None:
    """The error of importing BasicSR or of registering in it; None if both work."""
    try:
        from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY  # noqa: F401

        from gpen_plugin.registration import register_all

        register_all()
    except Exception as error:  # of any kind: a torchvision for another torch ends in a RuntimeError
        return error
    return None


def where_host(failure: Exception | None) -> Iterator[Finding]:
    """Where `basicsr` is imported from, and whether it is BasicSR; `failure` is the error of its import."""
    if failure is not None:
        yield Finding("host", "imported host", f"{type(failure).__name__}: {failure}", _remedy(failure), True)
        return
    import basicsr

    folder = Path(basicsr.__file__).parent
    yield Finding("host", "imported from", str(folder))
    installed = [name.replace("-", "_") for name in host_distributions()]
    if not is_editable_install(folder.parent) and not any(
        path for name in installed for path in folder.parent.glob(f"{name}-*.dist-info")
    ):
        advice = "Another project carries this copy, perhaps changed: start elsewhere, or take it off PYTHONPATH."
        yield Finding("host", "origin", "neither an installed BasicSR nor a checkout", advice)
    if is_editable_install(Path.cwd()):
        taken = host_of_scripts()
        same = taken is not None and taken.resolve() == Path.cwd().resolve() / "basicsr"
        advice = "" if same else f"To run the checkout in this folder, first: {INSTALL_CHECKOUT} (or set PYTHONPATH=.)"
        yield Finding("host", "python basicsr/train.py imports", str(taken), advice)


def where_plugin() -> Iterator[Finding]:
    """Where this package is installed, and whether importing BasicSR activates it."""
    yield Finding("plugin", "gpen_plugin", str(Path(gpen_plugin.__file__).parent))
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    found = [str(path) for folder in folders for path in Path(folder).glob("gpen_plugin.pth")]
    yield Finding("plugin", "start-up file", ", ".join(found) or "none")
    program = "import sys; print(any(type(f).__module__ == 'gpen_plugin_hook' for f in sys.meta_path))"
    with tempfile.TemporaryDirectory() as folder:
        output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder).stdout
    advice = "Install this package (pip install .): on PYTHONPATH alone, only `python -m gpen_plugin.train` finds GPEN."
    active = output.strip() == "True"
    yield Finding("plugin", "at Python's start", "active" if active else "not active", "" if active else advice)


def faults() -> Iterator[Finding]:
    """The host's known faults: present here or not, patched or not."""
    from gpen_plugin.host import PATCHES

    lost = gpen_plugin_hook.LOST_MODULE
    parent = sys.modules.get(lost.rpartition(".")[0])
    missing = parent is not None and PathFinder.find_spec(lost, parent.__path__) is None
    replaced = lost in sys.modules
    yield _fault("torchvision has no functional_tensor", "BasicSR 1.4.2 imports it", missing and replaced, replaced)
    for patch in PATCHES:
        yield _fault(patch.name, patch.reason, patch.present(), patch.present() and patch.applied())


def _fault(name: str, reason: str, present: bool, patched: bool) -> Finding:
    state = "not present" if not present else "patched" if patched else f"present ({reason})"
    advice = f"Import gpen_plugin before this is used; if it stays, report it with BasicSR {_host_version()}."
    return Finding("known faults of the host", name, state, advice if present and not patched else "")


def names_registered() -> Iterator[Finding]:
    """Our names in the host's registries, and the module that holds each."""
    from gpen_plugin.host import registered

    for kind, names in gpen_plugin_hook.registered_names().items():
        held = registered(kind)
        for name in names:
            module = held[name].__module__ if name in held else "nothing"
            ours = module.partition(".")[0] == "gpen_plugin"
            advice = "" if ours else f"This name is GPEN's: do not import {module} in the same run."
            yield Finding("registered", f"{kind} {name}", module, advice, not ours)


def published_weights() -> Iterator[Finding]:
    """Which weights for metrics and restoring are on this machine. Training needs none of them."""
    from gpen_plugin.metrics import lpips
    from gpen_plugin.nets import arcface, awing, inception
    from gpen_plugin.restore import background, detection, paste, zoo

    files = [inception.INCEPTION, *lpips.BACKBONES.values(), arcface.GFPGAN_WEIGHTS]
    yield from _whereabouts("weights of metrics", [*files, awing.PUBLISHED])
    networks = [published.file for published in background.PUBLISHED.values()]
    faces = [detection.RETINAFACE_FILE, paste.PARSENET]
    yield from _whereabouts("weights for restoring", [*zoo.weight_files(), *faces, *networks])


def extras() -> Iterator[Finding]:
    """Packages that only one feature needs."""
    for name, use, extra in EXTRAS:
        missing = f'not installed; for {use}: pip install "gpen_plugin[{extra}]"'
        yield Finding("extras", name, _version(name) or missing)


def _whereabouts(section: str, files: Iterable["WeightFile"]) -> Iterator[Finding]:
    from gpen_plugin.checkpoints import download

    for file in files:
        found = download.find_local(file)
        if found is None:
            how = "downloaded when it is first needed" if file.sha256 else f"download it from {file.url}"
            found = f"not on this machine; {how} ({file.what})"
        yield Finding(section, file.name, str(found))


def cuda() -> Iterator[Finding]:
    """CUDA device and compiled ops; GPEN works without both."""
    import torch

    from gpen_plugin.host import cuda_ops_built

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none: everything runs on the CPU"
    yield Finding("CUDA", "device", device)
    if _host_version() is None:
        return
    built = "built, used on the GPU" if cuda_ops_built() else "not built: plain PyTorch is used"
    yield Finding("CUDA", "BasicSR's CUDA ops", built)


def host_distributions() -> list[str]:
    """Installed distributions that bring the package `basicsr`, e.g. animesisr-basicsr."""
    return sorted({*metadata.packages_distributions().get(HOST, ()), *([HOST] if _version(HOST) else [])})


def _host_version() -> str | None:
    """E.g. ``1.4.2`` or ``1.0.3 (of animesisr-basicsr)``."""
    versions = (f"{_version(name)}{'' if name == HOST else f' (of {name})'}" for name in host_distributions())
    return " and ".join(versions) or None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _remedy(failure: Exception) -> str:
    if isinstance(failure, GPENError) and failure.hint:
        return failure.hint
    known = [advice for words, advice in REMEDIES.items() if words in str(failure)]
    return known[0] if known else "See the whole error with: python -c 'import basicsr; from gpen_plugin import *'"


def report(findings: Sequence[Finding]) -> str:
    """The findings as text: all results, then each problem with its remedy."""
    lines, topic = [], ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            lines += ["", topic]
        lines.append(f"  {'!' if finding.remedy else ' '} {finding.name}: {finding.value}")
    problems = [finding for finding in findings if finding.remedy]
    lines += ["", f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"]
    lines += [f"  - {problem.name}: {problem.value}\n    {problem.remedy}" for problem in problems]
    lines.append("GPEN cannot work here." if any(f.fatal for f in findings) else "GPEN can work here.")
    return "\n".join(lines).lstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; 1 if GPEN cannot work here, else 0."""
    parser = argparse.ArgumentParser(prog="python -m gpen_plugin.doctor", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    arguments = parser.parse_args(argv)
    findings = examine()
    healthy = not any(finding.fatal for finding in findings)
    if arguments.json:
        print(json.dumps({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        print(report(findings))
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
