"""The processes that torchrun or srun starts for one command: each restores its part of the inputs."""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from gpen_plugin.errors import OptionError

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_SRUN = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
_POLL_SECONDS = 1


class Ranks(NamedTuple):
    """This process among those of the command."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0  # on this machine

    @classmethod
    def of_environment(cls, variables: Mapping[str, str] = os.environ) -> "Ranks":
        """Read the variables of torchrun or srun; one process without them. OptionError if they are no ranks."""
        # In the script of sbatch, Slurm sets the variables of a task, too, but starts one process.
        is_script = "SLURM_JOB_ID" in variables and "SLURM_STEP_ID" not in variables
        for names in (_TORCHRUN, *(() if is_script else (_SRUN,))):
            if not all(name in variables for name in names[:2]):
                continue
            values = [variables.get(name, "0") for name in names]
            if not all(value.isdecimal() for value in values) or int(values[0]) >= int(values[1]):
                raise OptionError(names[0], f"got {values[0]} of {values[1]}", "a number below that of all ranks")
            rank, count, local_rank = map(int, values)
            return cls(rank, count, local_rank) if count > 1 else cls()
        return cls()

    @property
    def label(self) -> str:
        """What begins the lines of this rank; empty for one process."""
        return f"rank {self.rank} of {self.count}: " if self.count > 1 else ""

    def owns(self, source: Path) -> bool:
        """Whether this rank restores an input. It depends on the absolute path and the number of ranks alone."""
        digest = hashlib.sha256(os.fsencode(os.path.abspath(source))).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.rank

    def own_file(self, path: Path) -> Path:
        """The name of this rank's file: ``report-0-of-4.json`` for ``report.json``."""
        return path if self.count == 1 else path.with_stem(f"{path.stem}-{self.rank}-of-{self.count}")

    @contextlib.contextmanager
    def ending_together(self) -> Iterator[None]:
        """Wait for the other ranks of torchrun at the end of the block, unless an error ends it.

        torchrun stops all ranks as soon as one ends with a status other than 0, as for an input that cannot be read.
        """
        if "TORCHELASTIC_RUN_ID" not in os.environ or self.count == 1:
            yield
            return

        from torch import distributed

        store = next(distributed.rendezvous("env://"))[0]
        yield
        key = f"gpen_restore/ended/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        with contextlib.suppress(RuntimeError):  # the store is gone: its machine has seen all ranks end
            store.add(key, 1)
            while store.add(key, 0) < self.count:
                time.sleep(_POLL_SECONDS)


ALONE = Ranks()
