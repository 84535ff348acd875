"""The images of GRPO's rollouts: each is opened once and processed once, whoever asks for it.

TRL 1.16 reads a row for every completion of a prompt, and again for every micro-batch of a rollout.
It copies images with their prompts, exchanges them between processes, and runs the image processor
twice over each row.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature

from vlm_r1.data.images import open_image

Row = dict[str, Any]


class SharedImage(Image.Image):
    """A decoded image that all rows about it hold together.

    A deep copy of it is the image itself. Pickled, as for another process, it is its file's name.

    Attributes:
        file: the path it was opened from.
        processed: what the image processor makes of it alone.
    """

    file: str
    processed: dict[str, Any]

    @classmethod
    def open(cls, file: str, image_processor: Any) -> "SharedImage":
        """Open and process the image at `file`.

        Raises:
            DataError: the file is missing, or no usable image.
        """
        shared = cls()
        vars(shared).update(vars(open_image(Path(file))))
        shared.file = file
        shared.processed = dict(image_processor([shared]))
        return shared

    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedImage":
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (self.file,)


class RolloutImages:
    """The distinct images of the current rollout and, with workers, of the next one.

    Args:
        image_processor: of the model's processor.
        workers: threads that open and process images ahead; 0: each is when its rollout begins.
    """

    def __init__(self, image_processor: Any, workers: int) -> None:
        self._image_processor = image_processor
        self._pool = ThreadPoolExecutor(workers, "image") if workers else None
        self._current: dict[str, Future[SharedImage]] = {}
        self._ahead: dict[str, Future[SharedImage]] = {}

    def read_ahead(self, rows: list[Row]) -> list[Row]:
        """Begin with the images of `rows`, which come back unchanged: a data collator.

        accelerate reads one batch ahead of the one it gives out. So the images of a rollout are
        read while the rollout before it is trained on.
        """
        if self._pool is not None:
            for file in _files(rows):
                if file not in self._current and file not in self._ahead:
                    self._ahead[file] = self._pool.submit(self._open, file)
        return rows

    def begin(self, rows: list[Row]) -> list[Row]:
        """The rows of a new rollout with images in place of paths; forgets the rollout before.

        Raises:
            DataError: a file is missing, or no usable image.
        """
        known = self._current | self._ahead
        self._current = {file: known.get(file) or self._begun(file) for file in _files(rows)}
        self._ahead = {f: one for f, one in self._ahead.items() if f not in self._current}
        return [row | {"image": self._current[row["image"]].result()} for row in rows]

    @contextmanager
    def processed_once(self, processor: Any) -> Iterator[None]:
        """Within, `processor` takes what was made of each image from here."""
        processor.image_processor = _ProcessedOnce(self._image_processor)
        try:
            yield
        finally:
            processor.image_processor = self._image_processor

    def _open(self, file: str) -> SharedImage:
        return SharedImage.open(file, self._image_processor)

    def _begun(self, file: str) -> Future[SharedImage]:
        if self._pool is not None:
            return self._pool.submit(self._open, file)
        done: Future[SharedImage] = Future()
        done.set_result(self._open(file))
        return done


class _ProcessedOnce:
    """An image processor that puts together what was made of each shared image before.

    What cannot be put together is processed: other images, other options, or a family whose images
    are padded to the largest one of the batch.
    """

    def __init__(self, image_processor: Any) -> None:
        self._image_processor = image_processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image_processor, name)

    def __call__(self, images: Any, **options: Any) -> BatchFeature:
        shared = [image for row in images for image in (row if isinstance(row, list) else [row])]
        if set(options) <= {"return_tensors"} and all(isinstance(i, SharedImage) for i in shared):
            parts = [image.processed for image in shared]
            if all(_shapes(part) == _shapes(parts[0]) for part in parts):
                joined = {name: _joined([part[name] for part in parts]) for name in parts[0]}
                return BatchFeature(joined, tensor_type=options.get("return_tensors"))
        return self._image_processor(images, **options)


def _files(rows: list[Row]) -> list[str]:
    """The distinct image paths of `rows`, in order."""
    return list(dict.fromkeys(row["image"] for row in rows))


def _shapes(part: dict[str, Any]) -> dict[str, Any]:
    """Shape of each value without its first axis, along which images are joined."""
    return {n: v.shape[1:] if isinstance(v, torch.Tensor) else type(v) for n, v in part.items()}


def _joined(values: list[Any]) -> Any:
    """Tensors joined along their first axis, lists one after the other."""
    if isinstance(values[0], torch.Tensor):
        return torch.cat(values)
    return [one for value in values for one in value]
