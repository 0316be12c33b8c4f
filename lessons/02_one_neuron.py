"""Lesson 2: one neuron, one example, and every factor of the chain rule by name and number."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(app_title="2. One neuron: the chain-rule step")


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    # 2. One neuron: the chain-rule step

    All of backpropagation is one step, repeated: **upstream gradient times local derivative**. Here is that
    step on the smallest network there is, with every number in sight.

    A neuron takes inputs $x$, weighs them, adds a bias, bends the result with an activation $f$, and is
    punished for the distance from its target $t$:

    $$z = w x + b \qquad a = f(z) \qquad L = (a - t)^2$$

    *Learning* means to change $w$ and $b$ so that $L$ falls. For that we need to know how $L$ reacts to a
    small change of each: $\partial L/\partial w$ and $\partial L/\partial b$.
    """)
    return


@app.cell
def _():
    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np

    import agreement
    from chainrule import neuron
    from chainrule.neuron import Neuron

    return Neuron, agreement, mo, neuron, np, plt


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## The chain rule

    A small change of $w$ changes $z$, which changes $a$, which changes $L$. How much each reacts to the one
    before is a **local derivative**, and the reactions multiply:

    $$\frac{\partial L}{\partial w} = \frac{\partial L}{\partial a} \cdot \frac{\partial a}{\partial z} \cdot
    \frac{\partial z}{\partial w} = 2(a - t) \cdot f'(z) \cdot x$$

    $$\frac{\partial L}{\partial b} = \frac{\partial L}{\partial a} \cdot \frac{\partial a}{\partial z} \cdot
    \frac{\partial z}{\partial b} = 2(a - t) \cdot f'(z) \cdot 1$$

    The first two factors are the same for both. So one computes $\partial L/\partial z$ once and hands it
    back: that is why it is called *back*propagation, and why it is cheap.

    Choose an activation and a weight. The orange line is the tangent whose slope the chain rule gives.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    activation = mo.ui.dropdown(["sigmoid", "tanh", "relu"], value="sigmoid", label="activation $f$")
    weight = mo.ui.slider(-3, 3, step=0.75, value=-0.75, label="weight $w$", show_value=True)
    mo.hstack([activation, weight])
    return activation, weight


@app.cell
def _(Neuron, activation, neuron, weight):
    X, B, TARGET = 1.5, 0.5, 0.8
    one = Neuron(x=(X,), w=(weight.value,), b=B, target=TARGET, activation=activation.value)
    step = neuron.step(one, learning_rate=0.1)
    return B, TARGET, X, one, step


@app.cell(hide_code=True)
def _(B, TARGET, X, mo, one, step):
    mo.md(f"""
    | forward | | backward | |
    | --- | --- | --- | --- |
    | z = {one.w[0]:g} · {X:g} + {B:g} | {step.z:.4f} | dL/da = 2 (a − {TARGET:g}) | {step.dL_da:+.4f} |
    | a = f(z) | {step.a:.4f} | da/dz = f′(z) | {step.da_dz:+.4f} |
    | L = (a − {TARGET:g})² | {step.loss:.4f} | dL/dz = dL/da · da/dz | {step.dL_dz:+.4f} |
    | | | **dL/dw = dL/dz · {X:g}** | **{step.dL_dw[0]:+.4f}** |
    | | | **dL/db = dL/dz · 1** | **{step.dL_db:+.4f}** |
    """)
    return


