"""What the check before a run and the evaluation share: which keys a metric takes, and where lower is better."""

import inspect
from collections.abc import Iterator, Mapping

from gpen_plugin.config import schema
from gpen_plugin.errors import GPENError, OptionError

OF_FEATURES = ("calculate_fid", "calculate_kid")
LOWER_IS_BETTER = ("calculate_niqe", "calculate_swd", "calculate_lpips", "calculate_lmd", *OF_FEATURES)
NIQE_SMALLEST = 192  # pixels; the host's NIQE fits a Gaussian to blocks of 96 px, and one block has no covariance
OF_THE_MODEL = {"type", "better"}  # keys of a metric that the host's model reads
GIVEN = {"img", "img2"}  # arguments of a metric that the host supplies


def keys_of_metric(function: object, metric: Mapping, where: str) -> Iterator[GPENError]:
    """Keys of a metric against its signature; the host's take any further key and ignore it."""
    if function.__module__.startswith("gpen_plugin."):
        images = dict.fromkeys(GIVEN)
        problems = schema.validate(function, images | {k: v for k, v in metric.items() if k != "type"}, where)
        yield from (problem for problem in problems if not problem.where.endswith(tuple(f":{name}" for name in GIVEN)))
        return
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name not in GIVEN]
    if function.__module__.startswith("basicsr."):
        names = [p.name for p in named]
        for key in metric:
            if key not in OF_THE_MODEL and key not in names:
                yield schema.unknown_key(key, names, where)
    for p in named:
        if p.default is p.empty and p.name not in metric:
            hint = "Add crop_border: 0." if p.name == "crop_border" else "Add the key."
            yield OptionError(f"{where}:{p.name}", "missing", "this key in every use of the metric", hint)
