"""Lesson 4: a layer as a matrix product, its shapes forward and backward, and the batch."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(app_title="4. A layer as a matrix, shapes and the batch")


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    # 4. A layer as a matrix, shapes and the batch

    A layer is many neurons that see the same inputs. Written one neuron at a time it is three nested loops;
    written as a matrix product it is one line, and its gradient three. Most mistakes here are mistakes of
    *shape*, so the shapes come first.
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
    from nn_reference import linear

    return agreement, datasets, linear, mo, nn, np, plt


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## From neurons to a product

    Neuron $j$ has a weight for each input $i$ and a bias. For example $n$ of a batch,

    $$y_{nj} = \sum_i x_{ni}\, W_{ji} + b_j \qquad\text{that is}\qquad Y = X W^T + b$$

    with $X$ of shape (N, in), $W$ (out, in) as in PyTorch, $b$ (out,), and $Y$ (N, out). The loops and
    the product give the same:
    """)
    return


@app.cell
def _(linear, np):
    rng = np.random.default_rng(0)
    N, IN, OUT = 4, 3, 2
    x = rng.normal(size=(N, IN))
    weight = rng.normal(size=(OUT, IN))
    bias = rng.normal(size=OUT)

    looped = np.empty((N, OUT))
    for n in range(N):  # each example
        for j in range(OUT):  # each neuron
            total = bias[j]
            for i in range(IN):  # each input
                total += x[n, i] * weight[j, i]
            looped[n, j] = total

    y, cache = linear.forward(x, weight, bias)
    float(np.abs(y - looped).max())
    return IN, N, OUT, bias, cache, looped, rng, weight, x, y


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Backward: let the shapes tell you

    Upstream comes $G = \partial L/\partial Y$, in the shape of $Y$. Wanted are gradients in the shapes of
    $X$, $W$ and $b$. A gradient always has **the shape of what it is the gradient of**, and there is only
    one way to multiply the matrices at hand so that the shapes fit:

    $$\frac{\partial L}{\partial X} = G\,W \quad (N, in) = (N, out)(out, in)$$

    $$\frac{\partial L}{\partial W} = G^T X \quad (out, in) = (out, N)(N, in)$$

    $$\frac{\partial L}{\partial b} = \sum_n G_n \quad (out) = \text{sum of } (N, out) \text{ over } N$$

    Shapes are a help to memory, not a proof. The proof is the chain rule: $W_{ji}$ acts on $y_{nj}$ of
    *every* example $n$, with the local derivative $x_{ni}$, and paths add up:

    $$\frac{\partial L}{\partial W_{ji}} = \sum_n G_{nj}\, x_{ni}$$

    That sum over the batch is the product $G^T X$. The engine's `backward` is these three lines; here
    beside loops:
    """)
    return


@app.cell
def _(IN, N, OUT, cache, linear, np, rng, x):
    upstream = rng.normal(size=(N, OUT))
    grad_x, grad_weight, grad_bias = linear.backward(cache, upstream)

    grad_weight_looped = np.zeros((OUT, IN))
    for _n in range(N):
        for _j in range(OUT):
            for _i in range(IN):
                grad_weight_looped[_j, _i] += upstream[_n, _j] * x[_n, _i]  # += : paths add up

    float(np.abs(grad_weight - grad_weight_looped).max())
    return grad_bias, grad_weight, grad_weight_looped, grad_x, upstream


@app.cell(hide_code=True)
def _(grad_bias, grad_weight, grad_x, mo, upstream):
    mo.md(f"""
    | | shape of the value | shape of its gradient |
    | --- | --- | --- |
    | output | (4, 2) | {upstream.shape} |
    | x | (4, 3) | {grad_x.shape} |
    | weight | (2, 3) | {grad_weight.shape} |
    | bias | (2,) | {grad_bias.shape} |
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## The trap: broadcasting

    In forward `+ bias` adds one row to all rows: NumPy *broadcasts* it. What is repeated in forward must be
    **summed** in backward, that is why $\partial L/\partial b$ is a sum.

    Broadcasting also hides mistakes. A column minus a row is no error but a whole matrix:
    """)
    return


@app.cell
def _(np):
    prediction = np.zeros((5, 1))  # a network with one output
    target = np.zeros(5)  # labels as they come from a file
    difference = prediction - target
    difference.shape
    return (difference,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    The mean of its squares is a number, training runs, and the network learns the mean of all targets for
    every example. `nn_reference.MSELoss` refuses such a pair:
    """)
    return


