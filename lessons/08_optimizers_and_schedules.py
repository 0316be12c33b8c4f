"""Lesson 8: what to do with a gradient: SGD, momentum, Adam, weight decay, and learning-rate schedules."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(app_title="8. Optimizers and schedules")


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    # 8. Optimizers and schedules

    The gradient says where it goes uphill fastest, here and now. How far to step, and whether to trust it
    alone, is the optimizer's business. This lesson compares them first on a valley that one can see, then
    on digits.
    """)
    return


@app.cell
def _():
    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np

    import nn_reference as nn
    from chainrule import datasets
    from nn_reference.optim import lr_scheduler

    return datasets, lr_scheduler, mo, nn, np, plt


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## A long valley

    $$L(x, y) = \tfrac12 (x^2 + 25\, y^2), \qquad \nabla L = (x,\; 25\, y)$$

    It is 25 times steeper across than along. Losses of networks are like that in thousands of dimensions.
    Plain gradient descent multiplies $y$ by $1 - 25\eta$ in each step, so beyond $\eta = 2/25 = 0.08$ it
    **diverges**; but below that it creeps along $x$. That is the whole trouble with one learning rate, and
    what the others try to mend.

    - **SGD**: $w \leftarrow w - \eta g$
    - **Momentum**: $v \leftarrow \mu v + g$, $\; w \leftarrow w - \eta v$. What goes on in the same
      direction adds up (to $1/(1-\mu) = 10$ times for $\mu = 0.9$), what alternates cancels.
    - **Nesterov**: momentum that looks one step ahead.
    - **Adam**: keeps a running mean $m$ of $g$ and $s$ of $g^2$, and steps by $\eta\, \hat m / (\sqrt{\hat
      s} +
      \epsilon)$: each weight is measured in units of its own gradient's size.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    method = mo.ui.dropdown(["SGD", "momentum", "Nesterov", "Adam"], value="SGD", label="optimizer")
    rate = mo.ui.slider(steps=[0.01, 0.04, 0.05, 0.07, 0.081, 0.5], value=0.04, label="learning rate $\\eta$")
    mo.hstack([method, rate])
    return method, rate


@app.cell
def _(nn, np):
    STEEPNESS = np.array([1.0, 25.0])

    def optimizer_of(name, parameters, lr):
        """Return one of nn_reference's optimizers."""
        if name == "Adam":
            return nn.optim.Adam(parameters, lr=lr)
        momentum = 0.0 if name == "SGD" else 0.9
        return nn.optim.SGD(parameters, lr=lr, momentum=momentum, nesterov=name == "Nesterov")

    def walk(name, lr, steps=60):
        """Return the places (steps + 1, 2) that an optimizer visits in the valley."""
        place = nn.Parameter(np.array([-4.0, 1.5]))
        optimizer, path = optimizer_of(name, [place], lr), [place.data.copy()]
        for _ in range(steps):
            place.grad = STEEPNESS * place.data
            optimizer.step()
            path.append(place.data.copy())
        return np.array(path)

    def height(path):
        """Return the loss at each place of a path."""
        return (STEEPNESS * path**2).sum(-1) / 2

    return height, optimizer_of, walk


@app.cell(hide_code=True)
def _(height, method, np, plt, rate, walk):
    _path = walk(method.value, rate.value)
    _x, _y = np.meshgrid(np.linspace(-5, 5, 81), np.linspace(-2.2, 2.2, 61))
    _heights = height(np.stack([_x, _y], -1))
    valley, (_left, _right) = plt.subplots(
        1, 2, figsize=(8, 2.9), width_ratios=(1.6, 1), layout="constrained"
    )
    _left.contour(_x, _y, _heights, levels=[0.3, 1, 3, 8, 18, 35, 60], colors="#9aa5b5", linewidths=0.8)
    _left.plot(*np.clip(_path, -9, 9).T, "o-", markersize=3, color="#D55E00", linewidth=1)
    _left.set(
        xlim=(-5, 5),
        ylim=(-2.2, 2.2),
        title=f"{method.value}, learning rate {rate.value:g}",
        xlabel="x",
        ylabel="y",
    )
    _right.semilogy(np.clip(height(_path), 1e-12, 1e6))
    _right.set(xlabel="step", ylabel="loss", ylim=(1e-9, 1e4))
    _right.yaxis.set_major_formatter("{x:.0e}")
    valley
    return


@app.cell
def _(height, walk):
    after_60 = {
        name: {lr: float(height(walk(name, lr)[-1])) for lr in (0.01, 0.05, 0.07, 0.081)}
        for name in ("SGD", "momentum", "Nesterov", "Adam")
    }
    return (after_60,)


