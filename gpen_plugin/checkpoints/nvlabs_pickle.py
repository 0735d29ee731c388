"""NVlabs' network pickles (StyleGAN2-ADA and StyleGAN3's code bases), read without running any of their code.

Such a file holds modules together with their source text, which the usual way of opening it executes. All tensors lie
in the modules' attributes, so the reader here builds an inert object in place of every module.
"""

import collections
import io
import pickle
from collections.abc import Iterator
from os import PathLike

import torch

from gpen_plugin.errors import CheckpointError

CODE_BASES = ("torch_utils", "training", "dnnlib", "metrics", "numpy")  # packages whose objects become inert
NETWORKS = ("G_ema", "G", "D")


class Inert:
    """Stands for an object of any class: takes its attributes, and ignores all else."""

    def __new__(cls, *arguments: object, **named: object) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *arguments: object, **named: object):
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            vars(self).update(state)

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass


def read(path: str | PathLike) -> dict[str, dict[str, torch.Tensor]]:
    """The state dicts of the networks in a file, on the CPU.

    Raises pickle.UnpicklingError for a class that no file of theirs holds, CheckpointError for one of TensorFlow's.
    """
    with open(path, "rb") as stream:
        content = _Unpickler(stream, str(path)).load()
    found = {
        name: content[name] for name in NETWORKS if isinstance(content, dict) and isinstance(content.get(name), Inert)
    }
    if not found:
        raise pickle.UnpicklingError("no dictionary with " + ", ".join(NETWORKS))
    return {name: dict(_tensors(module)) for name, module in found.items()}


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BufferedReader, path: str):
        super().__init__(stream)
        self._path = path

    def find_class(self, module: str, name: str) -> object:
        """Only these; whatever else of their code bases is replaced by `Inert`."""
        if module.startswith("dnnlib.tflib"):
            hint = "Convert it with legacy.py of stylegan2-ada-pytorch."
            raise CheckpointError(self._path, "is a pickle of TensorFlow", "one of PyTorch", hint)
        known = _KNOWN.get((module, name))
        if known is not None:
            return known
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module.partition(".")[0] in CODE_BASES or module.startswith("torch.nn."):
            return Inert
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is not allowed")


def _persistent(meta: dict) -> Inert:
    """In place of the function that would run the source text in `meta`."""
    module = Inert()
    module.__setstate__(meta["state"])
    return module


def _storage(content: bytes) -> object:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


_KNOWN = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("dnnlib.util", "EasyDict"): dict,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
}


def _tensors(module: object, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    attributes = vars(module)
    for kind in ("_parameters", "_buffers"):
        for name, tensor in (attributes.get(kind) or {}).items():
            if isinstance(tensor, torch.Tensor):
                yield prefix + name, tensor.detach()
    for name, child in (attributes.get("_modules") or {}).items():
        if isinstance(child, Inert):
            yield from _tensors(child, f"{prefix}{name}.")
