"""Lesson 1: what a data set is made of, from the bytes of a file to what a network is given."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(app_title="1. From bytes to digits")


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    # 1. From bytes to digits

    A network sees numbers, not pictures. This lesson follows one handwritten digit from the bytes of a file
    to the numbers that a network is given, and answers on the way: what the bytes mean, how a *tensor*
    differs from an *array*, and what `ToTensor` and `Normalize` are for.

    You need to know a little NumPy. The digits are the 1,797 that come with `chainrule`, in the same format
    as MNIST, so everything here holds for MNIST as well.
    """)
    return


@app.cell
def _():
    import gzip

    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np
    import torch

    import idx
    import nn_reference as nn
    from chainrule import datasets
    from chainrule.normalisation import pixel_statistics

    return datasets, gzip, idx, mo, nn, np, pixel_statistics, plt, torch


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## The bytes

    The images lie in a gzip-compressed file. Unpacked, it begins like this:
    """)
    return


@app.cell
def _(datasets, gzip):
    path = datasets.embedded() / "t10k-images-idx3-ubyte.gz"
    raw = gzip.decompress(path.read_bytes())
    raw[:16].hex(" ")
    return path, raw


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    This is the **IDX format**, and it says what follows:

    | bytes | here | meaning |
    | --- | --- | --- |
    | 0 and 1 | `00 00` | always zero |
    | 2 | `08` | the type of an element: unsigned bytes |
    | 3 | `03` | the number of dimensions |
    | 4 to 7 | first size | how many images |
    | 8 to 11 | second size | rows of an image |
    | 12 to 15 | third size | columns of an image |
    | 16 ... | the pixels | row after row, 0 = paper, 255 = ink |

    So a reader is a few lines. Each size is a 4-byte integer with its *big* end first.
    """)
    return


@app.cell
def _(np, raw):
    sizes = [int.from_bytes(raw[i : i + 4], "big") for i in (4, 8, 12)]
    by_hand = np.frombuffer(raw, dtype=np.uint8, offset=16).reshape(sizes)
    by_hand.shape, by_hand.dtype
    return by_hand, sizes


@app.cell(hide_code=True)
def _(mo, raw, sizes):
    mo.md(f"""
    Most computers store integers with the little end first. Reading the first size that way gives
    {int.from_bytes(raw[4:8], "little"):,} images instead of {sizes[0]}: a wrong byte order rarely raises an
    error, it gives wrong numbers.

    The package `idx` reads the same and checks everything that can be checked:
    """)
    return


@app.cell
def _(by_hand, idx, np, path):
    images = idx.read(path)
    np.array_equal(images, by_hand)
    return (images,)


@app.cell
def _(idx, raw):
    try:
        idx.read(raw[:-100])  # a download that broke off
    except idx.IdxError as _error:
        broken = str(_error)
    broken
    return (broken,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Two shares of the data, two jobs

    The network learns from the *training* images; the *test* images are only ever used to see how well it
    does on digits that it has not seen. There are four files, images and labels of both; `datasets` reads
    them all:
    """)
    return


@app.cell
def _(datasets):
    data = datasets.load("digits")
    labels = data.test_labels
    data.train_images.shape, data.test_images.shape
    return data, labels


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## An image is an array

    Move the slider. The picture and the numbers are the same thing.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    which = mo.ui.slider(0, 9, value=3, label="image", show_value=True)
    which
    return (which,)


@app.cell(hide_code=True)
def _(images, labels, plt, which):
    picture, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.2), width_ratios=(1, 1.6))
    left.imshow(images[which.value], cmap="gray_r")
    left.set_title(f"labelled {labels[which.value]}")
    _part = images[which.value][9:17, 9:19]
    right.imshow(_part, cmap="gray_r", vmin=0, vmax=255)
    for _r, _row in enumerate(_part):
        for _c, _pixel in enumerate(_row):
            right.text(_c, _r, _pixel, ha="center", va="center", color="white" if _pixel > 128 else "black")
    right.set_title("its rows 9 to 16, columns 9 to 18")
    for _axes in (left, right):
        _axes.set_axis_off()
    picture
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Arrays and tensors

    A **tensor** in PyTorch is what an **array** is in NumPy: numbers of one type in a grid of any number of
    dimensions. (In mathematics a tensor is more than that; in this field the word just means "array".)
    `from_numpy` does not even copy: both names look at the same memory.
    """)
    return


@app.cell
def _(np, torch):
    array = np.zeros(3)
    tensor = torch.from_numpy(array)
    array[0] = 7.0  # write through one ...
    tensor  # ... and see it through the other
    return array, tensor


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    What a tensor has beyond the array:

    | | NumPy array | PyTorch tensor |
    | --- | --- | --- |
    | where it lives | main memory | `.device`: main memory or a GPU |
    | gradients | none: you write `backward` yourself | `.requires_grad`: it remembers how it was computed |
    | usual type | `float64` | `float32` |

    The second line is what these lessons are about. `nn_reference` uses arrays and makes you call
    `backward`, so that nothing is hidden; PyTorch does the same arithmetic behind `.backward()`.

    ## What `ToTensor` does, and why

    Pixels are bytes, and bytes cannot be computed with: they wrap around at 256 without a word.
    """)
    return


@app.cell
def _(np):
    wrapped = np.array([200], np.uint8) + np.array([100], np.uint8)
    wrapped  # 300 - 256
    return (wrapped,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    So the first thing to do is to convert. torchvision's `ToTensor` does three things at once: it makes the
    numbers `float32`, divides by 255 so that they lie between 0 and 1, and puts the channels first, (H, W,
    C) to (C, H, W). A grey image has one channel:
    """)
    return


