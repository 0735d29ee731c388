"""Install this checkout in a fresh environment of each Python, then each extra in a copy of it; restore a face in each.

    python packaging/try_install.py [--extras NAMES] [PYTHON ...]

Without PYTHON: python3.10 to python3.14, as far as the path or pyenv has them. pip reads its own settings: pip.conf and
PIP_* variables, e.g. PIP_CONSTRAINT. With PyTorch for CUDA it needs 12 GB in the temporary folder (TMPDIR).
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = [f"3.{minor}" for minor in range(10, 15)]
CORE = "core"
EXTRAS = ("train", "web", "export", "video,heic,evaluate")
PHOTOGRAPH = ROOT / "docs" / "portrait.jpg"
FOR_BUILDING = ("setuptools<82", "wheel")  # BasicSR, without isolation: README, "Install"

FIRST_FACE = """
import sys, cv2
before, after = map(cv2.imread, sys.argv[1:])
assert after is not None, "the result is not an image that OpenCV reads"
assert after.shape == before.shape, f"the result has the shape {after.shape}, the input {before.shape}"
assert cv2.absdiff(before, after).max() > 20, "the result is the input"
"""
# What an extra is for, in a few lines; of the others only the installation and the first face are tried.
PROGRAMS = {
    "train": """
import subprocess, sys
checkout = sys.argv[1]
size, options = ("--size", "64"), ("train:total_iter=1", "path:pretrain_prior=~", "path:pretrain_network_d=~")
lmdb = [f"datasets:{phase}:dataroot_gt=faces.lmdb" for phase in ("train", "val")]
trained = "experiments/gpen_demo/models/net_g_latest.pth"
for command in (
    (f"{checkout}/datasets_prep/make_demo_faces.py", "-o", "faces", *size, "--train", "4", "--val", "4"),
    (f"{checkout}/datasets_prep/make_lmdb.py", "-i", "faces/val", "-o", "faces.lmdb", *size),
    ("-m", "basicsr.train", "-opt", f"{checkout}/options/gpen_demo.yml", "--force_yml", *options, *lmdb),
    ("-m", "gpen_plugin.restore", "faces/val", "-o", "trained", "--aligned", "-m", trained),
):
    subprocess.run([sys.executable, *command], check=True)
""",
    "web": """
from pathlib import Path
from gpen_plugin import Restorer
from gpen_plugin.cli.web import Page, build
build(Page(Restorer(device="cpu"), Path()))
""",
    "export": """
