"""The Dataset for scripts of one's own: its items, workers, batches, order and errors."""

import gzip
import pickle

import numpy as np
import pytest

import idx
from chainrule import datasets
from chainrule.errors import ChainruleError, WrongUsage

torch = pytest.importorskip("torch", reason="needs PyTorch: runs where chainrule[torch] is installed")

from torch.utils.data import DataLoader, Subset  # noqa: E402

from chainrule.torch_dataset import IdxDataset  # noqa: E402

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 28, 20), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 4, 50, np.uint8)
LABELS[7] = 3


@pytest.fixture(params=["images", "images.gz"])
def paths(tmp_path, request):
    """Images, mapped or compressed, and labels."""
    idx.write(tmp_path / request.param, IMAGES)
    idx.write(tmp_path / "labels", LABELS)
    return tmp_path / request.param, tmp_path / "labels"


# -- Items ----------------------------------------------------------------------------------------------


def test_an_item_is_what_to_tensor_gives(paths):
    data = IdxDataset(*paths)
    assert len(data) == 50
    for index in (0, 7, 49, -1):
        image, label = data[index]
        assert (image.dtype, image.shape) == (torch.float32, (1, 28, 20))
        # What ToTensor computes: a division in float32.
        assert torch.equal(image[0], torch.from_numpy(IMAGES[index]).to(torch.float32).div(255))
        assert type(label) is int
        assert label == LABELS[index]
    assert [label for _, label in data] == LABELS.tolist()
    for index in (50, -51):
        with pytest.raises(IndexError):
            data[index]


def test_raw_items_are_the_bytes(paths):
    data = IdxDataset(*paths, raw=True)
    for image, _ in (data[3], data.__getitems__([5, 3])[1]):
        assert (image.dtype, image.shape) == (torch.uint8, (1, 28, 20))
        assert np.array_equal(image[0], IMAGES[3])
        image.zero_()  # it is a copy: the file is not written to
    assert np.array_equal(data[3][0][0], IMAGES[3])


def test_batches_are_the_same_items(paths):
    for options in (
        {},
        {"raw": True},
        {"transform": lambda image: image.flip(2) - 1, "target_transform": lambda label: label + 10},
    ):
        data = IdxDataset(*paths, **options)
        together = data.__getitems__([4, 9, 4, -1])
        for (image, label), index in zip(together, [4, 9, 4, -1], strict=True):
            assert torch.equal(image, data[index][0])
            assert type(label) is int
            assert label == data[index][1]


def test_transforms(paths):
    data = IdxDataset(*paths, lambda image: image.mean(), str)
    image, label = data[7]
    assert image == pytest.approx(IMAGES[7].mean() / 255, rel=1e-6)
    assert label == "3"


def test_what_users_of_torchvision_know(paths):
    data = IdxDataset(*paths)
    assert (data.data.dtype, data.targets.dtype) == (torch.uint8, torch.int64)
    assert np.array_equal(data.data, IMAGES)
    assert np.array_equal(data.targets, LABELS)
    data.data.zero_()
    data.targets.zero_()
    assert data[7][1] == 3, "they are copies"
    assert np.array_equal(data[7][0][0] * 255, IMAGES[7])
    assert data.class_to_idx == {"0": 0, "1": 1, "2": 2, "3": 3}
    named = IdxDataset(*paths, classes=["a", "b", "c", "d", "e"])
    assert named.classes == ["a", "b", "c", "d", "e"]
    assert named.class_to_idx["e"] == 4


# -- Known data sets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("train", "count"), [(True, 1500), (False, 297)])
def test_a_known_data_set_by_its_name(train, count):
    data = IdxDataset.from_name("digits", train)
    digits = datasets.load("digits")
    images, labels = (
        (digits.train_images, digits.train_labels) if train else (digits.test_images, digits.test_labels)
    )
    assert len(data) == count
    assert np.array_equal(data.data, images)
    assert np.array_equal(data.targets, labels)
    assert data.classes == list(digits.class_names)


@pytest.mark.parametrize(
    "folder", [pytest.param("mnist", id="ours"), pytest.param("MNIST/raw", id="torchvision's")]
)
def test_it_is_found_where_it_was_downloaded(folder, small, write_manifest, tmp_path, monkeypatch):
    write_manifest("http://127.0.0.1:1/")
    small.put(tmp_path / "root" / folder, packed=False)
    monkeypatch.setenv("CHAINRULE_DATA", str(tmp_path / "root"))
    data = IdxDataset.from_name(train=False)
    assert len(data) == 40
    assert data.images_path == tmp_path / "root" / folder / "t10k-images-idx3-ubyte"
    (tmp_path / "root" / folder / "train-images-idx3-ubyte").write_bytes(b"damaged")
    with pytest.raises(ChainruleError, match="train-images-idx3-ubyte: not the published file"):
        IdxDataset.from_name(train=False)


def test_a_name_that_is_not_known_or_not_here(tmp_path):
    with pytest.raises(WrongUsage, match=r"unknown data set 'mnits': .* Did you mean 'mnist'\?"):
        IdxDataset.from_name("mnits")
    with pytest.raises(ChainruleError, match=r"MNIST is not in .*mnist: `.*download.*` brings it"):
        IdxDataset.from_name("mnist", root=tmp_path)