@app.cell(hide_code=True)
def _(after_60, mo):
    mo.md(
        "Loss after 60 steps:\n\n"
        "| | η = 0.01 | η = 0.05 | η = 0.07 | η = 0.081 |\n| --- | --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {name} | " + " | ".join(f"{loss:.1e}" for loss in of.values()) + " |"
            for name, of in after_60.items()
        )
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Just beyond 0.08 plain SGD leaves the valley for ever: each step lands higher up the other side.
    Momentum shifts that limit, to $2(1+\mu)/25 = 0.152$, and is fast along the valley; Nesterov's is lower,
    $\frac{2 + 2\mu}{1 + 2\mu} / 25 = 0.054$, but below it nothing in the table is faster. Adam does not
    care how steep it is; its step is about $\eta$ long, whatever the gradient, so here it needs a larger
    $\eta$ (try 0.5).

    ## Adam's first step

    Adam's means start from 0, and are therefore too small at first; it divides by $1 - \beta^t$ to make up
    for that. In the first step $\hat m = g$ and $\hat s = g^2$, so the step is $\eta\, g/|g|$: the **sign**
    of the gradient. We can see that, for gradients of very different size:
    """)
    return


@app.cell
def _(nn, np):
    parameter = nn.Parameter(np.zeros(4))
    parameter.grad = np.array([1000.0, 1.0, 0.001, -0.001])
    nn.optim.Adam([parameter], lr=0.01).step()
    first_step = parameter.data
    first_step
    return (first_step,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## On digits

    The same network, 784-32-10, the same batches, eight epochs; three learning rates for each. Read a row,
    not only the best number: an optimizer that works over a wide range of rates saves you the search.
    """)
    return


@app.cell
def _(datasets, nn, np, optimizer_of):
    data = datasets.load("digits")
    x = data.train_images.reshape(-1, 784).astype(np.float32) / 255
    test_x = data.test_images.reshape(-1, 784).astype(np.float32) / 255

    def train(make_optimizer, epochs=8, schedule=None):
        """Train 784-32-10; returns the mean loss of each epoch and the test accuracy."""
        generator = np.random.default_rng(0)
        network = nn.Sequential(
            nn.Linear(784, 32, generator=generator), nn.ReLU(), nn.Linear(32, 10, generator=generator)
        )
        criterion, order = nn.CrossEntropyLoss(), np.random.default_rng(1)
        optimizer = make_optimizer(network.parameters())
        scheduler = schedule(optimizer) if schedule else None
        means = []
        for _ in range(epochs):
            losses = []
            for batch in order.permutation(len(x)).reshape(-1, 50):
                optimizer.zero_grad()
                losses.append(criterion(network(x[batch]), data.train_labels[batch]))
                network.backward(criterion.backward(), input_grad=False)
                optimizer.step()
                if scheduler:
                    scheduler.step()
            means.append(float(np.mean(losses)))
        return means, float(np.mean(network(test_x).argmax(1) == data.test_labels))

    trials = {
        name: {lr: train(lambda p, n=name, r=lr: optimizer_of(n, p, r)) for lr in rates}
        for name, rates in {
            "SGD": (0.01, 0.1, 1.0),
            "momentum": (0.001, 0.01, 0.1),
            "Nesterov": (0.001, 0.01, 0.1),
            "Adam": (0.0003, 0.003, 0.03),
        }.items()
    }
    return train, trials


@app.cell(hide_code=True)
def _(mo, trials):
    mo.md(
        "| | learning rate: training loss in epoch 8, test accuracy | | |\n| --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {name} | "
            + " | ".join(f"{lr:g}: {means[-1]:.3f}, {accuracy:.1%}" for lr, (means, accuracy) in of.items())
            + " |"
            for name, of in trials.items()
        )
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Rules of thumb: Adam at 0.001 to 0.003 works nearly always and is the place to begin. SGD with momentum
    0.9 needs its rate tuned and then often ends as well or better. If the loss does not fall, divide the
    rate by ten; if it falls evenly but slowly, multiply by three.

    ## Weight decay

    `weight_decay` pulls each weight towards 0. With SGD it is the same whether the pull is added to the
    gradient (as the gradient of $\tfrac{\lambda}{2}|w|^2$) or to the step. With Adam it is not: in the
    gradient it is divided by $\sqrt{\hat s}$ like everything else, so weights with large gradients are
    hardly pulled. **AdamW** pulls the weight itself. One step, two weights of the same size with different
    gradients:
    """)
    return


@app.cell
def _(nn, np):
    def pull_of(optimizer):
        """Return how much further one step goes because of weight decay, for gradients 10 and 0.1."""
        steps = []
        for decay in (0.0, 0.1):
            weights = nn.Parameter(np.array([1.0, 1.0]))
            weights.grad = np.array([10.0, 0.1])
            optimizer([weights], lr=0.01, weight_decay=decay).step()
            steps.append(weights.data)
        return steps[0] - steps[1]

    pulls = {
        optimizer.__name__: pull_of(optimizer) for optimizer in (nn.optim.SGD, nn.optim.Adam, nn.optim.AdamW)
    }
    pulls
    return (pulls,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    (In its first step Adam ignores the decay altogether: the sign of the gradient is all that counts.)

    ## Schedules

    A high rate gets far, a low one settles. So begin high and end low. Choose a schedule; 240 steps are
    drawn.
    """)
    return


