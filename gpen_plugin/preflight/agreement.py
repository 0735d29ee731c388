"""What has to agree between the sections of an option file: sizes, ranges of values, metrics and their data."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from basicsr.models.sr_model import SRModel

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.config import schema
from gpen_plugin.data.gpen_face_dataset import GPENFaceDataset
from gpen_plugin.errors import GPENError, OptionError
from gpen_plugin.host import is_our_own, registered, resolve, trains_ours
from gpen_plugin.metrics.fid import read_statistics
from gpen_plugin.metrics.keys import LOWER_IS_BETTER, NIQE_SMALLEST, OF_FEATURES, keys_of_metric
from gpen_plugin.models.gan_prior_model import GPENPriorModel
from gpen_plugin.nets.arcface import RecognitionSettings
from gpen_plugin.preflight.trials import metric_trial

OF_PAIRS = ("calculate_psnr", "calculate_ssim", "calculate_lpips", "calculate_identity", "calculate_lmd")
BEST = dict.fromkeys(LOWER_IS_BETTER, "lower") | dict.fromkeys(("calculate_psnr", "calculate_ssim"), "higher")
FILES = ("weights", "onnx", "model")  # keys of our metrics that name a file
HOST_DATASETS = ("PairedImageDataset", "SingleImageDataset", "FFHQDataset")  # one folder a root; [0, 1], mean, std


def agreement(opt: Mapping) -> Iterator[GPENError]:
    """Sizes and ranges that have to be the same in several sections, where the generator is ours or derived of ours.

    Of data sets that are not ours only a model of ours asks for a range; other models may do with it what they like.
    """
    generator = opt.get("network_g") or {}
    network, ours = _class_of("arch", generator), trains_ours(opt)
    if not _is_a(network, GPEN, GPENPrior):
        return
    wanted, size = _range_of_network(network, generator), generator.get("out_size")
    if not ours and wanted not in (None, [0, 1]) and _shows_0_to_1(resolve("model", opt.get("model_type"))):
        expected = f"[0, 1], in which {opt.get('model_type')} reads images"
        yield OptionError("network_g:value_range", f"is {wanted}", expected, "Set it to [0, 1] there.")
    discriminator = opt.get("network_d") or {}
    if size and _is_a(_class_of("arch", discriminator), GPENDiscriminator):
        yield from _same("network_d:out_size", discriminator.get("out_size"), "out_size", size)
    in_size = generator.get("in_size") or size
    for phase, data in opt["datasets"].items():
        where, of_ours = f"datasets:{phase}", _is_a(_class_of("dataset", data), GPENFaceDataset)
        if size and of_ours and "out_size" in data:
            yield from _same(f"{where}:out_size", data["out_size"], "out_size", size)
            yield from _same(f"{where}:in_size", data.get("in_size") or data["out_size"], "in_size", in_size)
        if wanted and (ours or of_ours):
            yield from _range_problem(data, where, wanted)
    names = [data.get("name") for data in opt["datasets"].values()]
    for phase, data in opt["datasets"].items():
        if ours and names.count(data.get("name")) > 1:
            got = f"got {data.get('name')!r}, which another set has too"
            yield OptionError(f"datasets:{phase}:name", got, "a name per set", "Their results would be mixed up.")


def metrics(opt: Mapping) -> Iterator[GPENError]:
    """Metrics of the validation, and what they need."""
    of_sets = _is_a(resolve("model", opt["model_type"]), GPENPriorModel)
    without_truth = [name for name, data in opt["datasets"].items() if name != "train" and not data.get("dataroot_gt")]
    for name, metric in ((opt.get("val") or {}).get("metrics") or {}).items():
        where = f"val:metrics:{name}"
        kind = metric.get("type") if isinstance(metric, Mapping) else None
        function = resolve("metric", kind)
        if function is None:
            yield schema.unknown_name(kind, list(registered("metric")), f"{where}:type")
            continue
        problems = keys = [*keys_of_metric(function, metric, where)]
        if is_our_own(function) or function.__module__.startswith("basicsr."):
            problems = [*problems, *_direction(kind, metric, where)]
        if is_our_own(function):
            problems = [*problems, *_files(kind, metric, where)]
        if kind == "calculate_identity" and not keys:
            problems = [*problems, *_recogniser(metric, where)]
        size = opt["network_g"].get("out_size", NIQE_SMALLEST)
        if kind == "calculate_niqe" and size < NIQE_SMALLEST:
            got = f"NIQE of images of {size} px"
            problems.append(OptionError(where, got, f"at least {NIQE_SMALLEST} px", "Remove this metric."))
        if kind in OF_PAIRS and of_sets:
            got = f"got {kind}, which compares an image with its partner"
            hint = "Use calculate_swd, calculate_fid or calculate_kid."
            expected = "a metric of sets, for samples have no partners"
            problems.append(OptionError(f"{where}:type", got, expected, hint))
        yield from problems or metric_trial(metric, size, where)
        of_features = kind in OF_FEATURES and not metric.get("statistics")
        if without_truth and (of_features or kind in (*OF_PAIRS, "calculate_swd")):
            got = f"needs ground truth, which datasets:{without_truth[0]} has not"
            hint = "Give the metric statistics." if of_features else "Remove the metric or the set."
            yield OptionError(where, got, "sets with dataroot_gt", hint)


def _direction(kind: str, metric: Mapping, where: str) -> Iterator[GPENError]:
    """The host keeps the validation with the highest value, unless it is told otherwise."""
    best = BEST.get(kind)
    if kind == "calculate_identity":
        best = "lower" if metric.get("unit") == "degrees" else "higher"
    given = metric.get("better") or "higher"
    if best not in (None, given):
        got = f"got {given}" if metric.get("better") else "missing, which means higher"
        yield OptionError(f"{where}:better", got, best, "Else the worst validation is kept as the best.")


def _files(kind: str, metric: Mapping, where: str) -> Iterator[GPENError]:
    """Files that the option file names. Published weights that have to be looked for may come later."""
    for key in FILES:
        path = metric.get(key)
        if isinstance(path, str) and not Path(path).expanduser().is_file():
            yield OptionError(f"{where}:{key}", f"{path} is not there", "a file", "Check the path, or remove the key.")
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


def _same(where: str, value: object, of_generator: str, expected: object) -> Iterator[OptionError]:
    if value != expected:
        advice = "Give both the same value." + (_HOW_RANGES if of_generator == "value_range" else "")
        yield OptionError(where, f"got {value}", f"network_g:{of_generator}, {expected}", advice)


_HOW_RANGES = " BasicSR's own sets give [0, 1], and [-1, 1] with mean and std of [0.5, 0.5, 0.5]."


def _range_of_network(network: type, section: Mapping) -> list[float] | None:
    """The range of a generator's images: its option, else the default of its class; None if neither tells."""
    parameter = inspect.signature(network).parameters.get("value_range")
    default = (-1, 1) if parameter is None and is_our_own(network) else getattr(parameter, "default", None)
    return _pair(section.get("value_range") or default)


