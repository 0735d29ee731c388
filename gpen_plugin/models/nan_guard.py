"""Optimiser steps that are left out where a number is not finite, so that one bad batch does not end a training."""

import math
from collections.abc import Mapping

import torch
import torch.distributed

from gpen_plugin.errors import TrainingError
from gpen_plugin.host.distributed import all_gather_object


class NaNGuard:
    """Takes optimiser steps; leaves those out whose losses or gradients are not finite, and counts them.

    All ranks leave out the same steps, so their weights stay equal. Steps are told apart by name, because a generator
    that has broken down would otherwise hide behind the discriminator's good steps.

    Args:
        patience: so many steps of one name left out in a row end the training; 0 never does.
    """

    def __init__(self, patience: int = 10):
        self.patience = patience
        self.skipped = 0
        self._in_a_row: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def step(self, name: str, optimizer: torch.optim.Optimizer, losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Step, after the losses went back, if all is finite.

        Args:
            name: of the step, such as ``g``; for the count and the message.
            optimizer: moves the parameters that have gradients.
            losses: the terms that went back, scalars by their names in the log.
        Returns:
            The norm of all gradients, a scalar on their device.
        Raises:
            TrainingError: this was the last straw; says which number went first.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        numbers = {**losses, f"the gradient of step {name}": norm}
        if self._on_all_ranks(torch.stack([number.detach().float().reshape(()) for number in numbers.values()])):
            optimizer.step()
            self._in_a_row[name] = 0
            return norm
        optimizer.zero_grad(set_to_none=True)
        self._count(name, numbers)
        return norm

    def state_dict(self) -> dict[str, int]:
        """What a resumed training has to know."""
        return {"skipped": self.skipped, "in_a_row": dict(self._in_a_row), "first": dict(self._first)}

    def load_state_dict(self, state: Mapping) -> None:
        """Take up the counts of `state_dict`."""
        self.skipped = state["skipped"]
        self._in_a_row, self._first = dict(state["in_a_row"]), dict(state["first"])

    def _on_all_ranks(self, numbers: torch.Tensor) -> bool:
        finite = numbers.isfinite().all()
        if torch.distributed.is_initialized():
            finite = finite.float()
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
        return bool(finite)

    def _count(self, name: str, numbers: Mapping[str, torch.Tensor]) -> None:
        self.skipped += 1
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
        if self._in_a_row[name] == 1:
            self._first[name] = _first_not_finite(numbers)
        if self._in_a_row[name] == self.patience:
            raise TrainingError(
                f"train:nonfinite_patience: {self.patience}",
                f"{self.patience} steps in a row were not finite; {self._first[name]} went first",
                "finite losses and gradients",
                "The last saved state is good. Resume from it with a lower learning rate, with precision: fp32, or "
                "with a larger r1_reg_weight.",
            )


def _first_not_finite(numbers: Mapping[str, torch.Tensor]) -> str:
    """The first of the numbers that is not finite on some rank: a loss before the gradient that it spoilt."""
    values = [
        (place, f"{name} ({float(number)})", float(number)) for place, (name, number) in enumerate(numbers.items())
    ]
    broken = [(place, text) for place, text, value in values if not math.isfinite(value)]
    return min(found for of_one in all_gather_object(broken) for found in of_one)[1]
