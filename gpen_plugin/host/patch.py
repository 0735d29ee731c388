"""One fault of the host and its remedy, as a value that can be looked at (`python -m gpen_plugin.doctor`)."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class HostPatch:
    """One fault of the host and its remedy.

    Attributes:
        name: what breaks, in a few words.
        reason: why, and what a user would see.
        versions: the host's versions that have the fault.
        module: the host's module that holds the faulty attribute.
        attribute: what is replaced there; dotted for a method.
        remedy: makes the replacement from the original.
        needed: whether this machine brings the fault out.
    """

    name: str
    reason: str
    versions: str
    module: str
    attribute: str
    remedy: Callable[[Callable], Callable]
    needed: Callable[[], bool] = lambda: True

    def present(self) -> bool:
        """Whether this host, on this machine, has the fault."""
        try:
            return hasattr(*self._place()) and self.needed()
        except (ImportError, AttributeError):
            return False

    def mended(self) -> bool:
        """Whether the remedy is in place."""
        return hasattr(getattr(*self._place(), None), "__gpen_mends__")

    def apply(self) -> None:
        """Put the remedy in place, once, also where the host imported the original by name."""
        if not self.present() or self.mended():
            return
        owner, name = self._place()
        original = getattr(owner, name)
        replacement = self.remedy(original)
        replacement.__gpen_mends__ = original
        setattr(owner, name, replacement)
        for module in [m for key, m in list(sys.modules.items()) if m and key.partition(".")[0] == "basicsr"]:
            if vars(module).get(name) is original:
                setattr(module, name, replacement)

    def _place(self) -> tuple[object, str]:
        owner: object = importlib.import_module(self.module)
        *path, name = self.attribute.split(".")
        for part in path:
            owner = getattr(owner, part)
        return owner, name
