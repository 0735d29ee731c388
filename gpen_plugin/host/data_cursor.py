"""The position in the data of a run: sample indices, exact resume, and the time spent waiting for data."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from itertools import islice

from gpen_plugin.host.patches import HostPatch


class SampleIndex(int):
    """The index of an image, with its position in the run, which a worker process cannot know.

    Random numbers of a sample depend on it, so a resumed run degrades each image as an uninterrupted one does, with
    any number of workers and ranks.

    Args:
        index: which image.
        epoch: counted from 0.
        position: in the order of the whole epoch, over all ranks.
    """

    epoch: int
    position: int

    def __new__(cls, index: int, epoch: int, position: int) -> "SampleIndex":
        self = super().__new__(cls, index)
        self.epoch, self.position = epoch, position
        return self

    def __getnewargs__(self) -> tuple[int, int, int]:
        return int(self), self.epoch, self.position


@dataclass
class DataCursor:
    """What BasicSR's loader has given to this process.

    Attributes:
        epoch: the current one.
        images: images of this rank in this epoch, including those before a resume.
        waited: seconds that training waited for data since the process started.
        resumed: epoch, images of this rank in it, and iteration of the state that this process resumed from.
        pending: called before the first batch.
        before_batch: a weak reference to a method that is called before each batch and before each epoch.
    """

    epoch: int = 0
    images: int = 0
    waited: float = 0.0
    resumed: tuple[int, int, int] = (0, 0, 0)
    pending: Callable[[], None] | None = None
    before_batch: Callable[[], Callable[[], None] | None] = lambda: None


_cursor = DataCursor()


def set_resume_iteration(epoch: int, images: int, iteration: int) -> None:
    """Set the position of the state that this process resumes from: `images` are those of this rank."""
    _cursor.resumed = (epoch, images, iteration)


def resumed_from() -> tuple[int, int]:
    """Epoch and iteration of the state that this process resumed from; zeros without one."""
    epoch, _, iteration = _cursor.resumed
    return epoch, iteration


def before_first_batch(action: Callable[[], None]) -> None:
    """Call `action` once, after the loaders are made and before their first batch.

    Global random generators are set there, because making a loader draws from them.
    """
    _cursor.pending = action


def before_each_batch(method: Callable[[], Callable[[], None] | None]) -> None:
    """Call what the weak reference `method` refers to before each batch, and before workers start for an epoch.

    That is between two iterations, or before the first. What BasicSR does after an iteration (log, checkpoint,
    validation) is done by then.
    """
    _cursor.before_batch = method


def batch_index() -> dict[str, int]:
    """The sampler's position, for a training state: the epoch, and its images used so far on all ranks."""
    from basicsr.utils.dist_util import get_dist_info

    return {"epoch": _cursor.epoch, "images": _cursor.images * get_dist_info()[1]}


def data_wait_seconds() -> float:
    """Seconds that training waited for its loader since this process started."""
    return _cursor.waited


def _call_before_batch() -> None:
    method = _cursor.before_batch()
    if method is not None:
        method()


def _record_epoch(original: Callable) -> Callable:
    @wraps(original)
    def set_epoch(self: object, epoch: int) -> None:
        _call_before_batch()
        original(self, epoch)
        _cursor.epoch, _cursor.images = epoch, _images_before(self)

    return set_epoch


def _iterate_from_cursor(original: Callable) -> Callable:
    @wraps(original)
    def __iter__(self: object) -> Iterator[int]:
        if not supports_resume_index(self.dataset):
            return original(self)
        order = enumerate(original(self))
        samples = (SampleIndex(index, self.epoch, self.rank + i * self.num_replicas) for i, index in order)
        return islice(samples, _images_before(self), None)

    return __iter__


def _images_before(sampler: object) -> int:
    """Images of this rank in the sampler's epoch that were used before a resume."""
    epoch, images, _ = _cursor.resumed
    return min(images, sampler.num_samples) if epoch == sampler.epoch and supports_resume_index(sampler.dataset) else 0