def _range_problem(data: Mapping, where: str, wanted: list[float]) -> Iterator[OptionError]:
    """A data set that gives images in another range than `wanted`, or does not say in which."""
    cls = _class_of("dataset", data)
    of_ours = _is_a(cls, GPENFaceDataset)
    default = cls.options_class.value_range if of_ours else None
    told = data.get("value_range") or getattr(cls, "value_range", default)
    if told is not None:
        pair = _pair(told)
        if pair is not None:  # a property of an object that is not built yet tells nothing
            yield from _same(f"{where}:value_range", pair, "value_range", wanted)
    elif data.get("std") or cls.__name__ in HOST_DATASETS:
        yield from _same(f"{where}:mean and std", _normalised(data), "value_range", wanted)
    else:
        expected = f"the range of its images; network_g:value_range is {wanted}"
        hint = f"Write value_range: {wanted} if {cls.__name__} gives that, or give the class an attribute of it."
        yield OptionError(f"{where}:value_range", "missing", expected, hint)


def _normalised(data: Mapping) -> list[float]:
    """The range of what a data set of the host's gives, after its ``mean`` and ``std``."""
    if not data.get("std"):
        return [0, 1]
    mean, std = (data.get("mean") or [0])[0], data["std"][0]
    return [round((value - mean) / std, 6) for value in (0, 1)]


def _pair(value: object) -> list[float] | None:
    """Two numbers, lowest and highest; None for anything else."""
    numbers = isinstance(value, list | tuple) and all(isinstance(number, int | float) for number in value)
    return list(value) if numbers and len(value) == 2 else None


def _shows_0_to_1(model: object) -> bool:
    """Whether a model reads images as the host's SRModel does; others, such as GFPGANModel, read [-1, 1]."""
    methods = ("get_current_visuals", "nondist_validation")
    return _is_a(model, SRModel) and all(getattr(model, name) is getattr(SRModel, name) for name in methods)


def _class_of(kind: str, section: object) -> object:
    return resolve(kind, section.get("type")) if isinstance(section, Mapping) else None


def _is_a(cls: object, *bases: type) -> bool:
    return inspect.isclass(cls) and issubclass(cls, bases)
