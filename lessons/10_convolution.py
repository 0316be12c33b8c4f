"""Lesson 10: convolution, pooling, receptive fields and feature maps, and a network that uses them."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(app_title="10. Convolution, pooling, feature maps")


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    # 10. Convolution, pooling, feature maps

    So far the network did not know that pixels have neighbours: shuffle all 784 of them in the same way,
    and it learns as well as before. A convolution looks at a small window, and uses *the same* few weights
    at every place. This lesson builds one by hand, shows what its kernels see, why they are mostly 3x3, and
    trains a network of them.
    """)
    return


@app.cell
def _():
    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np

    import agreement
    import nn_reference as nn
    from chainrule import datasets

    return agreement, datasets, mo, nn, np, plt


@app.cell
def _(datasets, np):
    data = datasets.load("digits")
    images = (
        data.train_images[:, None].astype(np.float32) / 255
    )  # (1500, 1, 28, 28): N, channels, rows, columns
    test_images = data.test_images[:, None].astype(np.float32) / 255
    images.shape
    return data, images, test_images


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## A window slides over the image

    At each place the kernel's weights are multiplied with the pixels below, and added up:

    $$y_{rc} = b + \sum_{i,j} k_{ij}\, x_{r+i,\; c+j}$$

    (In mathematics a convolution flips the kernel first, and this is a *cross-correlation*. The field calls
    it convolution all the same; as the kernel is learnt, it makes no difference.) By hand it is two loops;
    the engine's `Conv2d` gives the same.
    """)
    return


@app.cell
def _(images, nn, np):
    def convolve(image, kernel):
        """Return the weighted sums of all windows of an image (H, W) under a kernel (kh, kw)."""
        rows, columns = image.shape[0] - kernel.shape[0] + 1, image.shape[1] - kernel.shape[1] + 1
        out = np.empty((rows, columns), image.dtype)
        for r in range(rows):
            for c in range(columns):
                out[r, c] = (kernel * image[r : r + kernel.shape[0], c : c + kernel.shape[1]]).sum()
        return out

    layer = nn.Conv2d(1, 1, 3, bias=False, generator=np.random.default_rng(0))
    by_hand = convolve(images[0, 0], layer.weight.data[0, 0])
    by_layer = layer(images[:1])[0, 0]
    by_layer.shape, float(np.abs(by_hand - by_layer).max())
    return by_hand, by_layer, convolve


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    A kernel answers where the image looks like the kernel itself. Choose one.
    """)
    return


@app.cell
def _(np):
    kernels = {
        "upper edges": np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]]),
        "left edges": np.array([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]]),
        "outline": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]),
        "blur": np.ones((3, 3)) / 9,
        "nothing": np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    }
    return (kernels,)


@app.cell(hide_code=True)
def _(kernels, mo):
    kernel = mo.ui.dropdown(list(kernels), value="upper edges", label="kernel")
    digit = mo.ui.slider(0, 3, value=2, label="image", show_value=True)
    mo.hstack([kernel, digit])
    return digit, kernel


