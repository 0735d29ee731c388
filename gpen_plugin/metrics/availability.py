"""A metric whose weights cannot be had or are no good: told once, and the others go on."""

import functools
import logging
import math
from collections.abc import Callable

from gpen_plugin.errors import CheckpointError, MissingFileError


def going_on_without_files(metric: Callable) -> Callable:
    """Decorator of a metric, below ``@register("metric")``: where a file is missing or damaged, its value is NaN.

    Else a training would end at its first validation for want of a file that it does not train with. The log says once
    which file it is and where to get it; once it is there, the next picture has a value. ``inspect.unwrap`` gives the
    metric that raises.
    """

    @functools.wraps(metric)
    def measured_or_nan(*pictures, **options):
        try:
            return metric(*pictures, **options)
        except (MissingFileError, CheckpointError) as error:
            _tell_once(f"{metric.__name__} gives no values. {error}")
            return math.nan

    return measured_or_nan


@functools.cache
def _tell_once(line: str) -> None:
    logging.getLogger("basicsr").warning(line)
