"""How the host feeds data: the sampler's place in an epoch, prefetching threads, LMDB environments."""

import os
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import islice

from gpen_plugin.host.mend import Mend

_resumed: dict[str, int] = {}


def resumed_at(epoch: int, iteration: int, images_per_iteration: int) -> None:
    """Remember where the state was saved from which this process goes on."""
    _resumed.update(epoch=epoch, iteration=iteration, images=images_per_iteration)


def _iterate_from_where_it_stopped(original: Callable) -> Callable:
    @wraps(original)
    def __iter__(self: object) -> Iterator[int]:
        if not getattr(self.dataset, "wants_sample_index", False):
            return original(self)
        from gpen_plugin.data.sample_index import SampleIndex

        order = enumerate(original(self))
        samples = (SampleIndex(index, self.epoch, self.rank + i * self.num_replicas) for i, index in order)
        return islice(samples, _images_already_seen(self.epoch, self.num_samples), None)

    return __iter__


def _images_already_seen(epoch: int, num_samples: int) -> int:
    """How many images of `epoch` this rank had used when the state was saved from which this process goes on."""
    if epoch != _resumed.get("epoch"):
        return 0
    iterations_per_epoch = num_samples // _resumed["images"]
    iterations = _resumed["iteration"] - epoch * iterations_per_epoch
    return min(max(iterations, 0), iterations_per_epoch) * _resumed["images"]


def _pass_errors_on(original: Callable) -> Callable:
    @wraps(original)
    def run(self: object) -> None:
        try:
            for item in self.generator:
                self.queue.put(item)
            self.queue.put(None)
        except BaseException as error:
            self.queue.put(error)

    return run


def _raise_passed_errors(original: Callable) -> Callable:
    @wraps(original)
    def __next__(self: object) -> object:
        item = self.queue.get()
        if item is None:
            raise StopIteration
        if isinstance(item, BaseException):
            raise item
        return item

    return __next__


def _one_environment_per_file(original: Callable) -> Callable:
    environments: dict[str, object] = {}

    @wraps(original)
    def __init__(self, db_paths, client_keys="default", readonly=True, lock=False, readahead=False, **kwargs):
        import lmdb

        self.db_paths = [str(path) for path in db_paths] if isinstance(db_paths, list) else [str(db_paths)]
        keys = [client_keys] if isinstance(client_keys, str) else client_keys
        self._client = {}
        for key, path in zip(keys, map(os.path.realpath, self.db_paths), strict=True):
            if path not in environments:
                environments[path] = lmdb.open(path, readonly=readonly, lock=lock, readahead=readahead, **kwargs)
            self._client[key] = environments[path]

    return __init__


def _lmdb_allows_one_environment() -> bool:
    import lmdb

    return int(lmdb.__version__.split(".")[0]) >= 2


DATA_MENDS = (
    Mend(
        "a resumed epoch starts again",
        "the images of the interrupted epoch are drawn from its beginning, so a resumed run differs from an unstopped "
        "one; and a worker process cannot know the place of a sample in the run",
        "1.4.2, master",
        "basicsr.data.data_sampler",
        "EnlargedSampler.__iter__",
        _iterate_from_where_it_stopped,
    ),
    Mend(
        "an error in the prefetching thread is swallowed",
        "with prefetch_mode: cpu an unreadable picture ends the thread, and training waits for ever",
        "1.4.2, master",
        "basicsr.data.prefetch_dataloader",
        "PrefetchGenerator.run",
        _pass_errors_on,
    ),
    Mend(
        "an error of the prefetching thread is not raised",
        "the other half of the fault above",
        "1.4.2, master",
        "basicsr.data.prefetch_dataloader",
        "PrefetchGenerator.__next__",
        _raise_passed_errors,
    ),
    Mend(
        "two readers of one LMDB clash",
        "lmdb 2 refuses to open a file twice in one process: train and validation on one file, forked workers",
        "1.4.2, master, with lmdb >= 2",
        "basicsr.utils.file_client",
        "LmdbBackend.__init__",
        _one_environment_per_file,
        _lmdb_allows_one_environment,
    ),
)