def supports_resume_index(dataset: object) -> bool:
    """Whether a data set, or a class of them, takes `SampleIndex`: it samples by seed and position."""
    return getattr(dataset, "wants_sample_index", False)


def _time_and_count(original: Callable) -> Callable:
    @wraps(original)
    def next_batch(self: object) -> object:
        if _cursor.pending is not None:
            action, _cursor.pending = _cursor.pending, None
            action()
        _call_before_batch()
        began = time.perf_counter()
        batch = original(self)
        _cursor.waited += time.perf_counter() - began
        if isinstance(batch, Mapping) and supports_resume_index(getattr(self.ori_loader, "dataset", None)):
            _cursor.images += _images_in(batch)
        return batch

    return next_batch


def _images_in(batch: Mapping) -> int:
    """How many images a batch holds."""
    return next(len(value) for value in batch.values() if hasattr(value, "shape") and value.ndim)


def _queue_errors(original: Callable) -> Callable:
    @wraps(original)
    def run(self: object) -> None:
        try:
            for item in self.generator:
                self.queue.put(item)
            self.queue.put(None)
        except BaseException as error:
            self.queue.put(error)

    return run


def _raise_queued_errors(original: Callable) -> Callable:
    @wraps(original)
    def __next__(self: object) -> object:
        item = self.queue.get()
        if item is None:
            raise StopIteration
        if isinstance(item, BaseException):
            raise item
        return item

    return __next__


def _share_environments(original: Callable) -> Callable:
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


def _lmdb_refuses_second_open() -> bool:
    import lmdb

    return int(lmdb.__version__.split(".")[0]) >= 2


DATA_PATCHES = (
    HostPatch(
        "the position of the loader is unknown",
        "a training state does not say which images of the epoch were used, and the time that training waits for data "
        "is not measured",
        "1.4.2, master",
        "basicsr.data.prefetch_dataloader",
        "CPUPrefetcher.next",
        _time_and_count,
    ),
    HostPatch(
        "the position of the CUDA prefetcher is unknown",
        "the same fault",
        "1.4.2, master",
        "basicsr.data.prefetch_dataloader",
        "CUDAPrefetcher.next",
        _time_and_count,
    ),
    HostPatch(
        "the epoch is unknown",
        "the same fault; the epoch is set at the sampler, which a prefetching thread may read at any time",
        "1.4.2, master",
        "basicsr.data.data_sampler",
        "EnlargedSampler.set_epoch",
        _record_epoch,
    ),
    HostPatch(
        "a resumed epoch starts again",
        "the interrupted epoch starts from its first image, so a resumed run differs from an uninterrupted one; and a "
        "worker process cannot know the position of a sample in the run",
        "1.4.2, master",
        "basicsr.data.data_sampler",
        "EnlargedSampler.__iter__",
        _iterate_from_cursor,
    ),
    HostPatch(
        "an error in the prefetching thread is swallowed",
        "with prefetch_mode: cpu an unreadable image ends the thread, and training waits forever",
        "1.4.2, master",
        "basicsr.data.prefetch_dataloader",
        "PrefetchGenerator.run",
        _queue_errors,
    ),
    HostPatch(
        "an error of the prefetching thread is not raised",
        "the other half of the fault above",
        "1.4.2, master",
        "basicsr.data.prefetch_dataloader",
        "PrefetchGenerator.__next__",
        _raise_queued_errors,
    ),
    HostPatch(
        "two readers of one LMDB clash",
        "lmdb 2 refuses to open a file twice in one process: train and validation on one file, forked workers",
        "1.4.2, master, with lmdb >= 2",
        "basicsr.utils.file_client",
        "LmdbBackend.__init__",
        _share_environments,
        _lmdb_refuses_second_open,
    ),
)
