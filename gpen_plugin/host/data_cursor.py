"""The position in the data of a run: sample indices, exact resume, and the time spent waiting for data."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from itertools import islice

from gpen_plugin.host.patch import HostPatch


class SampleIndex(int):
    """The index of an image, with the place in the run at which it is drawn.

    A worker process cannot know that place, but what is drawn for a sample has to depend on it: so a resumed run
    degrades each image as one that never stopped, with any number of workers and ranks.

    Args:
        index: which image.
        epoch: counted from 0.
        position: place in the order of the whole epoch, over all ranks.
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
    """What the host's loader has given to this process.

    Attributes:
        epoch: the present one.
        images: of this rank, since the epoch began, those before a resumption included.
        waited: seconds for which training waited for them, since the process began.
        resumed: epoch, images of this rank in it, and iteration, after which this process took up a training.
        pending: what is to be done before the first batch.
    """

    epoch: int = 0
    images: int = 0
    waited: float = 0.0
    resumed: tuple[int, int, int] = (0, 0, 0)
    pending: Callable[[], None] | None = None


_feed = DataCursor()


def set_resume_iteration(epoch: int, images: int, iteration: int) -> None:
    """Remember where the state was saved from which this process goes on: after so many images of this rank."""
    _feed.resumed = (epoch, images, iteration)


def resumed_from() -> tuple[int, int]:
    """Epoch and iteration of the state from which this process goes on; zeros if it began anew."""
    epoch, _, iteration = _feed.resumed
    return epoch, iteration


def before_first_batch(action: Callable[[], None]) -> None:
    """Have `action` called once, when the loaders have been made and before they give anything.

    That is where global random generators are set: making a loader draws from them.
    """
    _feed.pending = action


def batch_index() -> dict[str, int]:
    """The sampler's position for a training state: the epoch, and the images of it used so far on all ranks."""
    from basicsr.utils.dist_util import get_dist_info

    return {"epoch": _feed.epoch, "images": _feed.images * get_dist_info()[1]}


def data_wait_seconds() -> float:
    """How long training has waited for its loader since this process began."""
    return _feed.waited


def _told_to_the_feed(original: Callable) -> Callable:
    @wraps(original)
    def set_epoch(self: object, epoch: int) -> None:
        original(self, epoch)
        _feed.epoch, _feed.images = epoch, _images_before(self)

    return set_epoch


def _iterate_from_where_it_stopped(original: Callable) -> Callable:
    @wraps(original)
    def __iter__(self: object) -> Iterator[int]:
        if not knows_places(self.dataset):
            return original(self)
        pass  # import dropped

        order = enumerate(original(self))
        samples = (SampleIndex(index, self.epoch, self.rank + i * self.num_replicas) for i, index in order)
        return islice(samples, _images_before(self), None)

    return __iter__


def _images_before(sampler: object) -> int:
    """How many images of this rank were used up before the present epoch began, or was begun again."""
    epoch, images, _ = _feed.resumed
    return min(images, sampler.num_samples) if epoch == sampler.epoch and knows_places(sampler.dataset) else 0


def knows_places(dataset: object) -> bool:
    """Whether a data set, or a class of them, is of ours: what it draws is a function of a seed and of the place."""
    return getattr(dataset, "wants_sample_index", False)


def _timed_and_counted(original: Callable) -> Callable:
    @wraps(original)
    def next_batch(self: object) -> object:
        if _feed.pending is not None:
            action, _feed.pending = _feed.pending, None
            action()
        began = time.perf_counter()
        batch = original(self)
        _feed.waited += time.perf_counter() - began
        if isinstance(batch, Mapping) and knows_places(getattr(self.ori_loader, "dataset", None)):
            _feed.images += _images_in(batch)
        return batch

    return next_batch


def _images_in(batch: Mapping) -> int:
    """How many images a batch holds."""
    return next(len(value) for value in batch.values() if hasattr(value, "shape") and value.ndim)


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


DATA_PATCHES = (
    HostPatch(
        "nobody knows how far the loader is",
        "a training state does not say which images of the epoch were used; and a training that waits for its data "
        "says so to nobody",
        "1.4.2, master",
        "basicsr.data.prefetch_dataloader",
        "CPUPrefetcher.next",
        _timed_and_counted,
    ),
    HostPatch(
        "nobody knows how far the CUDA prefetcher is",
        "the same fault",
        "1.4.2, master",
        "basicsr.data.prefetch_dataloader",
        "CUDAPrefetcher.next",
        _timed_and_counted,
    ),
    HostPatch(
        "nobody knows the epoch",
        "the same fault; the sampler is told, and in a prefetching thread it is asked for its images at any time",
        "1.4.2, master",
        "basicsr.data.data_sampler",
        "EnlargedSampler.set_epoch",
        _told_to_the_feed,
    ),
    HostPatch(
        "a resumed epoch starts again",
        "the images of the interrupted epoch are drawn from its beginning, so a resumed run differs from an unstopped "
        "one; and a worker process cannot know the place of a sample in the run",
        "1.4.2, master",
        "basicsr.data.data_sampler",
        "EnlargedSampler.__iter__",
        _iterate_from_where_it_stopped,
    ),
    HostPatch(
        "an error in the prefetching thread is swallowed",
        "with prefetch_mode: cpu an unreadable image ends the thread, and training waits for ever",
        "1.4.2, master",
        "basicsr.data.prefetch_dataloader",
        "PrefetchGenerator.run",
        _pass_errors_on,
    ),
    HostPatch(
        "an error of the prefetching thread is not raised",
        "the other half of the fault above",
        "1.4.2, master",
        "basicsr.data.prefetch_dataloader",
        "PrefetchGenerator.__next__",
        _raise_passed_errors,
    ),
    HostPatch(
        "two readers of one LMDB clash",
        "lmdb 2 refuses to open a file twice in one process: train and validation on one file, forked workers",
        "1.4.2, master, with lmdb >= 2",
        "basicsr.utils.file_client",
        "LmdbBackend.__init__",
        _one_environment_per_file,
        _lmdb_allows_one_environment,
    ),
)