@app.cell(hide_code=True)
def _(convolve, digit, images, kernel, kernels, np, plt):
    _image, _k = images[digit.value, 0], kernels[kernel.value]
    _map = convolve(_image, _k)
    windows, (_left, _middle, _right) = plt.subplots(1, 3, figsize=(7.5, 2.7), width_ratios=(1, 0.6, 1))
    _left.imshow(_image, cmap="gray_r")
    _left.set_title("image, 28x28")
    _middle.imshow(_k, cmap="RdBu_r", vmin=-np.abs(_k).max(), vmax=np.abs(_k).max())
    for (_r, _c), _value in np.ndenumerate(_k):
        _ink = "white" if abs(_value) > 0.6 * np.abs(_k).max() else "black"
        _middle.text(_c, _r, f"{_value:.2g}", ha="center", va="center", color=_ink)
    _middle.set_title("kernel, 3x3")
    _right.imshow(_map, cmap="RdBu_r", vmin=-np.abs(_map).max(), vmax=np.abs(_map).max())
    _right.set_title(f"{kernel.value}, 26x26")
    for _axes in (_left, _middle, _right):
        _axes.set_axis_off()
    windows
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Sizes

    A window of $k$ pixels fits $n - k + 1$ times into $n$ pixels. With a border of $p$ zeros on each side
    (*padding*) and steps of $s$ (*stride*):

    $$n' = \left\lfloor \frac{n + 2p - k}{s} \right\rfloor + 1$$
    """)
    return


@app.cell
def _(images, nn):
    sizes = {
        "3x3": nn.Conv2d(1, 1, 3)(images[:1]).shape,
        "3x3, padding 1": nn.Conv2d(1, 1, 3, padding=1)(images[:1]).shape,
        "5x5, padding 2": nn.Conv2d(1, 1, 5, padding=2)(images[:1]).shape,
        "3x3, stride 2, padding 1": nn.Conv2d(1, 1, 3, stride=2, padding=1)(images[:1]).shape,
        "max pooling 2x2": nn.MaxPool2d(2)(images[:1]).shape,
    }
    sizes
    return (sizes,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Why 3x3?

    A kernel of odd size has a middle, so padding of $(k-1)/2$ keeps the image's size; 3 is the smallest odd
    size that sees neighbours. And small kernels **add up**: two 3x3 layers see 5x5 pixels, three see 7x7.
    Backpropagation shows it. Send a gradient of 1 into one output pixel, and look which input pixels get a
    gradient at all: its *receptive field*.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    depth = mo.ui.slider(1, 6, value=2, label="layers of 3x3", show_value=True)
    depth
    return (depth,)


@app.cell
def _(nn, np):
    def receptive_field(layers, size=3):
        """Return the gradient (21, 21) of the middle output pixel with respect to the input."""
        network = nn.Sequential(
            *(nn.Conv2d(1, 1, size, padding=size // 2, bias=False, dtype=np.float64) for _ in range(layers))
        )
        for parameter in network.parameters():
            parameter.data[...] = 1.0
        y = network(np.zeros((1, 1, 21, 21)))
        upstream = np.zeros_like(y)
        upstream[0, 0, 10, 10] = 1.0
        return network.backward(upstream)[0, 0]

    return (receptive_field,)


@app.cell(hide_code=True)
def _(depth, plt, receptive_field):
    _field = receptive_field(depth.value)
    _side = int((_field[10] != 0).sum())
    field, _axes = plt.subplots(figsize=(3.2, 3.2))
    _axes.imshow(_field, cmap="Blues")
    _axes.set(xticks=[], yticks=[], title=f"{depth.value} layers see {_side}x{_side} pixels")
    field
    return


@app.cell
def _(receptive_field):
    seen = {n: int((receptive_field(n)[10] != 0).sum()) for n in range(1, 7)}
    one_five = int((receptive_field(1, size=5)[10] != 0).sum())
    seen, one_five
    return one_five, seen


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    With $C$ channels in and out, one 5x5 layer has $25\,C^2$ weights; two 3x3 layers see the same with
    $18\,C^2$, and have a non-linearity more between them. Fewer weights, more bends: hence 3x3.

    ## Backward: the same weight at every place

    The kernel's weight $k_{ij}$ is used at each place of each image. Paths add up (lesson 2):

    $$\frac{\partial L}{\partial k_{ij}} = \sum_{n,r,c} g_{nrc}\, x_{n,\, r+i,\, c+j}$$

    which is again a convolution: of the image with the gradient.
    """)
    return


@app.cell
def _(convolve, images, nn, np):
    shared = nn.Conv2d(1, 1, 3, bias=False, generator=np.random.default_rng(0))
    _y = shared(images[:1])
    _g = np.random.default_rng(1).normal(size=_y.shape).astype(np.float32)
    shared.backward(_g)
    kernel_gradient = convolve(images[0, 0], _g[0, 0])  # the gradient as a 26x26 kernel
    weight_gap = float(
        np.abs(kernel_gradient - shared.weight.grad[0, 0]).max() / np.abs(kernel_gradient).max()
    )
    kernel_gradient.shape, weight_gap
    return (weight_gap,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Pooling

    **Max pooling** keeps the largest of each 2x2 window: a quarter of the pixels, and what was found may
    move by a pixel. It has no weights. Its gradient goes to the winner alone; the others did not matter,
    and get 0.
    """)
    return


@app.cell
def _(nn, np):
    pool = nn.MaxPool2d(2)
    _x = np.array([[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 8.0, 6.0]])[None, None]
    pooled = pool(_x)[0, 0]
    pool_gradient = pool.backward(np.array([[[[10.0, 20.0]]]]))[0, 0]
    pooled, pool_gradient
    return pool_gradient, pooled


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## A convolutional network

    Two convolutions, each followed by ReLU and pooling: 28, 14, 7 pixels, 8 and 16 channels. Beside it a
    network without convolutions, trained in the same way for six epochs. Then both see the test images
    **moved to the right**.
    """)
    return


