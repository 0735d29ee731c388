"""Skips optimizer steps with losses or gradients that are not finite, so one bad batch does not end a training."""

import math
from collections.abc import Mapping

import torch
import torch.distributed

from gpen_plugin.errors import TrainingError
from gpen_plugin.host.distributed import all_gather_object


class NaNGuard:
    """Takes optimizer steps, except those with losses or gradients that are not finite, which it counts by name.

    All ranks skip the same steps, so their weights stay equal.
    """

    def __init__(self, patience: int = 10):
        self.patience = patience  # so many skipped steps of one name in a row end the training; 0 sets no limit
        self.skipped = 0
        self._in_a_row: dict[str, int] = {}  # by name: good steps of D must not hide a diverged G
        self._first: dict[str, str] = {}

    def step(self, name: str, optimizer: torch.optim.Optimizer, losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Call ``optimizer.step()`` after ``backward``, if `losses` (scalars) and gradients are finite on all ranks.

        Returns the norm of all gradients, a scalar. TrainingError: `patience` is exhausted; names the first number that
        was not finite.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        numbers = {**losses, f"the gradient of step {name}": norm}
        if self._finite_on_all_ranks(torch.stack([number.detach().float().reshape(()) for number in numbers.values()])):
            optimizer.step()
            self._in_a_row[name] = 0
            return norm
        optimizer.zero_grad(set_to_none=True)
        self._count(name, numbers)
        return norm

    def state_dict(self) -> dict[str, int]:
        """For the training state."""
        return {"skipped": self.skipped, "in_a_row": dict(self._in_a_row), "first": dict(self._first)}

    def load_state_dict(self, state: Mapping) -> None:
        self.skipped = state["skipped"]
        self._in_a_row, self._first = dict(state["in_a_row"]), dict(state["first"])

    def _finite_on_all_ranks(self, numbers: torch.Tensor) -> bool:
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
                f"{self.patience} steps in a row were not finite; {self._first[name]} was the first",
                "finite losses and gradients",
                "The last saved state is good. Resume from it with a lower learning rate, with precision: fp32, or "
                "with a larger r1_reg_weight.",
            )


def _first_not_finite(numbers: Mapping[str, torch.Tensor]) -> str:
    """The first number that is not finite on some rank: a loss stands before its gradient."""
    values = [
        (index, f"{name} ({float(number)})", float(number)) for index, (name, number) in enumerate(numbers.items())
    ]
    broken = [(index, text) for index, text, value in values if not math.isfinite(value)]
    return min(found for of_one in all_gather_object(broken) for found in of_one)[1]
