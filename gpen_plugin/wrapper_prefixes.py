"""Keys of a state dict without what wrappers around a network add to them."""

import re
from collections.abc import Mapping
from typing import TypeVar

_Tensor = TypeVar("_Tensor")
_COMPILED = re.compile(r"(?<![^.])_orig_mod\.")  # by torch.compile, before the part that was compiled
_PARALLEL = "module."  # by DataParallel and DistributedDataParallel


def without_wrapper_prefixes(state_dict: Mapping[str, _Tensor]) -> dict[str, _Tensor]:
    """Remove ``_orig_mod.`` wherever it stands in a key, and ``module.`` in front of the keys where all keys have it.

    Prefixes may be nested in any order. If two keys would become one, all stay as they are.
    """
    plain = {_COMPILED.sub("", key): tensor for key, tensor in state_dict.items()}
    if len(plain) < len(state_dict):
        return dict(state_dict)
    while plain and all(key.startswith(_PARALLEL) for key in plain):
        plain = {key.removeprefix(_PARALLEL): tensor for key, tensor in plain.items()}
    return plain
