"""Make the virtual environment in which `make` works: the pinned versions, BasicSR and this package, editable.

Run again it brings the environment up to date; an incomplete one is made anew.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUPPORTED = ((3, 10), (3, 13))
HOST = "basicsr==1.4.2"
EXTRAS = "demo,evaluate,export,heic,test,train,video,web"  # all but remote, and ray: 70 MB for one test
CONSTRAINTS = ROOT / "constraints.txt"


def main(folder: Path) -> None:
    oldest, newest = SUPPORTED
    if not oldest <= sys.version_info[:2] <= newest:
        sys.exit(
            f"This is Python {sys.version.split()[0]}; 3.{oldest[1]} to 3.{newest[1]} are supported. "
            "Name one of them: make test PYTHON=python3.11"
        )
    create(folder)
    python = folder / "bin" / "python"
    install(python, "pip", "setuptools", "wheel")
    install(python, "torch", "torchvision")
    install_host(python, folder)
    install(python, "--no-build-isolation", "--editable", f"{ROOT}[{EXTRAS}]")
    unfinished(folder).unlink(missing_ok=True)


def create(folder: Path) -> None:
    """Make `folder` a virtual environment of this Python, unless it is a whole one already."""
    if unfinished(folder).exists():
        shutil.rmtree(folder)
    config = folder / "pyvenv.cfg"
    if config.exists():
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        if not (folder / "lib" / f"python{version}").exists():
            sys.exit(
                f"{folder} is an environment of another Python than {version}. "
                f"Run `make clean`, or name another folder: make test VENV=.venv{version}"
            )
        return
    if folder.exists():
        sys.exit(f"{folder} exists and is no virtual environment. Name another folder: make test VENV=.venv2")
    folder.mkdir(parents=True)
    unfinished(folder).touch()
    (folder / ".gitignore").write_text("*\n")
    venv.create(folder, with_pip=True)


def unfinished(folder: Path) -> Path:
    """The file that stands in an environment of ours until all of it is there."""
    return folder / ".unfinished"


def install_host(python: Path, folder: Path) -> None:
    """Install BasicSR, a source package.

    Built in isolation, it would download another torch of 2.6 GB only to ask its version.
    """
    if sys.version_info < (3, 13):
        install(python, "--no-build-isolation", "--use-pep517", HOST)
        return
    builder = folder / "host-builder"
    run(host_python(), "-m", "venv", "--clear", builder)
    install(builder / "bin" / "python", "pip", "setuptools", "wheel")
    pip = (builder / "bin" / "python", "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--use-pep517")
    run(*pip, "--wheel-dir", builder, HOST)
    install(python, next(builder.glob("basicsr-*.whl")))


def host_python() -> str:
    """An older Python to build BasicSR with, whose ``setup.py`` fails from 3.13 on; its wheel fits every Python."""
    named = os.environ.get("HOST_PYTHON")
    for name in [named] if named else ["python3.12", "python3.11", "python3.10"]:
        found = shutil.which(name)
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    sys.exit(
        f"{HOST} cannot be built by Python 3.13 (its setup.py ends in KeyError: '__version__'), and "
        f"{named or 'python3.10 to python3.12'} is not here to build it. Install one of these and run make again, "
        "with HOST_PYTHON=/path/to/it where it is not on the path."
    )


def install(python: Path, *requirements: object) -> None:
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "-c", CONSTRAINTS, *requirements)


def run(*command: object) -> None:
    print("+", *command, flush=True)
    finished = subprocess.run([str(part) for part in command])
    if finished.returncode:
        sys.exit(f"The set-up stopped here (exit code {finished.returncode}). Fix the cause and run make again.")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
