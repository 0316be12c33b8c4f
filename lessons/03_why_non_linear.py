"""Lesson 3: what activations are for, their derivatives, and how gradients vanish."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(app_title="3. Why non-linear, and which")


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    # 3. Why non-linear, and which

    Between the layers of a network stands a bent function: ReLU, sigmoid, tanh. Why at all? And does it
    matter which? This lesson shows what a network without one cannot do, and then measures what each does
    to the gradient on its way back through many layers.
    """)
    return


@app.cell
def _():
    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np

    import agreement
    import nn_reference as nn
    from nn_reference import gelu, leaky_relu, relu, sigmoid, silu, tanh

    return agreement, gelu, leaky_relu, mo, nn, np, plt, relu, sigmoid, silu, tanh


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Two linear layers are one

    $$W_2 (W_1 x + b_1) + b_2 = (W_2 W_1)\, x + (W_2 b_1 + b_2)$$

    A hundred linear layers on top of each other can do no more than a single one. In numbers:
    """)
    return


@app.cell
def _(nn, np):
    rng = np.random.default_rng(0)
    first = nn.Linear(3, 50, dtype=np.float64, generator=rng)
    second = nn.Linear(50, 2, dtype=np.float64, generator=rng)
    merged_weight = second.weight.data @ first.weight.data
    merged_bias = second.weight.data @ first.bias.data + second.bias.data

    some_x = rng.normal(size=(1000, 3))
    linear_gap = np.abs(second(first(some_x)) - (some_x @ merged_weight.T + merged_bias)).max()
    float(linear_gap)
    return (linear_gap,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## What one layer cannot do

    Four points, two classes: opposite corners belong together (the *exclusive or*). No straight line
    separates them. A network with a hidden layer can, if there is a bend in it.
    """)
    return


@app.cell
def _(nn, np):
    corners = np.array([[0, 0], [1, 1], [0, 1], [1, 0]], dtype=np.float64)  # (4, 2)
    classes = np.array([0, 0, 1, 1])

    def train_on_corners(bend):
        """Train 2-8-2 with the layer ``bend`` in the middle; returns the network and its accuracy."""
        generator = np.random.default_rng(1)
        network = nn.Sequential(
            nn.Linear(2, 8, dtype=np.float64, generator=generator),
            bend,
            nn.Linear(8, 2, dtype=np.float64, generator=generator),
        )
        criterion = nn.CrossEntropyLoss()
        optimizer = nn.optim.SGD(network.parameters(), lr=0.5)
        for _ in range(500):
            network.zero_grad()
            criterion(network(corners), classes)
            network.backward(criterion.backward())
            optimizer.step()
        return network, float(np.mean(network(corners).argmax(1) == classes))

    trained = {
        "no activation": train_on_corners(nn.Identity()),
        "ReLU": train_on_corners(nn.ReLU()),
        "tanh": train_on_corners(nn.Tanh()),
    }
    corner_accuracy = {name: accuracy for name, (_, accuracy) in trained.items()}
    corner_accuracy
    return classes, corner_accuracy, corners, trained


