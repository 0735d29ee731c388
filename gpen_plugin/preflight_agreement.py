"""What has to agree between the sections of an option file: sizes, ranges of values, metrics and their data."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from gpen_plugin import schema
from gpen_plugin.data import GPENFaceDataset
from gpen_plugin.errors import GPENError, OptionError
from gpen_plugin.host import registered
from gpen_plugin.metrics.face_recognition import RecognitionSettings
from gpen_plugin.metrics.feature_statistics import read_statistics

NIQE_SMALLEST = 192  # pixels; the host's NIQE fits a Gaussian to blocks of 96 px, and one block has no covariance
OF_THE_MODEL = {"type", "better"}  # keys of a metric that the host's model reads
OF_PAIRS = ("calculate_psnr", "calculate_ssim", "calculate_lpips", "calculate_identity", "calculate_lmd")
OF_FEATURES = ("calculate_fid", "calculate_kid")
LOWER_IS_BETTER = ("calculate_niqe", "calculate_swd", "calculate_lpips", "calculate_lmd", *OF_FEATURES)
BEST = dict.fromkeys(LOWER_IS_BETTER, "lower") | dict.fromkeys(("calculate_psnr", "calculate_ssim"), "higher")
FILES = ("weights", "onnx", "model")  # keys of our metrics that name a file
GIVEN = {"img", "img2"}  # arguments of a metric that the host supplies


def agreement(opt: Mapping) -> Iterator[GPENError]:
    """Sizes and ranges that have to be the same in several sections, where the generator is ours."""
    generator = opt.get("network_g") or {}
    if generator.get("type") != "GPEN" and opt.get("model_type") != "GPENPriorModel":
        return
    wanted = list(generator.get("value_range") or (-1, 1))
    if opt.get("model_type") not in ("GPENModel", "GPENPriorModel") and wanted != [0, 1]:
        expected = f"[0, 1], in which {opt.get('model_type')} reads pictures"
        yield OptionError("network_g:value_range", f"is {wanted}", expected, "Set it to [0, 1] there.")
    discriminator = opt.get("network_d") or {}
    if discriminator.get("type") == "GPENDiscriminator":
        yield from _same("network_d:out_size", discriminator.get("out_size"), "out_size", generator["out_size"])
    size = generator.get("in_size") or generator["out_size"]
    for phase, data in opt["datasets"].items():
        where = f"datasets:{phase}"
        if "out_size" in data:
            yield from _same(f"{where}:out_size", data["out_size"], "out_size", generator["out_size"])
            yield from _same(f"{where}:in_size", data.get("in_size") or data["out_size"], "in_size", size)
        yield from _same(f"{where}:{_range_key(data)}", _range_of(data), "value_range", wanted)
    names = [data.get("name") for data in opt["datasets"].values()]
    for phase, data in opt["datasets"].items():
        if names.count(data.get("name")) > 1:
            came = f"got {data.get('name')!r}, which another set has too"
            yield OptionError(f"datasets:{phase}:name", came, "a name per set", "Their results would be mixed up.")


def metrics(opt: Mapping) -> Iterator[GPENError]:
    """Metrics of the validation, and what they need."""
    known = registered("metric")
    without_truth = [name for name, data in opt["datasets"].items() if name != "train" and not data.get("dataroot_gt")]
    for name, metric in ((opt.get("val") or {}).get("metrics") or {}).items():
        where = f"val:metrics:{name}"
        kind = metric.get("type") if isinstance(metric, Mapping) else None
        if kind not in known:
            yield schema.unknown_name(kind, list(known), f"{where}:type")
            continue
        keys = [*keys_of_metric(known[kind], metric, where)]
        yield from keys
        yield from _direction(kind, metric, where)
        if known[kind].__module__.startswith("gpen_plugin."):
            yield from _files(kind, metric, where)
        if kind == "calculate_identity" and not keys:
            yield from _recogniser(metric, where)
        size = opt["network_g"].get("out_size", NIQE_SMALLEST)
        if kind == "calculate_niqe" and size < NIQE_SMALLEST:
            came = f"NIQE of pictures of {size} px"
            yield OptionError(where, came, f"at least {NIQE_SMALLEST} px", "Remove this metric.")
        if kind in OF_PAIRS and opt["model_type"] == "GPENPriorModel":
            came = f"got {kind}, which compares a picture with its partner"
            way_out = "Use calculate_swd, calculate_fid or calculate_kid."
            yield OptionError(f"{where}:type", came, "a metric of sets, for samples have no partners", way_out)
        of_features = kind in OF_FEATURES and not metric.get("statistics")
        if without_truth and (of_features or kind in (*OF_PAIRS, "calculate_swd")):
            came = f"needs ground truth, which datasets:{without_truth[0]} has not"
            way_out = "Give the metric statistics." if of_features else "Remove the metric or the set."
            yield OptionError(where, came, "sets with dataroot_gt", way_out)


def _direction(kind: str, metric: Mapping, where: str) -> Iterator[GPENError]:
    """The host keeps the validation with the highest value, unless it is told otherwise."""
    best = BEST.get(kind)
    if kind == "calculate_identity":
        best = "lower" if metric.get("unit") == "degrees" else "higher"
    given = metric.get("better") or "higher"
    if best not in (None, given):
        came = f"got {given}" if metric.get("better") else "missing, which means higher"
        yield OptionError(f"{where}:better", came, best, "Else the worst validation is kept as the best.")


def _files(kind: str, metric: Mapping, where: str) -> Iterator[GPENError]:
    """Files that the option file names. Published weights that have to be looked for may come later."""
    for key in FILES:
        path = metric.get(key)
        if isinstance(path, str) and not Path(path).expanduser().is_file():
            yield OptionError(f"{where}:{key}", f"{path} is not there", "a file", "Mend the path, or remove the key.")
    if kind in OF_FEATURES and isinstance(metric.get("statistics"), str):
        try:
            read_statistics(metric["statistics"], f"{where}:statistics", with_features=kind == "calculate_kid")
        except GPENError as error:
            yield error


def _recogniser(metric: Mapping, where: str) -> Iterator[GPENError]:
    """Options of the identity metric that exclude or need each other."""
    try:
        RecognitionSettings(**{f.name: metric[f.name] for f in fields(RecognitionSettings) if f.name in metric})
    except GPENError as error:
        yield error.under(where)


def keys_of_metric(function: object, metric: Mapping, where: str) -> Iterator[GPENError]:
    """Keys of a metric against its signature; the host's take any further key and ignore it."""
    if function.__module__.startswith("gpen_plugin."):
        pictures = dict.fromkeys(GIVEN)
        problems = schema.problems_of(function, pictures | {k: v for k, v in metric.items() if k != "type"}, where)
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
            way_out = "Add crop_border: 0." if p.name == "crop_border" else "Add the key."
            yield OptionError(f"{where}:{p.name}", "missing", "this key in every use of the metric", way_out)


def _same(where: str, value: object, of_generator: str, expected: object) -> Iterator[OptionError]:
    if value != expected:
        advice = "Give both the same value." + (_HOW_RANGES if of_generator == "value_range" else "")
        yield OptionError(where, f"got {value}", f"network_g:{of_generator}, {expected}", advice)


_HOW_RANGES = " BasicSR's own sets give [0, 1], and [-1, 1] with mean and std of [0.5, 0.5, 0.5]."


def _range_key(data: Mapping) -> str:
    return "value_range" if _of_ours(data) else "mean and std"


def _range_of(data: Mapping) -> list[float]:
    """The range of the pictures that a data set gives."""
    if _of_ours(data):
        return list(data.get("value_range") or GPENFaceDataset.options_class.value_range)
    if not data.get("std"):
        return [0, 1]
    mean, std = (data["mean"] or [0])[0], data["std"][0]
    return [round((value - mean) / std, 6) for value in (0, 1)]


def _of_ours(data: Mapping) -> bool:
    known = registered("dataset")
    return data.get("type") in known and issubclass(known[data["type"]], GPENFaceDataset)
