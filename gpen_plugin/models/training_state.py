"""The files of a training on disk: which there are, which are kept, and the state of the random generators."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.distributed
from basicsr.utils import get_root_logger

from gpen_plugin import checkpoint
from gpen_plugin.errors import CheckpointError
from gpen_plugin.host import before_first_batch

AFTER_A_FULL_DISK = "Make room, then resume with --auto_resume: the earlier checkpoint is whole."


def random_state() -> dict:
    """The state of every generator of this process that code which knows no better may draw from.

    The steps of our own trainings draw from their place in the run (see `Draws`). Tensors, numbers and tuples only, so
    that a loader of weights alone reads it.
    """
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,  # of the rank's own GPU
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def set_random_state(state: Mapping) -> None:
    """Go on from a `random_state`; that of a GPU where there is one."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def go_on_drawing(states: Sequence[Mapping], rank: int, world_size: int) -> None:
    """Have the generators of this rank set before the first batch.

    Args:
        states: `random_state` of each rank that there was; with another number of ranks now, a warning is all.
        rank: of this process.
        world_size: how many ranks there are now.
    """
    if len(states) == world_size:
        before_first_batch(lambda: set_random_state(states[rank]))
    else:
        get_root_logger().warning(
            f"The state is of {len(states)} ranks, and there are {world_size}: global random generators start anew. "
            "Our own steps do not draw from them."
        )


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Afterwards the generators are as they were: what is drawn inside does not change what is drawn later."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)


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


def check(state: Mapping, path: str | None, own: Mapping) -> None:
    """Raise a `CheckpointError` unless `state` has all that a resumed training reads.

    Args:
        state: a training state.
        path: of its file.
        own: what the model writes beside what all of ours do; of augmentation, a state may know nothing.
    """
    wanted = {"optimizers", "schedulers", "best_metric_results", "sampler", "random", *own} - {"augmentation"}
    missing = sorted(wanted - set(state))
    if missing:
        raise CheckpointError(
            f"path:resume_state: {path}",
            f"has no {', '.join(missing)}",
            "a training state of this model, written by this version",
            "Start from its networks: name them as pretrain_network_g and pretrain_network_d.",
        )


def best_so_far(held: Mapping, metrics: Mapping) -> dict:
    """The best results of a state, with the metrics that are in the option file by now.

    Args:
        held: data set -> metric -> the host's record of the best result.
        metrics: ``val:metrics``; those that are new, or better in another direction, begin without a result.
    """
    best = {}
    for dataset, records in held.items():
        best[dataset] = {}
        for name, options in metrics.items():
            better = options.get("better", "higher")
            worst = float("-inf") if better == "higher" else float("inf")
            record = records.get(name, {})
            same = record.get("better") == better
            best[dataset][name] = dict(record) if same else {"better": better, "val": worst, "iter": -1}
    return best


def write(folders: Mapping[str, str], state: Mapping) -> None:
    """Write a training state under the host's name, ``N.state``.

    Args:
        folders: ``path:`` of the options, with the host's ``models`` and ``training_states``; so in all that follow.
        state: its ``iter`` is N.
    Raises:
        CheckpointError: it could not be written; an earlier one is still there.
    """
    checkpoint.write(_state_file(folders, state["iter"]), state, way_out=AFTER_A_FULL_DISK)


def forget(folders: Mapping[str, str], iteration: int) -> None:
    """Delete the state of a training that was here before, since its networks are about to be replaced."""
    _state_file(folders, iteration).unlink(missing_ok=True)


def take_over(folders: Mapping[str, str], iteration: int, keep_last: int | None) -> None:
    """Clear up behind a process that was killed, where its training is resumed; warn of states beyond this one."""
    for name in ("models", "training_states"):
        for unfinished in Path(folders[name]).glob(".*.tmp"):
            unfinished.unlink(missing_ok=True)
    tidy(folders, iteration, keep_last)
    later = [number for number in _saved(folders) if number > iteration]
    if later:
        get_root_logger().warning(
            f"Resuming from iteration {iteration}, but there are states of {', '.join(map(str, later))}: they stay "
            "until this training comes by, and --auto_resume would take the last of them. Move them away."
        )


def tidy(folders: Mapping[str, str], iteration: int, keep_last: int | None) -> None:
    """Delete the checkpoints before the newest; of each the state first, so that no state lacks networks.

    Args:
        folders: see `write`.
        iteration: at which the training is; states of later ones are of another course and neither count nor go.
        keep_last: how many stay; None keeps all.
    """
    numbers = [number for number in _saved(folders) if number <= iteration]
    if not keep_last or len(numbers) < keep_last:
        return
    for number in numbers[:-keep_last]:
        forget(folders, number)
    for path in Path(folders["models"]).glob("net_*.pth"):
        found = re.fullmatch(r"net_[^_]+_(\d+)\.pth", path.name)
        if found and int(found[1]) < numbers[-keep_last]:
            path.unlink(missing_ok=True)


def _state_file(folders: Mapping[str, str], iteration: int) -> Path:
    return Path(folders["training_states"], f"{iteration}.state")


def _saved(folders: Mapping[str, str]) -> list[int]:
    """Iterations of the states on the disk, in order."""
    return sorted(int(path.stem) for path in Path(folders["training_states"]).glob("*.state") if path.stem.isdigit())
