"""Each mend does what it says, and only once."""

import os
import queue
import sys

import basicsr.train
import pytest
import torch
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.data.prefetch_dataloader import CPUPrefetcher, PrefetchGenerator
from basicsr.utils.registry import ARCH_REGISTRY

from gpen_plugin.errors import DataError, OptionError, RegistryClashError, plain_message
from gpen_plugin.host import PATCHES, apply_patches, data_cursor, register, registered, run_hooks


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.attribute)
def test_every_fault_that_is_present_is_applied(patch):
    assert patch.reason
    assert patch.versions
    if not patch.present():
        pytest.skip("this host does not have the fault")
    assert patch.applied()


def test_mending_again_changes_nothing():
    before = [getattr(*patch._locate(), None) for patch in PATCHES]
    apply_patches()
    assert before == [getattr(*patch._locate(), None) for patch in PATCHES]


def test_registering_again_changes_nothing_and_a_clash_names_both():
    ours = registered("arch")["GPEN"]
    assert register("arch")(ours) is ours
    stranger = type("GPEN", (), {"__module__": "some.other.plugin"})
    with pytest.raises(RegistryClashError, match=r"some\.other\.plugin.*gpen_plugin\.archs\.gpen_arch"):
        register("arch")(stranger)
    assert ARCH_REGISTRY.get("GPEN") is ours


OURS = "model_type: GPENModel\n"  # what the host cannot parse of other runs is its own business


class Images(list):
    wants_sample_index = True


@pytest.fixture
def resumed(monkeypatch):
    monkeypatch.setattr(data_cursor, "_cursor", data_cursor.DataCursor())
    return data_cursor.set_resume_iteration


def test_sampler_resumes_at_the_saved_index(resumed):
    def order(epoch: int, rank: int = 0):
        sampler = EnlargedSampler(Images("abcdef"), num_replicas=2, rank=rank, ratio=2)
        sampler.set_epoch(epoch)
        return [(int(i), i.epoch, i.position) for i in sampler]

    whole = order(epoch=1)
    assert [position for _, _, position in whole] == [0, 2, 4, 6, 8, 10]
    assert [position for _, _, position in order(epoch=1, rank=1)] == [1, 3, 5, 7, 9, 11]
    resumed(epoch=1, images=4, iteration=0)
    assert order(epoch=1) == whole[4:]
    assert data_cursor.batch_index() == {"epoch": 1, "images": 4}
    assert len(order(epoch=2)) == 6
    assert data_cursor.batch_index() == {"epoch": 2, "images": 0}


class Loader(list):
    dataset = Images()


def test_batches_are_counted_and_waiting_is_timed(resumed):
    prefetcher = CPUPrefetcher(Loader([{"gt": torch.zeros(3, 1), "gt_path": ["a", "b", "c"]}] * 2))
    waited, order = data_cursor.data_wait_seconds(), []
    data_cursor.before_first_batch(lambda: order.append("before"))
    while prefetcher.next() is not None:
        order.append(data_cursor.batch_index()["images"])
    assert order == ["before", 3, 6]
    assert data_cursor.data_wait_seconds() > waited


def test_samplers_of_other_data_sets_stay_as_they_are(resumed):
    resumed(epoch=0, images=2, iteration=0)
    assert [type(i) for i in EnlargedSampler(["a", "b"], 1, 0)] == [int, int]


def test_an_error_in_the_prefetching_thread_arrives():
    def broken():
        yield 1
        raise ValueError("unreadable image")

    items = PrefetchGenerator(broken(), 1)
    assert next(items) == 1
    with pytest.raises(ValueError, match="unreadable image"):
        next(items)
    assert isinstance(items.queue, queue.Queue)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "-opt: .*No such file.*Check the path"),
        ("name: [1", "-opt: is not YAML: .*line 1"),
        ("", "-opt: .* holds nothing; expected sections with keys"),
        ("- name", "-opt: .* holds no keys; expected sections with keys"),
        (f"{OURS}name: x", "num_gpu: missing"),
        (f"{OURS}name: x\nnum_gpu: 0\ndatasets:\n", "datasets: got nothing; expected a section with keys"),
    ],
)
def test_an_option_file_that_the_host_cannot_parse(tmp_path, monkeypatch, text, message):
    path = tmp_path / "options.yml"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(path)])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(OptionError, match=message):
        basicsr.train.parse_options(str(tmp_path), is_train=True)


