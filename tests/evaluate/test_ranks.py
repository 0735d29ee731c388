"""Several processes give what one gives."""

import json
import os
import socket
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers.forks import fork, wait
from helpers.small_evaluation import MADE_FROM_RESULTS, given, run, weights, written  # noqa: F401 - fixtures

from gpen_plugin.cli.evaluate import main
from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate import distributed
from gpen_plugin.evaluate.distributed import Ranks, merge_dicts


def run_as_rank(rank: int, port: int, command: list[str]) -> int:
    """The command as torchrun starts it; returns its exit code."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the parent holds the store, as torchrun does
    return main(command)


def test_two_ranks_write_the_same_files_as_one(given, tmp_path):
    run(given)
    path = tmp_path / "two.yml"
    path.write_text(json.dumps({**given, "output": str(tmp_path / "two")}))
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    logs, command = [tmp_path / f"{rank}.log" for rank in range(2)], ["-opt", str(path), "--device", "cpu"]
    children = [fork(partial(run_as_rank, rank, store.port, command), log) for rank, log in enumerate(logs)]
    assert [wait(child) for child in children] == [0, 0], "".join(log.read_text() for log in logs if log.exists())
    for name in MADE_FROM_RESULTS:
        assert (tmp_path / "two" / name).read_bytes() == written(given)[name], name
    values = [path.name for path in (tmp_path / "two" / "methods" / "gpen").glob("values.*.jsonl")]
    assert sorted(values) == ["values.0.jsonl", "values.1.jsonl"]  # both had a share


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_shards_cover_all_items(world_size):
    items = list(range(5))
    shares = [Ranks(rank, world_size, torch.device("cpu")).shard(items) for rank in range(world_size)]
    assert sorted(item for share in shares for item in share) == items


def test_rank_0_runs_first(monkeypatch):
    order = []
    monkeypatch.setattr(Ranks, "barrier", lambda self: order.append(f"wait {self.rank}"))
    for rank in (0, 1):
        for _ in Ranks(rank, 2, torch.device("cpu")).main_first():
            order.append(f"work {rank}")
    assert order == ["work 0", "wait 0", "wait 1", "work 1"]


def test_missing_device_is_an_error():
    with pytest.raises(OptionError, match=r"device.*nonsense"):
        Ranks.of_this_process("nonsense")


def test_torch_uses_one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Ranks.of_this_process("cpu")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_missing_launcher_is_an_error_after_the_timeout(monkeypatch):
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("gpen_plugin.evaluate.distributed.INIT_TIMEOUT", timedelta(seconds=1))
    with pytest.raises(OptionError, match=r"WORLD_SIZE.*2 processes.*cannot be reached"):
        Ranks.of_this_process("cpu")


def test_each_local_rank_takes_its_own_gpu(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    taken = []
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 4, set_device=taken.append)
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(distributed, "select_device", lambda name, mps: torch.device(name.replace("auto", "cuda")))
    assert Ranks.of_this_process().device == torch.device("cuda", 3)
    assert Ranks.of_this_process("cuda:1").device == torch.device("cuda", 1)
    assert taken == [torch.device("cuda", 3), torch.device("cuda", 1)]


def test_merge_dicts():
    assert merge_dicts([{"a": 1}, {}, {"b": 2}]) == {"a": 1, "b": 2}