@app.cell
def _(nn, np):
    try:
        nn.MSELoss()(np.zeros((5, 1)), np.zeros(5))
    except ValueError as _error:
        refusal = str(_error)
    refusal
    return (refusal,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Why batches?

    The loss that we want to lower is the mean over *all* examples, and so is its gradient. Why not use all
    of them for each step? Because a few give nearly the same direction for a fraction of the work. And why
    not one? Because one alone points anywhere. Let us measure: how far is the gradient of a random batch
    from the gradient of all 1,500 training images?
    """)
    return


@app.cell
def _(datasets, nn, np):
    data = datasets.load("digits")
    digits = data.train_images.reshape(-1, 784).astype(np.float32) / 255
    network = nn.Sequential(
        nn.Linear(784, 32, generator=np.random.default_rng(0)),
        nn.ReLU(),
        nn.Linear(32, 10, generator=np.random.default_rng(1)),
    )
    criterion = nn.CrossEntropyLoss()

    def gradient_of(batch):
        """Return the gradient of the mean loss over a batch, as one vector."""
        network.zero_grad()
        criterion(network(digits[batch]), data.train_labels[batch])
        network.backward(criterion.backward(), input_grad=False)
        return np.concatenate([parameter.grad.reshape(-1) for parameter in network.parameters()])

    return data, digits, gradient_of


@app.cell
def _(data, gradient_of, np):
    of_all = gradient_of(slice(None))
    batch_sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    _rng = np.random.default_rng(2)
    distances = {
        size: [
            float(
                np.linalg.norm(gradient_of(_rng.choice(len(data.train_labels), size, replace=False)) - of_all)
                / np.linalg.norm(of_all)
            )
            for _ in range(12)
        ]
        for size in batch_sizes
    }
    noise = {size: float(np.mean(of)) for size, of in distances.items()}
    return batch_sizes, distances, noise


@app.cell(hide_code=True)
def _(batch_sizes, distances, noise, np, plt):
    spread, _axes = plt.subplots(figsize=(6.6, 3.2), layout="constrained")
    for _size, _of in distances.items():
        _axes.loglog([_size] * len(_of), _of, ".", color="#0072B2", alpha=0.5)
    _axes.loglog(
        batch_sizes, noise[1] / np.sqrt(batch_sizes), "--", color="#D55E00", label="one over the square root"
    )
    _axes.set(xlabel="examples in the batch", ylabel="relative distance to the full gradient")
    _axes.legend()
    spread
    return


@app.cell(hide_code=True)
def _(mo, noise):
    mo.md(f"""
    A single example's gradient is off by {noise[1]:.1f} times the length of the gradient itself; that of 16
    by {noise[16]:.1f}, of 64 by {noise[64]:.1f}, of 256 by {noise[256]:.2f}. Four times the work halves the
    error (the square-root law of every mean; at the end it falls faster, as a batch is then a large part of
    the 1,500 images). 64 examples point roughly downhill, and for the price of one exact step one takes 23
    such steps. There is a bonus: a little noise keeps training from settling into the first hollow.

    The other half of the answer is the machine: for a batch the layer reads its weights from memory once
    and uses them N times, so 64 examples cost much less than 64 times one example.

    ## Must it be a power of two?

    No. The habit comes from hardware, which multiplies matrices in tiles (of 8, 16 or 32): on a GPU a size
    that is a *multiple* of the tile wastes nothing. For what is learnt it does not matter, as this shows:
    the test accuracy after eight epochs.
    """)
    return


@app.cell
def _(data, digits, nn, np):
    def accuracy_with(batch_size, epochs=8):
        """Train 784-32-10 and return its test accuracy."""
        generator = np.random.default_rng(0)
        net = nn.Sequential(
            nn.Linear(784, 32, generator=generator), nn.ReLU(), nn.Linear(32, 10, generator=generator)
        )
        loss = nn.CrossEntropyLoss()
        optimizer = nn.optim.Adam(net.parameters(), lr=3e-3)
        order = np.random.default_rng(1)
        for _ in range(epochs):
            for batch in np.split(order.permutation(len(digits)), range(batch_size, len(digits), batch_size)):
                net.zero_grad()
                loss(net(digits[batch]), data.train_labels[batch])
                net.backward(loss.backward(), input_grad=False)
                optimizer.step()
        test = data.test_images.reshape(-1, 784).astype(np.float32) / 255
        return float(np.mean(net(test).argmax(1) == data.test_labels))

    by_size = {size: accuracy_with(size) for size in (60, 64, 67, 100, 128)}
    return (by_size,)


@app.cell(hide_code=True)
def _(by_size, data, mo):
    _n = len(data.test_labels)
    mo.md(
        "| batch size | test accuracy |\n| --- | --- |\n"
        + "\n".join(f"| {size} | {accuracy:.1%} |" for size, accuracy in by_size.items())
        + f"\n\nBetween best and worst lie {_n * (max(by_size.values()) - min(by_size.values())):.0f} "
        f"of {_n} "
        "test images: chance. "
        "(Lesson 5 computes how much chance there is in an accuracy.)"
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Exercise

    Write the backward of a layer, without looking up. One of the three gradients below is right; the other
    two have the right shape and the wrong values, which is worse than an error. The check tells which.
    """)
    return


@app.cell
def _(np):
    def forward(x, weight, bias):
        """Return y (N, out) for x (N, in), weight (out, in) and bias (out,), and what backward needs."""
        return x @ weight.T + bias, (x, weight)

    def backward(cache, grad_y):
        """Return the gradients of x, weight and bias. Your turn."""
        x, _weight = cache
        grad_x = np.zeros_like(x)
        grad_weight = grad_y.T @ x
        grad_bias = grad_y.mean(0)
        return grad_x, grad_weight, grad_bias

    return backward, forward


@app.cell
def _(agreement, backward, forward):
    verdict = agreement.check_gradients((forward, backward), [(5, 3), (2, 3), (2,)])
    str(verdict)
    return (verdict,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Then: `chainrule grade linear my_linear.py`, and for the sum over the batch alone `chainrule grade
    broadcast-bias my_bias.py`. The engine's own version is `nn_reference/linear.py`.
    """)
    return


if __name__ == "__main__":
    app.run()
