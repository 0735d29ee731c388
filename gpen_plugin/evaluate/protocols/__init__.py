"""Which faces are restored, and how they are degraded: everything that methods have to agree on to be compared."""

import typing
from collections.abc import Iterator, Mapping

import numpy as np

from gpen_plugin.config.schema import check
from gpen_plugin.errors import OptionError, join_errors
from gpen_plugin.evaluate.case import Case
from gpen_plugin.evaluate.protocols.degraded_faces import BlindRestoration, SuperResolution
from gpen_plugin.evaluate.protocols.given_faces import Pairs, Wild

_PROTOCOLS = {protocol.kind: protocol for protocol in (BlindRestoration, SuperResolution, Pairs, Wild)}


class Protocol(typing.Protocol):
    """A set of degraded faces.

    Attributes:
        kind: ``bfr``, ``fsr``, ``pairs`` or ``wild``.
        size: side of the results and of the ground truth, in pixels.
        keys: of the images, sorted: the path below the root without suffix.
        conditions: ways in which every image is degraded, e.g. ``8x``; one empty text where there is but one.
        notes: what a reader of the results has to know, a sentence each.
        has_truth: whether there is a ground truth.
    """

    kind: str
    size: int
    keys: list[str]
    conditions: list[str]
    notes: list[str]
    has_truth: bool

    def options(self) -> dict:
        """The options as they count: plain values for JSON, defaults filled in, no paths."""

    def degradation(self, key: str, condition: str) -> str:
        """What was done to an image, in words."""

    def originals(self, key: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        """What of an image's cases is as it was found: ground truth and degraded image; None for what is not.

        It tells whether cases that were written earlier were made of the images that are there now.
        """

    def case(self, key: str, condition: str) -> Case:
        """One degraded face, the same at every call; DataError if an image of it cannot be read."""


def build_protocol(options: Mapping, where: str = "protocol") -> Protocol:
    """Build the protocol that a section of an option file asks for.

    Args:
        options: ``type``, and the keys of the class that it chooses.
        where: key path of the section, for messages.
    Raises:
        OptionError: lists every problem of the options by key path.
        DataError: the images are not there, or have no partners.
    """
    if not isinstance(options, Mapping):
        raise OptionError(where, f"got {options!r}", "a section with keys")
    kind = options.get("type")
    if not isinstance(kind, str) or kind not in _PROTOCOLS:
        got = "missing" if "type" not in options else f"got {kind!r}"
        raise OptionError(f"{where}:type", got, "one of " + ", ".join(_PROTOCOLS))
    protocol = _PROTOCOLS[kind]
    given = {key: value for key, value in options.items() if key != "type"}
    check(protocol.options_class, given, where)
    checked = protocol.options_class(**given)
    problems = checked.value_problems(where)
    if problems:
        raise join_errors(problems)
    return protocol(checked, where)


def all_cases(protocol: Protocol) -> Iterator[tuple[str, str]]:
    """The (key, condition) of every case, image by image."""
    return ((key, condition) for key in protocol.keys for condition in protocol.conditions)