@app.cell
def _(np):
    def to_tensor(image):
        """Do for a grey uint8 image (H, W) what torchvision's ToTensor does: float32 (1, H, W) in 0..1."""
        return (image.astype(np.float32) / 255)[None]

    return (to_tensor,)


@app.cell
def _(images, to_tensor):
    one = to_tensor(images[3])
    one.shape, one.dtype, one.min(), one.max()
    return (one,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## What `Normalize` does, and why

    `Normalize(mean, std)` is $x \mapsto (x - \text{mean}) / \text{std}$: afterwards the pixels of the
    training set have mean 0 and standard deviation 1. The famous 0.1307 and 0.3081 are nothing magical:
    they are these two numbers for MNIST's training images. For our digits they are
    """)
    return


@app.cell
def _(data, pixel_statistics):
    statistics = pixel_statistics(data.train_images)
    round(statistics.mean, 4), round(statistics.std, 4)
    return (statistics,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Does it matter? Let us train the smallest network there is, one layer, with the same learning rate on the
    same digits in three scales. (How training works is lesson 6; here only the result counts.)
    """)
    return


@app.cell
def _(data, nn, np):
    def loss_after(x, learning_rate=0.1, epochs=3):
        """Train one layer on images x (N, 784) and return its loss before and after."""
        network = nn.Linear(784, 10, generator=np.random.default_rng(0))
        criterion = nn.CrossEntropyLoss()
        optimizer = nn.optim.SGD(network.parameters(), lr=learning_rate)
        losses = [float(criterion(network(x), data.train_labels))]
        rng = np.random.default_rng(1)
        for _ in range(epochs):
            for batch in np.split(rng.permutation(len(x)), range(64, len(x), 64)):
                network.zero_grad()
                criterion(network(x[batch]), data.train_labels[batch])
                network.backward(criterion.backward(), input_grad=False)
                optimizer.step()
        losses.append(float(criterion(network(x), data.train_labels)))
        return losses

    return (loss_after,)


@app.cell
def _(data, loss_after, np, statistics):
    flat = data.train_images.reshape(-1, 784).astype(np.float32)
    scaled = flat / 255
    scales = {
        "0 to 255, as in the file": loss_after(flat),
        "0 to 1, as ToTensor": loss_after(scaled),
        "mean 0, std 1, as Normalize": loss_after((scaled - statistics.mean) / statistics.std),
    }
    return (scales,)


@app.cell(hide_code=True)
def _(mo, scales):
    mo.md(
        "| pixels | loss before | loss after 3 epochs |\n| --- | --- | --- |\n"
        + "\n".join(f"| {name} | {before:.3f} | {after:.3f} |" for name, (before, after) in scales.items())
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    With raw bytes the network is sure of nonsense before it has learnt anything, each step is far too long,
    and the loss explodes. Between the other two it is a matter of speed: a weight's gradient is
    proportional to its input, so inputs of a common size mean that one learning rate suits all weights.

    Two rules follow. Compute mean and standard deviation on the **training** images only (the test images
    are not supposed to be known), and apply the *same* two numbers to every image that the network will
    ever see. A digit of your own that is not normalised in the same way looks to the network like nothing
    that it has learnt.

    ## How many of each?

    Always look at the labels before you train. If 90 % of them were zeros, a network that always says
    "zero" would be right 90 % of the time (lesson 5).
    """)
    return


@app.cell(hide_code=True)
def _(data, np, plt):
    counts = np.bincount(data.train_labels, minlength=10)
    bars, _axes = plt.subplots(figsize=(6.2, 2.4), layout="constrained")
    _axes.bar(range(10), counts)
    _axes.set(xlabel="digit", ylabel="training images", xticks=range(10))
    bars
    return (counts,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Exercise

    The labels lie in a file of their own, `t10k-labels-idx1-ubyte.gz`: one dimension, so one size, and then
    one byte for each label. Write `read_labels` so that it reads any IDX file of unsigned bytes, whatever
    its number of dimensions. The cell below compares with `idx.read`.

    /// details | A hint
    Byte 3 is the number of dimensions $d$. The sizes are at 4, 8, ..., and the elements begin at $4 + 4d$.
    ///
    """)
    return


@app.cell
def _(np):
    def read_labels(raw):
        """Return the array in the bytes of an IDX file of unsigned bytes. Your turn."""
        return np.zeros(3, np.uint8)

    return (read_labels,)


@app.cell
def _(datasets, gzip, idx, np, read_labels):
    verdicts = {}
    for _name in ("t10k-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz"):
        _file = datasets.embedded() / _name
        _right, _yours = idx.read(_file), read_labels(gzip.decompress(_file.read_bytes()))
        verdicts[_name] = (
            "right" if np.array_equal(_yours, _right) else f"not yet: expected shape {_right.shape}"
        )
    verdicts
    return (verdicts,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    On the command line: `idx info FILE` shows the header of a file, `idx show FILE` draws its images in the
    terminal, and `idx verify FILE` finds what is broken. `docs/idx-format.md` describes the format in full.
    """)
    return


if __name__ == "__main__":
    app.run()