@app.cell(hide_code=True)
def _(classes, corners, nn, np, plt, trained):
    _side = np.linspace(-0.5, 1.5, 81)
    _grid = np.stack(np.meshgrid(_side, _side), -1).reshape(-1, 2)
    regions, _all = plt.subplots(1, 3, figsize=(7.5, 2.6), layout="constrained", sharey=True)
    for _axes, (_name, (_network, _accuracy)) in zip(_all, trained.items(), strict=True):
        _p = nn.Softmax(dim=1)(_network(_grid))[:, 1].reshape(81, 81)
        _axes.imshow(_p, extent=(-0.5, 1.5, -0.5, 1.5), origin="lower", cmap="RdBu", vmin=0, vmax=1)
        for _k, _marker in enumerate("os"):
            _axes.plot(
                *corners[classes == _k].T, _marker, color="black", markerfacecolor="white", markersize=9
            )
        _axes.set_title(f"{_name}: {_accuracy:.0%} right")
        _axes.grid(False)
    regions
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ReLU folds the plane along straight creases; tanh bends it smoothly. Either way the last layer, which is
    linear, finds its straight line in the *folded* plane.

    ## The derivative is what counts

    Going back, a layer multiplies the upstream gradient by the derivative of its activation. So look at the
    derivatives. They are not typed in here: each is the layer's own `backward`, asked with an upstream
    gradient of 1.
    """)
    return


@app.cell
def _(gelu, leaky_relu, np, relu, sigmoid, silu, tanh):
    activations = {
        "ReLU": relu,
        "sigmoid": sigmoid,
        "tanh": tanh,
        "leaky ReLU": leaky_relu,
        "SiLU": silu,
        "GELU": gelu,
    }

    def curve(module, z):
        """Return f(z) and f'(z), from the forward and backward of the reference engine."""
        a, cache = module.forward(z)
        return a, module.backward(cache, np.ones_like(a))

    return activations, curve


@app.cell(hide_code=True)
def _(activations, mo):
    shape = mo.ui.dropdown(list(activations), value="sigmoid", label="activation")
    shape
    return (shape,)


@app.cell(hide_code=True)
def _(activations, curve, np, plt, shape):
    _z = np.linspace(-5, 5, 401)
    _a, _slope = curve(activations[shape.value], _z)
    curves, (_left, _right) = plt.subplots(1, 2, figsize=(7.5, 2.6), layout="constrained")
    _left.plot(_z, _a)
    _left.set(title=f"{shape.value}: f(z)", xlabel="z", ylim=(-1.3, 3.2))
    _right.plot(_z, _slope, color="#D55E00")
    _right.set(title="its derivative f'(z)", xlabel="z", ylim=(-0.3, 1.3))
    _right.axhline(1, color="black", linewidth=0.8, linestyle=":")
    curves
    return


@app.cell
def _(activations, curve, np):
    steepest = {
        name: float(curve(module, np.linspace(-5, 5, 1001))[1].max()) for name, module in activations.items()
    }
    return (steepest,)


@app.cell(hide_code=True)
def _(mo, steepest):
    mo.md(
        "| activation | largest derivative | to the power of 10 layers |\n| --- | --- | --- |\n"
        + "\n".join(f"| {name} | {slope:.3f} | {slope**10:.1e} |" for name, slope in steepest.items())
        + "\n\nThe sigmoid never lets more than a quarter of the gradient through. "
        "tanh lets all of it through, but "
        "only near 0; ReLU lets through all or nothing."
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Vanishing gradients, measured

    That table is an upper bound without the weights. What really happens? We build a deep network, send
    random numbers forward and a random gradient backward, and measure how large the gradient of each
    layer's output is. The weights matter as much as the activation, so choose their initial values too:

    - **torch's default**: uniform within $1/\sqrt{\text{fan in}}$, that is a variance of $1/(3\,\text{fan
      in})$;
    - **Xavier**: variance $2/(\text{fan in} + \text{fan out})$, which keeps the size if the activation does
      nothing;
    - **Kaiming**: variance $2/\text{fan in}$, which makes up for ReLU's losing half of the signal.
    """)
    return


@app.cell
def _(nn, np):
    def gradient_sizes(bend, start, depth=12, width=64):
        """Return the root mean square of the gradient at each layer's output, first layer first."""
        generator = np.random.default_rng(0)
        network = nn.Sequential()
        for _ in range(depth):
            layer = nn.Linear(width, width, generator=generator)
            if start == "Xavier":
                nn.init.xavier_uniform_(layer.weight, generator=generator)
            elif start == "Kaiming":
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            network.append(layer).append(bend())
        x = generator.normal(size=(100, width)).astype(np.float32)
        with nn.Tape(network) as tape:
            y = network(x)
            network.backward(generator.normal(size=y.shape).astype(np.float32))
        calls = [call for call in tape.calls if isinstance(call.layer, nn.Linear)]
        return [float(np.sqrt(np.mean(call.grad_output**2))) for call in calls]

    return (gradient_sizes,)


