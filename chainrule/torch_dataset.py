"""Images and labels in IDX files as a ``torch.utils.data.Dataset``, for training scripts of your own."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

import idx
from chainrule import datasets

Transform = Callable[[Any], Any]
Item = tuple[Any, Any]


class IdxDataset(Dataset[Item]):
    """Images of one IDX file with the labels of another, compressed or not.

    An item is what torchvision's MNIST gives after ``ToTensor``: the image as float32 (1, H, W) from 0 to 1,
    and its label as an int. With ``raw=True`` the image is uint8 (1, H, W), 0 to 255, as it is stored.
    ``transform`` gets that tensor (not a PIL image: leave ``ToTensor`` out), ``target_transform`` the int.

    An uncompressed file of images is mapped: opening it costs nothing, an access reads what it touches, and
    processes share its memory. A compressed one is read whole. A pickled copy, which is what a worker process
    may get, opens the files itself when it is first asked for an item.

    Attributes:
        classes: their names; ``class_to_idx`` maps a name to its label.
        data: all images, uint8 (N, H, W), a copy made when it is asked for.
        targets: all labels, int64 (N,).

    Raises:
        ValueError: the files do not hold images (uint8, three dimensions) and as many labels (whole numbers,
            one dimension, within ``classes``); `idx.IdxError`, which is one, if a file is damaged.
        OSError: a file cannot be opened.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        labels: str | os.PathLike[str],
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        *,
        raw: bool = False,
        classes: Sequence[str] | None = None,
    ):
        self.images_path, self.labels_path = Path(images), Path(labels)
        self.transform, self.target_transform, self.raw = transform, target_transform, raw
        self._images: Any = None  # (N, H, W), a view of the map or an array of its own
        self._labels = _read_labels(self.labels_path)
        opened = self._open()
        if len(opened) != len(self._labels):
            raise ValueError(
                f"{self.labels_path}: found {len(self._labels):,} labels, "
                f"expected as many as the {len(opened):,} images of {self.images_path}"
            )
        highest = int(self._labels.max(initial=-1))
        self.classes = [str(label) for label in range(highest + 1)] if classes is None else list(classes)
        if highest >= len(self.classes):
            raise ValueError(
                f"{self.labels_path}: found label {highest}, expected 0 to {len(self.classes) - 1}"
            )

    @classmethod
    def from_name(
        cls,
        name: str = "mnist",
        train: bool = True,
        root: str | os.PathLike[str] | None = None,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        *,
        raw: bool = False,
    ) -> Self:
        """Return the training or the test half of a data set that ``chainrule datasets`` lists.

        Its files are found below ``root`` (None: ``$CHAINRULE_DATA``, or ``data``) as ``chainrule download``
        and torchvision leave them, and verified by their SHA-256.

        Raises `chainrule.errors.ChainruleError` for an unknown name, and when it is not here or is damaged.
        """
        source, copies = datasets.verified(name, None if root is None else Path(root))
        half = "train" if train else "test"
        images, labels = copies[f"{half}_images"].path, copies[f"{half}_labels"].path
        return cls(images, labels, transform, target_transform, raw=raw, classes=source.classes)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each class."""
        return {name: label for label, name in enumerate(self.classes)}

    @property
    def data(self) -> Tensor:
        """All images as they are stored, uint8 (N, H, W)."""
        return torch.from_numpy(np.array(self._open()[:]))

    @property
    def targets(self) -> Tensor:
        """All labels, int64 (N,)."""
        return torch.from_numpy(self._labels.copy())

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Item:
        """Return the image and the label at ``index``; a negative one counts from the end."""
        label = self._labels[index]  # an index beyond the end stops here
        return self._item(self._tensor(self._open()[index][None]), int(label))

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Return several items, read and converted together; a DataLoader asks for its batches so."""
        chosen = np.asarray(indices, np.int64)
        labels = self._labels[chosen].tolist()
        images = self._tensor(self._open()[chosen][:, None])
        return [self._item(image, label) for image, label in zip(images, labels, strict=True)]

    def __repr__(self) -> str:
        return f"IdxDataset({str(self.images_path)!r}, {str(self.labels_path)!r}): {len(self):,} images"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_images": None}

    def _tensor(self, pixels: np.ndarray) -> Tensor:
        """Return a copy as a tensor: as it is, or in float32 from 0 to 1."""
        tensor = torch.from_numpy(np.array(pixels))
        return tensor if self.raw else tensor.float().div_(255)

    def _item(self, image: Any, label: Any) -> Item:
        return (
            image if self.transform is None else self.transform(image),
            label if self.target_transform is None else self.target_transform(label),
        )

    def _open(self) -> Any:
        """Return the images, mapped or read: now, or when this process did so before."""
        if self._images is None:
            with idx.open(self.images_path) as images:
                if images.dtype != np.uint8 or images.ndim != 3:
                    raise ValueError(
                        f"{self.images_path}: expected images, uint8 of shape (N, H, W), "
                        f"found {images.dtype} of shape {images.shape}"
                    )
                self._images = images[:]  # of a map a view, which outlives the closing
        return self._images


def _read_labels(path: Path) -> np.ndarray:
    """Return the labels as int64 (N,)."""
    labels = idx.read(path)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(
            f"{path}: expected labels, whole numbers of shape (N,), "
            f"found {labels.dtype} of shape {labels.shape}"
        )
    if labels.size and labels.min() < 0:
        raise ValueError(f"{path}: found label {labels.min()}, expected 0 or more")
    return labels.astype(np.int64)
