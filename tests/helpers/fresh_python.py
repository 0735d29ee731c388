"""A Python with a site-packages of its own, for the tests of starting and installing, and stand-ins to import there."""

import os
import shutil
import subprocess
import textwrap
import venv
from importlib.util import find_spec
from pathlib import Path

from backend import STARTUP_FILES

from helpers import REPOSITORY as ROOT

REAL_HOST = Path(find_spec("basicsr").origin).parent


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


class FreshPython:
    """A virtual environment of its own, so that Python's real start-up is what is tested."""

    def __init__(self, folder: Path):
        venv.create(folder, symlinks=True)
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.packages = next(folder.glob("lib/python*/site-packages"))
        shutil.copy(ROOT / "gpen_plugin_hook.py", self.packages)
        write(self.packages, STARTUP_FILES)

    def run(self, *arguments: object, **options: Path | str) -> str:
        """Run Python; its standard output. An error, or a word on standard error, is a failure."""
        run = self.start(*arguments, **options)
        assert run.returncode == 0, run.stderr
        assert run.stderr == ""
        return run.stdout.strip()

    def start(self, *arguments: object, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess:
        """Run Python away from this repository and from the variables that could lead to it."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | variables
        command = [str(self.python), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=cwd or self.folder, env=environment
        )

    def execute(self, program: str) -> str:
        return self.run("-c", textwrap.dedent(program))


REGISTRY = """
class Registry:
    def __init__(self, name):
        self.name, self.classes = name, {}

    def register(self, cls):
        self.classes[cls.__name__] = cls

    def get(self, name, suffix="basicsr"):
        if name not in self.classes:
            raise KeyError(f"No object named '{name}' found in '{self.name}' registry!")
        return self.classes[name]

    def __contains__(self, name):
        return name in self.classes


ARCH_REGISTRY, MODEL_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY = map(Registry, ("arch", "model", "dataset", "loss"))
ARCH_REGISTRY.register(Registry)
"""

# Stand-ins for BasicSR and this package: an order of importing that the hook could get wrong ends in an error.
HOST = {
    "basicsr/__init__.py": "import basicsr.utils.registry\nFINISHED = True\n",
    "basicsr/utils/__init__.py": "",
    "basicsr/utils/registry.py": REGISTRY,
    "basicsr/train.py": """
        import multiprocessing

        from basicsr.utils.registry import ARCH_REGISTRY

        def look_up(name):
            return ARCH_REGISTRY.get(name).__module__

        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(look_up("GPEN"), *pool.map(look_up, ["GPEN"]))
        """,
}
PLUGIN = {
    "gpen_plugin/__init__.py": """
        import gpen_plugin_hook
        gpen_plugin_hook.install()
        """,
    "gpen_plugin/__init__.pyi": (ROOT / "gpen_plugin" / "__init__.pyi").read_text(),
    "gpen_plugin/registration.py": """
        def register_all():
            import basicsr
            assert basicsr.FINISHED
            import gpen_plugin.archs
        """,
    "gpen_plugin/archs.py": """
        from basicsr.utils.registry import ARCH_REGISTRY

        assert "GPEN" not in ARCH_REGISTRY.classes, "registered twice"

        class GPEN:
            '''A stand-in.'''

        ARCH_REGISTRY.register(GPEN)
        """,
}