@app.cell
def _(data, images, nn, np):
    def with_convolutions(generator):
        """Return 1-8-16 channels, then 784-10."""
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, generator=generator),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1, generator=generator),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 7 * 7, 10, generator=generator),
        )

    def without(generator):
        """Return 784-64-10."""
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 64, generator=generator),
            nn.ReLU(),
            nn.Linear(64, 10, generator=generator),
        )

    def train(build, epochs=6):
        """Return a network trained on the digits."""
        network, criterion = build(np.random.default_rng(0)), nn.CrossEntropyLoss()
        optimizer, order = nn.optim.Adam(network.parameters(), lr=3e-3), np.random.default_rng(1)
        for _ in range(epochs):
            for batch in order.permutation(len(images)).reshape(-1, 50):
                optimizer.zero_grad()
                criterion(network(images[batch]), data.train_labels[batch])
                network.backward(criterion.backward(), input_grad=False)
                optimizer.step()
        return network.eval()

    networks = {"with convolutions": train(with_convolutions), "without": train(without)}
    return (networks,)


@app.cell
def _(data, networks, nn, np, test_images):
    def moved_accuracy(network, pixels):
        """Return the accuracy on the test images moved to the right."""
        moved = np.zeros_like(test_images)
        moved[..., pixels:] = test_images[..., : 28 - pixels]
        with nn.no_grad():
            return float(np.mean(network(moved).argmax(1) == data.test_labels))

    weights = {name: sum(p.data.size for p in network.parameters()) for name, network in networks.items()}
    moved = {
        name: [moved_accuracy(network, pixels) for pixels in range(5)] for name, network in networks.items()
    }
    return moved, weights


@app.cell(hide_code=True)
def _(mo, moved, weights):
    mo.md(
        "| network | weights | moved by 0 pixels | 1 | 2 | 3 | 4 |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {name} | {weights[name]:,} | " + " | ".join(f"{a:.1%}" for a in accuracies) + " |"
            for name, accuracies in moved.items()
        )
        + "\n\nPractically the same accuracy with a fifth of the weights, and it stands a move somewhat "
        "better. But not well: pooling forgives a pixel or two, and the last layer still knows *where* it "
        "expects what. A network becomes robust against what it has seen while training; so move, turn and "
        "stretch the training images (*augmentation*)."
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Feature maps

    What does it make of an image? The eight maps after the first convolution, and eight of the sixteen
    after the second.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    looked_at = mo.ui.slider(0, 7, value=4, label="test image", show_value=True)
    looked_at
    return (looked_at,)


@app.cell(hide_code=True)
def _(data, looked_at, networks, nn, plt, test_images):
    _i, _network = looked_at.value, networks["with convolutions"]
    with nn.no_grad(), nn.Tape(_network) as _tape:
        _scores = _network(test_images[_i : _i + 1])
    maps, _all = plt.subplots(2, 9, figsize=(8.4, 2.3))
    maps.suptitle(f"labelled {data.test_labels[_i]}, read as {_scores.argmax()}")
    for _row, _name in zip(_all, ("1", "4"), strict=True):
        _row[0].imshow(test_images[_i, 0], cmap="gray_r")
        for _axes, _map in zip(_row[1:], _tape[_name].output[0], strict=False):
            _axes.imshow(_map, cmap="gray_r")
    for _axes in _all.flat:
        _axes.set_axis_off()
    maps
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    The first maps are strokes in one direction; the second ones, coarser, are combinations of them.

    ## Exercise

    Write the backward of **2x2 max pooling**, for images whose sides are even. The start below shares the
    gradient equally between the four pixels; that is *average* pooling.

    /// details | A hint
    `windows == y[..., None, None]`, with the right axes, is true at each winner. (The check draws numbers
    without ties; where two pixels are equal, the field gives all to the first.)
    ///
    """)
    return


@app.cell
def _(np):
    def forward(x):
        """Return the largest of each 2x2 window of x (N, H, W), and what backward needs."""
        n, h, w = x.shape
        windows = x.reshape(n, h // 2, 2, w // 2, 2)
        return windows.max((2, 4)), windows

    def backward(windows, grad_y):
        """Return the gradient of x (N, H, W), for grad_y (N, H/2, W/2). Your turn."""
        n, h, _, w, _ = windows.shape
        shared_out = np.broadcast_to(grad_y[:, :, None, :, None] / 4, windows.shape)
        return shared_out.reshape(n, 2 * h, 2 * w)

    return backward, forward


@app.cell
def _(agreement, backward, forward, np):
    verdict = agreement.check_gradients(
        (forward, backward), [np.random.default_rng(0).permutation(32).reshape(2, 4, 4).astype(float)]
    )
    str(verdict)
    return (verdict,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Then: `chainrule grade max-pool2d my_file.py`, `chainrule grade conv2d my_file.py`, and to put
    everything together `chainrule grade mnist my_training.py`. `chainrule train cnn` trains a larger
    one on MNIST.

    That is the last lesson. You have written every part of a network that reads handwriting, and proven it.
    """)
    return


if __name__ == "__main__":
    app.run()
