"""Make the virtual environment in which `make` works: the pinned versions, BasicSR and this package, editable.

Run again it brings the environment up to date; an incomplete one is made anew.
"""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUPPORTED = ((3, 10), (3, 13))
# Python 3.13 cannot build BasicSR 1.4.2: its setup.py ends in KeyError: '__version__'.
HOST = "basicsr" if sys.version_info < (3, 13) else "animesisr-basicsr"
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
    install_host(python)
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


def install_host(python: Path) -> None:
    """Install BasicSR, a source package.

    Built in isolation, it would download another torch of 2.6 GB only to ask its version.
    """
    install(python, "--no-build-isolation", "--use-pep517", HOST)
    if sys.version_info >= (3, 13):
        install(python, "--no-deps", "gfpgan")  # for tests; it requires BasicSR under that name, which cannot be built


def install(python: Path, *requirements: object) -> None:
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "-c", CONSTRAINTS, *requirements)


def run(*command: object) -> None:
    print("+", *command, flush=True)
    finished = subprocess.run([str(part) for part in command])
    if finished.returncode:
        sys.exit(f"The set-up stopped here (exit code {finished.returncode}). Fix the cause and run make again.")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
