"""What an option file asks of GPUs is held against those that there are."""

import pytest
import torch
from test_preflight import parsed

from gpen_plugin.errors import GPENError
from gpen_plugin.preflight import check_run


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)


def test_several_gpus_without_a_launcher_where_that_cannot_work(options, prior_options, two_gpus):
    message = r"num_gpu: got 2 without a launcher; expected one process per GPU. Start with torchrun --nproc_per_node=2"
    with pytest.raises(GPENError, match=message):
        check_run(parsed({**prior_options, "num_gpu": 2}))
    options["datasets"]["train"]["batch_size_per_gpu"] = 1
    check_run(parsed({**options, "num_gpu": 2}))  # DataParallel: slow, but it works
    options["train"]["compile"] = "eager"
    with pytest.raises(GPENError, match=message):
        check_run(parsed({**options, "num_gpu": 2}))
    check_run({**parsed({**options, "num_gpu": 2}), "dist": True, "world_size": 2})


def test_gpu_without_bfloat16_is_an_error(options, two_gpus):
    options["train"]["precision"] = "bf16"
    with pytest.raises(GPENError, match="train:precision: got bf16, which an old GPU cannot do; expected fp32"):
        check_run(parsed({**options, "num_gpu": 1}))
    check_run(parsed(options))