import gpen_plugin
from pathlib import Path
from gpen_plugin.cli.export import main
weights = Path(gpen_plugin.__file__).with_name("weights") / "GPEN-Faces-256.safetensors"
assert main([str(weights), "-o", "gpen.onnx"]) == 0
gpen_plugin.Restorer("gpen.onnx", device="cpu")
""",
    "video": "import av",
    "heic": "import pillow_heif",
    "evaluate": "import lpips, onnxruntime",
}


class Failed(Exception):
    """A command ended with an error; the message is the last line of its output."""


@dataclass
class Trial:
    """One environment: what was installed in it, and how that ended."""

    version: str  # 3.11
    installed: str  # extras with commas, or "core"
    folder: Path  # holds the environment and what is written with it
    log: Path
    torch: str = "-"
    size: str = "-"
    result: str = ""  # ok, or the error

    def run(self, *command: object) -> str:
        """Run a command in the folder; its output goes to the log and is returned."""
        variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        variables["GPEN_PLUGIN_OFFLINE"] = "1"
        variables |= dict.fromkeys(
            ("TMPDIR", "TEMP", "TMP"), str(self.folder)
        )  # an interrupted pip leaves gigabytes there
        words = [str(word) for word in command]
        with open(self.log, "a+", encoding="utf-8", errors="replace") as log:
            print("+", *words, file=log, flush=True)
            start = log.tell()
            ended = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, env=variables)
            log.seek(start)
            output = log.read().strip()
        if ended.returncode:
            raise Failed(output.rpartition("\n")[2] or f"{words[0]} ended with {ended.returncode}")
        return output

    @property
    def environment(self) -> Path:
        return self.folder / "environment"

    def install_and_restore(self, checkout: Path) -> None:
        """Install the checkout, restore a face and use the extras; sets the outcome."""
        programs = self.environment / ("Scripts" if os.name == "nt" else "bin")
        python, restored = programs / "python", self.folder / "restored"
        extras = [] if self.installed == CORE else self.installed.split(",")
        install = (python, "-m", "pip", "install", "--progress-bar", "off")
        if "train" in extras:
            self.run(*install, *FOR_BUILDING)
            install += ("--no-build-isolation",)
        self.run(*install, f"{checkout}[{','.join(extras)}]" if extras else checkout)
        self.size = f"{size_of(self.environment) / 1e9:.1f} GB"
        self.torch = self.run(python, "-c", "from importlib.metadata import version; print(version('torch'))")
        self.run(programs / "gpen-restore", PHOTOGRAPH, "-o", restored, "--sharp-faces", "restore")
        self.run(python, "-c", FIRST_FACE, PHOTOGRAPH, restored / PHOTOGRAPH.name)
        for name in extras:
            self.run(python, "-c", PROGRAMS.get(name, ""), checkout)


def trials(version: str, python: str, extras: Sequence[str], checkout: Path, logs: Path) -> Iterator[Trial]:
    """Try the core, then each set of extras in a copy of its environment, whose files are hard links."""
    with tempfile.TemporaryDirectory(dir=checkout.parent) as folder:
        core = Trial(version, CORE, Path(folder) / CORE, logs / f"{version}-{CORE}.log")
        for names in (CORE, *extras):
            trial = (
                core if names == CORE else Trial(version, names, Path(folder) / names, logs / f"{version}-{names}.log")
            )
            trial.folder.mkdir()
            try:
                if trial is core:
                    trial.run(python, "-m", "venv", trial.environment)
                else:
                    shutil.copytree(core.environment, trial.environment, symlinks=True, copy_function=os.link)
                trial.install_and_restore(checkout)
                trial.result = "ok"
            except (Failed, OSError) as error:
                trial.result = str(error)
            yield trial
            if trial is not core:
                shutil.rmtree(trial.folder, ignore_errors=True)


def find_pythons() -> dict[str, str]:
    """Version -> executable of each supported Python on the path or among pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = {}
    for version in PYTHONS:
        for python in [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)]:
            if python and version_of(str(python)) == version:
                found[version] = str(python)
                break
    return found


def version_of(python: str) -> str | None:
    """Version without the patch number; None if it does not start, as pyenv's placeholders may."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        ended = subprocess.run([python, "-c", program], capture_output=True, text=True)
    except OSError:
        return None
    return ended.stdout.strip() if ended.returncode == 0 else None


def copy_checkout(folder: Path) -> None:
    """Copy what git tracks or would add: a build in the checkout itself could take stale files along."""
    files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(files, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def table(done: Sequence[Trial]) -> str:
    """The outcomes in Markdown, one line each."""
    rows = [("Python", "installed", "torch", "size", "first face"), ("---",) * 5]
    rows += [(trial.version, trial.installed, trial.torch, trial.size, trial.result) for trial in done]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    """Try each Python; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="name or path of an interpreter")
    parser.add_argument(
        "--extras",
        action="append",
        metavar="NAMES",
        help=f"a set of extras, e.g. web,video; may be repeated (default: {' '.join(EXTRAS)})",
    )
    arguments = parser.parse_args()
    pythons = {version_of(python): python for python in arguments.pythons} if arguments.pythons else find_pythons()
    if not pythons or None in pythons:
        parser.error(f"{pythons.get(None, 'python3.10 to python3.14')}: got no Python that starts")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the temporary folder is removed then too
    logs, done = Path(tempfile.mkdtemp(prefix="gpen-install-logs-")), []
    with tempfile.TemporaryDirectory(prefix="gpen-install-") as folder:
        checkout = Path(folder) / "checkout"
        copy_checkout(checkout)
        for version, python in pythons.items():
            for trial in trials(version, python, arguments.extras or EXTRAS, checkout, logs):
                print(f"Python {version}, {trial.installed}: {trial.result}", flush=True)
                done.append(trial)
    print(f"\n{table(done)}")
    if missing := [version for version in PYTHONS if not arguments.pythons and version not in pythons]:
        print(f"Not found, not tried: Python {', '.join(missing)}")
    failed = [trial for trial in done if trial.result != "ok"]
    for trial in failed:
        print(f"Output of Python {trial.version}, {trial.installed}: {trial.log}")
    if not failed:
        shutil.rmtree(logs)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Interrupted; the environments are removed.")
