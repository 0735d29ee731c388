"""The files of a training on disk: which there are, which are kept, and the state of the random generators."""

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed


def random_state() -> dict:
    """The state of every generator of this process that code which knows no better may draw from.

    The steps of our own trainings draw from their place in the run (see `Draws`). Tensors, numbers and tuples only, so
    that a loader of weights alone reads it.
    """
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [state.cpu() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def set_random_state(state: Mapping) -> None:
    """Go on from a `random_state`, as far as this machine has the same devices."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def of_every_rank(value: object) -> list:
    """`value` of each rank, by rank; every rank has to call this."""
    if not torch.distributed.is_initialized():
        return [value]
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def plain(value: object) -> object:
    """Nested dicts with NumPy's scalars turned into Python's, which a safe loader takes."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.item() if hasattr(value, "item") else value


def clear_unfinished(folders: Sequence[str]) -> None:
    """Delete what a killed process left of files that it was writing."""
    for folder in folders:
        for unfinished in Path(folder).glob(".*.tmp"):
            unfinished.unlink(missing_ok=True)


def delete_older(models: str, states: str, keep_last: int) -> None:
    """Delete the checkpoints before the newest `keep_last`; of each the state first, so that no state lacks networks.

    Args:
        models: folder of the networks, ``net_*_N.pth``.
        states: folder of the training states, ``N.state``.
        keep_last: how many stay.
    """
    numbers = sorted(int(path.stem) for path in Path(states).glob("*.state") if path.stem.isdigit())
    for number in numbers[:-keep_last]:
        Path(states, f"{number}.state").unlink(missing_ok=True)
    kept = set(numbers[-keep_last:])
    for path in Path(models).glob("net_*.pth"):
        found = re.search(r"_(\d+)\.pth$", path.name)
        if found and kept and int(found[1]) < min(kept):
            path.unlink(missing_ok=True)