def test_a_missing_launcher_is_not_blamed_on_the_option_file(tmp_path, monkeypatch, write_options, options):
    command = ["train.py", "-opt", str(write_options(options)), "--launcher", "pytorch"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr("torch.multiprocessing.set_start_method", lambda method: None)
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(Exception, match="RANK") as caught:
        basicsr.train.parse_options(str(tmp_path), is_train=True)
    assert not isinstance(caught.value, OptionError)


def test_a_forced_seed_is_the_networks_too(tmp_path, monkeypatch, write_options, options):
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(write_options(options)), "--force_yml", "manual_seed=7"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    basicsr.train.parse_options(str(tmp_path), is_train=True)
    assert torch.initial_seed() == 7


def test_a_forced_seed_may_be_none_for_one_that_is_drawn(tmp_path, monkeypatch, write_options, options):
    words = ["train.py", "-opt", str(write_options(options)), "--force_yml", "manual_seed=~"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    seeds = {basicsr.train.parse_options(str(tmp_path), is_train=True)[0]["manual_seed"] for _ in range(5)}
    assert len(seeds) > 1
    assert torch.initial_seed() in seeds


def test_forced_seed_must_be_a_number(tmp_path, monkeypatch, write_options, options):
    words = ["train.py", "-opt", str(write_options(options)), "--force_yml", "manual_seed=one"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(OptionError, match="manual_seed: got 'one'"):
        basicsr.train.parse_options(str(tmp_path), is_train=True)


def test_our_errors_are_printed_without_a_traceback_and_others_as_ever(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(sys, "excepthook", lambda *error: seen.append(error))
    run_hooks._print_errors_without_traceback()
    sys.excepthook(OptionError, OptionError("a", "b"), None)
    sys.excepthook(ValueError, ValueError("other"), None)
    assert capsys.readouterr().err == "gpen_plugin: error: a: b\n"
    assert [kind for kind, *_ in seen] == [ValueError]


def test_error_of_a_loader_worker_has_no_traceback():
    said = "/faces/3.png: cannot be decoded (6 bytes); expected a whole image file."
    relayed = f"Caught DataError in worker process 0.\nOriginal Traceback:\n...\ngpen_plugin.errors.DataError: {said}\n"
    assert plain_message(DataError(relayed)) == said
    assert plain_message(DataError(said)) == said


def test_experiments_never_go_to_site_packages(tmp_path):
    import sysconfig

    options = run_hooks._Options(name="x")
    options["root_path"] = sysconfig.get_path("purelib")
    assert options["root_path"] == os.getcwd()
    options["root_path"] = str(tmp_path)
    assert options["root_path"] == str(tmp_path)


def test_one_lmdb_environment_per_file(tmp_path):
    import lmdb

    path = str(tmp_path / "x.lmdb")
    with lmdb.open(path) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"key", b"value")

    class Backend:
        def __init__(self, db_paths, client_keys="default", readonly=True, lock=False, readahead=False):
            raise AssertionError("the original must not be called")

    Backend.__init__ = data_cursor._share_environments(Backend.__init__)
    first, second = Backend(path), Backend([path], ["gt"])
    assert first._client["default"] is second._client["gt"]


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (1, True)])
def test_workers_persist_where_there_are_any(tmp_path, monkeypatch, write_options, options, workers, persistent):
    from basicsr.data import build_dataloader, build_dataset

    options["datasets"]["train"] |= {"persistent_workers": True, "num_worker_per_gpu": workers}
    options["datasets"]["val"] |= {"persistent_workers": True}
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(write_options(options))])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    opt, _ = basicsr.train.parse_options(str(tmp_path), is_train=True)
    train, val = (
        build_dataloader(build_dataset(opt["datasets"][name]), opt["datasets"][name], 0) for name in opt["datasets"]
    )
    assert (train.num_workers, train.persistent_workers) == (workers, persistent)
    assert len(next(iter(val))["lq"]) == 1
