"""Which classes an option file names, and so whether a run concerns this package. All others are left to the host."""

from collections.abc import Callable, Iterator, Mapping

from gpen_plugin.host.registry import is_ours, resolve


def names_ours(opt: Mapping) -> bool:
    """Whether the model, a network or a data set of a run is a class of this package or derived from one."""
    return any(is_ours(cls) for cls in _named_classes(opt))


def trains_ours(opt: Mapping) -> bool:
    """Whether the model of a run is a class of this package or derived from one."""
    return is_ours(resolve("model", opt.get("model_type")))


def _named_classes(opt: Mapping) -> Iterator[Callable | None]:
    yield resolve("model", opt.get("model_type"))
    for key, section in opt.items():
        if str(key).startswith("network_"):
            yield resolve("arch", _type_of(section))
    data_sets = opt.get("datasets")
    for section in data_sets.values() if isinstance(data_sets, Mapping) else ():
        yield resolve("dataset", _type_of(section))


def _type_of(section: object) -> object:
    return section.get("type") if isinstance(section, Mapping) else None
