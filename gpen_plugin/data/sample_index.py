"""An index of a picture that knows its place in the training."""


class SampleIndex(int):
    """The index of a picture, with the place in the run at which it is drawn.

    A worker process cannot know that place, but what is drawn for a sample has to depend on it: so a resumed run
    degrades each picture as one that never stopped, with any number of workers and ranks.

    Args:
        index: which picture.
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