@app.cell(hide_code=True)
def _(Neuron, TARGET, X, B, activation, neuron, np, one, plt, step):
    grid = np.linspace(-3.2, 3.2, 161)
    losses = [
        neuron.step(Neuron((X,), (w,), B, TARGET, activation.value), learning_rate=0).loss for w in grid
    ]
    figure, _axes = plt.subplots(figsize=(6.2, 2.9), layout="constrained")
    _axes.plot(grid, losses, label="loss")
    _near = np.array([-0.8, 0.8])
    _axes.plot(one.w[0] + _near, step.loss + step.dL_dw[0] * _near, color="#D55E00", label="slope dL/dw")
    _axes.plot(one.w[0], step.loss, "o", color="#D55E00")
    _axes.set(xlabel="weight w", ylabel="loss", ylim=(-0.2, max(losses) * 1.1))
    _axes.legend()
    figure
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Three things to try:

    - With **relu** and a negative weight the slope is exactly 0: the neuron is off, its local derivative is
      0, and no gradient comes through. It cannot learn from this example.
    - With **sigmoid** and $w = -3$ the answer is badly wrong, and yet the slope is small: the sigmoid is
      nearly flat there. Lesson 3 measures what that does to deep networks.
    - Where the curve has its minimum, the slope changes its sign: at the bottom $a = t$, and the first
      factor is 0.

    ## Is it right?

    Never trust a derivative that you have not checked. Two independent ways: a **finite difference**, which
    only needs the forward,

    $$\frac{\partial L}{\partial w} \approx \frac{L(w + h) - L(w - h)}{2h}$$

    and PyTorch's **autograd**, which derives the chain by itself.
    """)
    return


@app.cell
def _(Neuron, neuron):
    example = Neuron(x=(1.5, -2.0), w=(0.4, 0.3), b=0.5, target=0.8, activation="tanh")
    by_hand = neuron.step(example, learning_rate=0.1)
    numerical, _ = neuron.finite_difference(example)
    automatic, _ = neuron.autograd(example)
    return automatic, by_hand, example, numerical


@app.cell(hide_code=True)
def _(automatic, by_hand, mo, numerical):
    mo.md(
        "| | dL/dw₁ | dL/dw₂ |\n| --- | --- | --- |\n"
        + "\n".join(
            f"| {name} | {first:.15f} | {second:.15f} |"
            for name, (first, second) in {
                "chain rule, by hand": by_hand.dL_dw,
                "PyTorch's autograd": automatic,
                "finite difference": numerical,
            }.items()
        )
        + "\n\nAutograd agrees to the last digits; the finite difference to ten or so. Lesson 7 says why."
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Learning

    **Gradient descent** takes a step against the gradient, $w \leftarrow w - \eta\, \partial L/\partial w$.
    The *learning rate* $\eta$ decides how long the step is. Too short is slow; too long jumps over the
    valley.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    rate = mo.ui.slider(steps=[0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 1.0], value=0.1, label="learning rate $\\eta$")
    rate
    return (rate,)


@app.cell
def _(Neuron, neuron, plt, rate):
    def descend(learning_rate, steps=25):
        """Return the losses of gradient descent of one relu neuron."""
        now, losses = Neuron(x=(1.0,), w=(0.2,), b=0.1, target=2.0, activation="relu"), []
        for _ in range(steps):
            result = neuron.step(now, learning_rate)
            losses.append(result.loss)
            now = Neuron(now.x, result.w_after, result.b_after, now.target, now.activation)
        return losses

    path = descend(rate.value)
    descent, _axes = plt.subplots(figsize=(6.2, 2.7), layout="constrained")
    _axes.plot(path, "o-", markersize=4)
    _axes.set(xlabel="step", ylabel="loss", ylim=(-0.2, 4.2))
    descent
    return (descend,)


@app.cell(hide_code=True)
def _(descend, mo):
    mo.md(f"""
    After 25 steps the loss is {descend(0.01)[-1]:.2f} at 0.01 and {descend(0.1)[-1]:.1e} at 0.1. At 0.5
    every step lands exactly opposite: the loss stays {descend(0.5)[-1]:.2f} for ever. Beyond that a step
    can throw the neuron so far that it switches off (relu), with loss {descend(0.7)[-1]:.2f} and no
    gradient to bring it back.
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Two paths add up

    What if a value is used twice? In $y = w \cdot (w x)$ the weight acts once directly and once through the
    inner product. The **multivariable** chain rule says: multiply along each path, and *add* the paths.

    $$\frac{\partial y}{\partial w} =
    \underbrace{w x}_{\text{outer use}} + \underbrace{w \cdot x}_{\text{inner use}} = 2 w x$$

    That is why gradients are added up (`+=`) wherever a value goes to several places: to all neurons of the
    next layer (lesson 4), to all examples of a batch, to all positions of an image (lesson 10).

    ## Exercise

    Write the gradient of a **tanh** neuron with two inputs. Recall $\tanh'(z) = 1 - \tanh^2 z$. The
    gradient goes back to the weights, to the bias, and to the inputs too: in a network the inputs are the
    outputs of other neurons, and they want their upstream gradient. The function below forgets the
    activation's derivative; the cell after it says so.
    """)
    return


@app.cell
def _(np):
    T = 0.8

    def loss(x, w, b):
        """Return the loss of a tanh neuron: x (2,), w (2,), b ()."""
        return (np.tanh(x @ w + b) - T) ** 2

    def gradient(x, w, b):
        """Return dL/dx, dL/dw and dL/db. Your turn: one factor is missing."""
        a = np.tanh(x @ w + b)
        grad_z = 2 * (a - T)
        return grad_z * w, grad_z * x, grad_z

    return gradient, loss


@app.cell
def _(agreement, gradient, loss, np):
    verdict = agreement.check_gradients(
        loss, [np.array([1.5, -2.0]), np.array([0.4, 0.3]), np.array(0.5)], gradient=gradient
    )
    str(verdict)
    return (verdict,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    When it agrees, try the same in a file and grade it: `chainrule grade neuron my_neuron.py`; and the case
    of two paths: `chainrule grade used-twice my_file.py`. `chainrule explain` shows this page's numbers
    for a neuron of your choice.
    """)
    return


if __name__ == "__main__":
    app.run()