@app.cell
def _(gradient_sizes, nn):
    starts = ["torch's default", "Xavier", "Kaiming"]
    bends = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "ReLU": nn.ReLU}
    measured = {
        start: {name: gradient_sizes(bend, start) for name, bend in bends.items()} for start in starts
    }
    return measured, starts


@app.cell(hide_code=True)
def _(mo, starts):
    start = mo.ui.dropdown(starts, value="torch's default", label="initial weights")
    start
    return (start,)


@app.cell(hide_code=True)
def _(measured, plt, start):
    vanishing, _axes = plt.subplots(figsize=(6.6, 3.2), layout="constrained")
    for (_name, _sizes), _marker in zip(measured[start.value].items(), "osv", strict=True):
        _axes.semilogy(range(1, len(_sizes) + 1), _sizes, marker=_marker, label=_name)
    _axes.set(xlabel="layer (1 is nearest to the input)", ylabel="size of the gradient", ylim=(1e-13, 10))
    _axes.set_title(start.value)
    _axes.legend()
    vanishing
    return


@app.cell(hide_code=True)
def _(measured, mo):
    mo.md(
        "How much of the gradient of layer 12 is left at layer 1:\n\n"
        "| initial weights | sigmoid | tanh | ReLU |\n| --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {start} | " + " | ".join(f"{sizes[0] / sizes[-1]:.1e}" for sizes in of.values()) + " |"
            for start, of in measured.items()
        )
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    With sigmoids the first layers get a gradient so small that they practically do not learn: this held
    deep networks back for decades. Three remedies, all in use: ReLU and its kin, initial values that fit
    the activation, and normalisation (lesson 9).

    ReLU has a weakness of its own: a unit that is off for *every* example has gradient 0 and stays off, a
    **dead ReLU**. Its leaky relatives let a little through. Let us count: a layer whose biases were pushed
    down by a learning rate that was too high.
    """)
    return


@app.cell
def _(nn, np, relu):
    def dead_share(shift):
        """Return the share of 1,000 ReLU units that are off for all of 500 examples."""
        generator = np.random.default_rng(0)
        layer = nn.Linear(20, 1000, generator=generator)
        layer.bias.data -= shift
        a, _ = relu.forward(layer(generator.normal(size=(500, 20)).astype(np.float32)))
        return float(np.mean((a == 0).all(0)))

    dead = {shift: dead_share(shift) for shift in (0, 1, 2, 3)}
    dead
    return (dead,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    **Which one?** For hidden layers begin with ReLU; take a leaky one, SiLU or GELU where it disappoints.
    Sigmoid and tanh belong where their range is wanted: a probability, or a gate. And the last layer before
    cross-entropy has none at all (lesson 5).

    ## Exercise

    Write the **leaky ReLU**, $f(z) = z$ for $z > 0$, else $0.1\,z$, and its backward. At the kink $z = 0$
    any slope between the two is right; the field takes the one of the negative side. The check below uses
    no other engine: it differentiates your own forward numerically.
    """)
    return


@app.cell
def _(np):
    def forward(z):
        """Return the output, and what backward needs."""
        return np.where(z > 0, z, 0.1 * z), z

    def backward(cache, grad_y):
        """Return the gradient of z. Your turn: upstream times local."""
        return grad_y

    return backward, forward


@app.cell
def _(agreement, backward, forward):
    verdict = agreement.check_gradients((forward, backward), [(4, 5)])
    str(verdict)
    return (verdict,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    More of the kind: `chainrule grade sigmoid my_file.py`, `chainrule grade tanh my_file.py` and
    `chainrule grade relu my_file.py`.
    """)
    return


if __name__ == "__main__":
    app.run()
