"""Trainings of these tests are shorter and smaller: their number is what takes long."""

import pytest


@pytest.fixture
def options(options) -> dict:
    """Options of a training of four iterations at 16 px: checkpoints and validations at each second one."""
    for section in (options["network_g"], options["network_d"], *options["datasets"].values()):
        section["out_size"] = 16
    options["train"] |= {"total_iter": 4, "warmup_iter": 2}
    options["train"]["scheduler"]["milestones"] = [3]
    options["val"]["val_freq"] = options["logger"]["save_checkpoint_freq"] = 2
    return options