@app.cell
def _(lr_scheduler):
    STEPS = 240
    schedules = {
        "constant": lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, total_iters=1),
        "StepLR": lambda o: lr_scheduler.StepLR(o, step_size=80, gamma=0.3),
        "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.985),
        "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=STEPS),
        "warm-up, then cosine": lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=24),
                lr_scheduler.CosineAnnealingLR(o, T_max=STEPS - 24),
            ],
            milestones=[24],
        ),
        "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=STEPS + 1),
    }
    return STEPS, schedules


@app.cell(hide_code=True)
def _(mo, schedules):
    schedule = mo.ui.dropdown(list(schedules), value="CosineAnnealingLR", label="schedule")
    schedule
    return (schedule,)


@app.cell(hide_code=True)
def _(STEPS, nn, np, plt, schedule, schedules):
    _optimizer = nn.optim.SGD([nn.Parameter(np.zeros(1))], lr=1.0, momentum=0.9)
    _scheduler, _rates = schedules[schedule.value](_optimizer), []
    for _ in range(STEPS):
        _rates.append(_optimizer.param_groups[0]["lr"])
        _scheduler.step()
    rates, _axes = plt.subplots(figsize=(6.6, 2.5), layout="constrained")
    _axes.plot(_rates)
    _axes.set(xlabel="step", ylabel="learning rate", ylim=(0, 1.1), title=schedule.value)
    rates
    return


@app.cell
def _(nn, schedules, train):
    scheduled = {
        name: train(lambda p: nn.optim.SGD(p, lr=0.4), schedule=schedules[name])
        for name in ("constant", "CosineAnnealingLR", "warm-up, then cosine")
    }
    return (scheduled,)


@app.cell(hide_code=True)
def _(mo, scheduled):
    mo.md(
        "On digits, with plain SGD at the bold rate of 0.4:\n\n"
        "| schedule | loss, epoch 1 | loss, epoch 8 | test accuracy |\n| --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {name} | {means[0]:.2f} | {means[-1]:.3f} | {accuracy:.1%} |"
            for name, (means, accuracy) in scheduled.items()
        )
        + "\n\nWhen a schedule is stepped (once an epoch, or once a batch as here) decides "
        "what its numbers mean: "
        "`T_max=8` stepped per batch would go up and down every 16 batches."
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Exercise

    Write SGD with momentum: $v \leftarrow \mu v + g$, then $w \leftarrow w - \eta v$. The check takes five
    steps with random gradients and compares with `nn_reference.optim.SGD`. The start below forgets what
    came before.
    """)
    return


@app.cell
def _():
    def momentum_step(w, v, g, lr=0.1, mu=0.9):
        """Return the new weight and the new velocity. Your turn."""
        v = g
        return w - lr * v, v

    return (momentum_step,)


@app.cell
def _(momentum_step, nn, np):
    _rng = np.random.default_rng(0)
    _theirs, _w, _v = nn.Parameter(np.ones(3)), np.ones(3), np.zeros(3)
    _optimizer = nn.optim.SGD([_theirs], lr=0.1, momentum=0.9)
    verdict = "right: the same weights after five steps"
    for _step in range(5):
        _theirs.grad = _rng.normal(size=3)
        _w, _v = momentum_step(_w, _v, _theirs.grad.copy())
        _optimizer.step()
        if not np.allclose(_w, _theirs.data, rtol=1e-12, atol=0):
            verdict = f"not yet: after step {_step + 1} yours is {_w}, expected {_theirs.data}"
            break
    verdict
    return (verdict,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Then: `chainrule grade sgd-momentum my_file.py` and `chainrule grade adam my_file.py`. The engine's
    versions, with their sources, are in `nn_reference/optim/`.
    """)
    return


if __name__ == "__main__":
    app.run()
