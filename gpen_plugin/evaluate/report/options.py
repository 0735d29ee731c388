"""The section ``report:`` of an evaluation's option file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpen_plugin.config.schema import build
from gpen_plugin.errors import OptionError


@dataclass(frozen=True)
class ReportOptions:
    """What the report of an evaluation shows.

    Args:
        sheet_images: rows of the comparison sheets: how many, from the best to the worst, or a list of image keys.
        sheet_tile: side of a sheet's tiles, pixels.
        embedded_images: so many images of the browser have their images inside report.html; the others are shown
            from the files beside it. An image counts once per condition.
        embedded_size: images inside the page are reduced to this side, pixels.
        embedded_megabytes: images of the browser inside the page are no heavier than this all together.
        bootstrap_resamples: how many resamples the 95 % intervals rest on.
        bootstrap_seed: of their drawing.
        curves: whether curves of the metrics are drawn where there are several conditions.
        labels: a CSV file of labels, which the means are broken down by: a head line, then an image per line, its key
            or file name first; ~ for no breakdown.
        label_columns: which columns of it are used, in this order; ~ for all but the first.
        against: a method that all others are held against, in a table of its own; ~ for none.
    Raises:
        OptionError: names the key, what was given and what was expected.
    """

    sheet_images: int | Sequence[str] = 6
    sheet_tile: int = 256
    embedded_images: int = 60
    embedded_size: int = 512
    embedded_megabytes: float = 40.0
    bootstrap_resamples: int = 10_000
    bootstrap_seed: int = 0
    curves: bool = True
    labels: str | None = None
    label_columns: Sequence[str] | None = None
    against: str | None = None

    def __post_init__(self):
        least = {"sheet_tile": 16, "embedded_size": 16, "bootstrap_resamples": 100}
        for name in ("embedded_images", "embedded_megabytes", "bootstrap_seed", *least):
            if getattr(self, name) < least.get(name, 0):
                raise OptionError(name, f"got {getattr(self, name)}", f"{least.get(name, 0)} or more")
        if isinstance(self.sheet_images, int) and self.sheet_images < 1:
            raise OptionError("sheet_images", f"got {self.sheet_images}", "1 or more, or a list of image keys")
        if not isinstance(self.sheet_images, int):
            object.__setattr__(self, "sheet_images", tuple(self.sheet_images))  # YAML brings lists
            if not self.sheet_images:
                raise OptionError("sheet_images", "got an empty list", "a number from 1, or a list of image keys")

        if self.label_columns is not None:
            self._check_label_columns(list(self.label_columns))

    def _check_label_columns(self, columns: list[str]) -> None:
        if self.labels is None:
            raise OptionError("label_columns", "given without labels", "the file that has them", "Add labels: FILE.csv")
        if not columns or len(set(columns)) < len(columns):
            raise OptionError("label_columns", f"got {columns}", "names of columns, each once, or ~ for all")

    @classmethod
    def from_options(cls, given: Mapping, where: str = "report") -> "ReportOptions":
        """Build the options from YAML; errors name the whole key path, ``where`` in front."""
        return build(cls, given, where)


def check_reference(name: object, methods: Sequence[str]) -> None:
    """Raise an `OptionError` unless ``against``, which may be None, names one of the methods."""
    if name is not None and name not in methods:
        hint = "Name a method, or write ~ for no such table."
        raise OptionError("report:against", f"got '{name}'", f"one of {', '.join(methods)}", hint)
