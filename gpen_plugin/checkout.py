"""A checkout of BasicSR, and which `basicsr` its scripts would import."""

import re
import sys
from pathlib import Path

from gpen_plugin_hook import HOST


def is_checkout(folder: Path) -> bool:
    """Whether BasicSR's repository lies there."""
    setup = folder / "setup.py"
    if not (setup.is_file() and (folder / "basicsr" / "train.py").is_file()):
        return False
    return bool(re.search(r"name=['\"]basicsr['\"]", setup.read_text(encoding="utf-8", errors="replace")))


def host_of_scripts() -> Path | None:
    """The `basicsr` that ``python basicsr/train.py`` imports: the current folder is not on its path."""
    everything = sys.path
    sys.path = everything[1:] if Path(everything[0] or ".").resolve() == Path.cwd().resolve() else everything
    try:
        specs = (finder.find_spec(HOST, None) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None and spec.origin), None)
    finally:
        sys.path = everything
    return Path(spec.origin).parent if spec else None