def test_real_fashion_mnist(shared):
    data = IdxDataset.from_name("fashion-mnist", train=False, root=shared)
    assert data.classes[9] == "Ankle boot"
    assert torch.equal(torch.bincount(data.targets), torch.full((10,), 1000))


# -- DataLoader -----------------------------------------------------------------------------------------


def batches(data, **options):
    generator = torch.Generator().manual_seed(5)
    return list(DataLoader(data, batch_size=16, shuffle=True, generator=generator, **options))


def test_the_order_is_that_of_the_seed(paths):
    first, second = batches(IdxDataset(*paths)), batches(IdxDataset(*paths))
    for (images, labels), (same_images, same_labels) in zip(first, second, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)
    labels = torch.cat([labels for _, labels in first])
    assert labels.tolist() != LABELS.tolist()
    assert sorted(labels.tolist()) == sorted(LABELS.tolist())


@pytest.mark.parametrize("paths", ["images"], indirect=True)  # starting processes is slow
def test_workers_give_the_same_batches(paths):
    data = IdxDataset(*paths)
    # Spawned, they get a pickled copy, on every system and with every Python.
    parallel = batches(data, num_workers=2, multiprocessing_context="spawn")
    for (images, labels), (same_images, same_labels) in zip(batches(data), parallel, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_a_pickled_copy_carries_no_images(paths):
    data = IdxDataset(*paths)
    pickled = pickle.dumps(data)
    assert len(pickled) < IMAGES.nbytes / 10
    copy = pickle.loads(pickled)
    assert torch.equal(copy[7][0], data[7][0])
    assert copy.classes == data.classes


def test_a_mapped_file_is_not_copied(tmp_path):
    idx.write(tmp_path / "images", IMAGES)
    idx.write(tmp_path / "labels", LABELS)
    data = IdxDataset(tmp_path / "images", tmp_path / "labels")
    assert not data._images.flags.owndata
    assert not data._images.flags.writeable


def test_a_subset_of_it(paths):
    ((images, labels),) = DataLoader(Subset(IdxDataset(*paths), [7, 3]), batch_size=2)
    assert labels.tolist() == [3, LABELS[3]]
    assert images.shape == (2, 1, 28, 20)


# -- Errors ---------------------------------------------------------------------------------------------


def error(tmp_path, images=IMAGES, labels=LABELS, kind=ValueError, **options):
    for name, array in (("images", images), ("labels", labels)):
        path = tmp_path / name
        path.write_bytes(array) if isinstance(array, bytes) else idx.write(path, array)
    with pytest.raises(kind) as caught:
        IdxDataset(tmp_path / "images", tmp_path / "labels", **options)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_what_does_not_fit_is_said(tmp_path):
    assert error(tmp_path, labels=LABELS[:-1]) == (
        "labels: found 49 labels, expected as many as the 50 images of images"
    )
    assert error(tmp_path, images=IMAGES.astype(np.float32)) == (
        "images: expected images, uint8 of shape (N, H, W), found float32 of shape (50, 28, 20)"
    )
    assert "found uint8 of shape (50,)" in error(tmp_path, images=LABELS)
    assert error(tmp_path, labels=LABELS.astype(np.float32)) == (
        "labels: expected labels, whole numbers of shape (N,), found float32 of shape (50,)"
    )
    assert "found uint8 of shape (50, 28, 20)" in error(tmp_path, labels=IMAGES)
    assert error(tmp_path, labels=LABELS.astype(np.int8) - 1) == "labels: found label -1, expected 0 or more"
    assert error(tmp_path, classes=["a", "b", "c"]) == "labels: found label 3, expected 0 to 2"


def test_labels_of_other_integers_are_taken(tmp_path):
    idx.write(tmp_path / "images", IMAGES)
    for dtype in (np.int8, np.int16, np.int32):
        idx.write(tmp_path / "labels", LABELS.astype(dtype))
        assert IdxDataset(tmp_path / "images", tmp_path / "labels")[7][1] == 3


def test_damaged_files_are_found_at_once(tmp_path):
    idx.write(tmp_path / "images", IMAGES)
    content = (tmp_path / "images").read_bytes()
    assert "images" in error(tmp_path, images=content[:-1], kind=idx.IdxError)
    packed = bytearray(gzip.compress(content, mtime=0))
    packed[-6] ^= 1  # in the checksum
    assert "images" in error(tmp_path, images=bytes(packed), kind=idx.IdxError)
    (tmp_path / "images").unlink()
    with pytest.raises(FileNotFoundError):
        IdxDataset(tmp_path / "images", tmp_path / "labels")


def test_no_images_at_all(tmp_path):
    idx.write(tmp_path / "images", IMAGES[:0])
    idx.write(tmp_path / "labels", LABELS[:0])
    data = IdxDataset(tmp_path / "images", tmp_path / "labels")
    assert (len(data), data.classes, list(data)) == (0, [], [])
