"""Lesson 9: overfitting, dropout, batch normalisation, train against eval, and when to stop."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(app_title="9. Regularisation, batch norm, and when the validation curve turns")


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    # 9. Regularisation, batch norm, and when the validation curve turns

    A network can learn its training images by heart, wrong labels and all. This lesson makes that happen,
    shows how to see it, and measures what helps. On the way: what dropout does to the gradient, why
    `train()` and `eval()` exist, and what happens if you forget them.
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
    from nn_reference import batchnorm, dropout

    return agreement, batchnorm, datasets, dropout, mo, nn, np, plt


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## A task that invites learning by heart

    Only 200 training images, and a fifth of their labels replaced by random digits, as careless labelling
    would. The other images are split: 500 to **validate** (to choose between networks, and when to stop),
    and the test images, which nobody looks at before the choice is made.
    """)
    return


@app.cell
def _(datasets, np):
    data = datasets.load("digits")
    pixels = data.train_images.reshape(-1, 784).astype(np.float32) / 255
    train_x, validation_x = pixels[:200], pixels[1000:]
    validation_y = data.train_labels[1000:]
    test_x, test_y = data.test_images.reshape(-1, 784).astype(np.float32) / 255, data.test_labels

    _rng = np.random.default_rng(3)
    _spoilt = _rng.random(200) < 0.2
    train_y = np.where(_spoilt, _rng.integers(0, 10, 200), data.train_labels[:200])
    wrong_labels = int((train_y != data.train_labels[:200]).sum())
    len(train_x), len(validation_x), len(test_x), wrong_labels
    return test_x, test_y, train_x, train_y, validation_x, validation_y


@app.cell
def _(nn, np):
    def build(p=0.0, batch_norm=False, hidden=128):
        """Return 784-128-10 with dropout of rate p, and with batch normalisation if wanted."""
        generator = np.random.default_rng(0)
        network = nn.Sequential(nn.Linear(784, hidden, generator=generator))
        if batch_norm:
            network.append(nn.BatchNorm1d(hidden))
        network.append(nn.ReLU())
        if p:
            network.append(nn.Dropout(p, generator=np.random.default_rng(5)))
        return network.append(nn.Linear(hidden, 10, generator=generator))

    return (build,)


@app.cell
def _(nn, np, test_x, test_y, train_x, train_y, validation_x, validation_y):
    def fit(network, epochs=50, weight_decay=0.0, label_smoothing=0.0):
        """Train, and return for each epoch: training loss, validation loss, validation and test accuracy."""
        criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        plain = nn.CrossEntropyLoss()  # losses with and without smoothing cannot be compared
        optimizer = nn.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=weight_decay)
        order, history = np.random.default_rng(1), []
        for _ in range(epochs):
            network.train()
            for batch in order.permutation(len(train_x)).reshape(-1, 20):
                optimizer.zero_grad()
                criterion(network(train_x[batch]), train_y[batch])
                network.backward(criterion.backward(), input_grad=False)
                optimizer.step()
            network.eval()
            with nn.no_grad():
                scores = network(validation_x)
                history.append(
                    (
                        float(plain(network(train_x), train_y)),
                        float(plain(scores, validation_y)),
                        float(np.mean(scores.argmax(1) == validation_y)),
                        float(np.mean(network(test_x).argmax(1) == test_y)),
                    )
                )
        return np.array(history)

    return (fit,)


@app.cell
def _(build, fit):
    recipes = {
        "nothing": fit(build()),
        "dropout 0.2": fit(build(p=0.2)),
        "dropout 0.5": fit(build(p=0.5)),
        "dropout 0.8": fit(build(p=0.8)),
        "dropout 0.95": fit(build(p=0.95)),
        "weight decay 1": fit(build(), weight_decay=1.0),
        "label smoothing 0.1": fit(build(), label_smoothing=0.1),
        "batch norm": fit(build(batch_norm=True)),
    }
    return (recipes,)


@app.cell(hide_code=True)
def _(mo, recipes):
    recipe = mo.ui.dropdown(list(recipes), value="nothing", label="against overfitting")
    recipe
    return (recipe,)


@app.cell(hide_code=True)
def _(np, plt, recipe, recipes):
    _h = recipes[recipe.value]
    _epochs = np.arange(1, len(_h) + 1)
    _turn = int(_h[:, 1].argmin())
    turning, (_left, _right) = plt.subplots(1, 2, figsize=(8, 2.9), layout="constrained")
    _left.plot(_epochs, _h[:, 0], label="training")
    _left.plot(_epochs, _h[:, 1], label="validation")
    _left.plot(_turn + 1, _h[_turn, 1], "o", color="black", markerfacecolor="none", label="lowest")
    _left.set(title=f"{recipe.value}: loss", xlabel="epoch", ylim=(0, 2.4))
    _left.legend()
    _right.plot(_epochs, _h[:, 2], color="#D55E00")
    _right.plot(_turn + 1, _h[_turn, 2], "o", color="black", markerfacecolor="none")
    _right.set(title="validation accuracy", xlabel="epoch", ylim=(0.5, 1))
    turning
    return


@app.cell
def _(recipes):
    turns = {name: int(history[:, 1].argmin()) for name, history in recipes.items()}
    overfit = recipes["nothing"]
    overfit[-1], overfit[turns["nothing"]]
    return overfit, turns


@app.cell(hide_code=True)
def _(mo, overfit, turns):
    _turn = turns["nothing"]
    mo.md(f"""
    With nothing against it, the training loss falls to {overfit[-1, 0]:.2f}: the network has learnt the
    wrong labels, too. The validation loss falls until epoch {_turn + 1} ({overfit[_turn, 1]:.2f}), then
    **turns** and climbs to {overfit[-1, 1]:.2f}; accuracy goes from {overfit[_turn, 2]:.1%} to {
        overfit[-1, 2]:.1%}. From the turn on the network learns what does not carry over.

    **Early stopping** keeps the weights of the turn. It costs nothing but a validation set, and you have to
    look at the *validation* images for it: whoever stops by the test images has chosen with them, and their
    test accuracy is too good to be true.
    """)
    return


@app.cell(hide_code=True)
def _(mo, recipes, turns):
    mo.md(
        "| | lowest validation loss | in epoch | test accuracy there | test accuracy at the end |\n"
        "| --- | --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {name} | {h[turns[name], 1]:.3f} | {turns[name] + 1} "
            f"| {h[turns[name], 3]:.1%} | {h[-1, 3]:.1%} |"
            for name, h in recipes.items()
        )
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    (One run each, on 297 test images: differences below two or three per cent are chance.) Batch
    normalisation is no remedy against wrong labels: it learns faster, and them too.

    ## Dropout

    While training, each hidden value is set to 0 with probability $p$; what is left is divided by $1 - p$,
    so that the mean stays. No neuron can rely on one other neuron being there. The mask multiplies forward
    *and* backward, for given the mask the layer is linear:

    $$y = x \odot m, \qquad \frac{\partial L}{\partial x} = \frac{\partial L}{\partial y} \odot m$$
    """)
    return


@app.cell
def _(dropout, np):
    mask = dropout.draw_mask((3, 8), 0.5, np.float64, np.random.default_rng(0))
    mask
    return (mask,)


@app.cell
def _(dropout, np):
    _rng = np.random.default_rng(0)
    mean_kept = {p: float(dropout.draw_mask((100_000,), p, np.float64, _rng).mean()) for p in (0.2, 0.5, 0.8)}
    mean_kept
    return (mean_kept,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    **Which rate?** 0.5 for wide hidden layers and 0.2 for inputs is where the paper began and still a good
    start. The table above shows both ends: a low rate helps little, 0.95 leaves 6 of 128 neurons and the
    network cannot learn any more. Convolutions take less (0.1 to 0.3), and with batch normalisation often
    none at all.

    ## `train()` against `eval()`

    Dropout must be off when the network is used: otherwise the same digit gets another answer each time.
    `network.eval()` switches it off, `network.train()` on. They compute no gradient and switch none off;
    that is `no_grad`.
    """)
    return


@app.cell
def _(build, np, validation_x):
    switched = build(p=0.5)
    in_training = [switched.train()(validation_x[:1])[0, :3] for _ in range(2)]
    in_evaluation = [switched.eval()(validation_x[:1])[0, :3] for _ in range(2)]
    differ = not np.array_equal(*in_training)
    equal = np.array_equal(*in_evaluation)
    differ, equal
    return differ, equal


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Batch normalisation

    For each channel: subtract the batch's mean, divide by its standard deviation, then let the network
    choose scale $\gamma$ and shift $\beta$:

    $$\hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad y = \gamma \hat x + \beta$$

    Layers then see inputs of a steady size whatever the layers before do. Its backward is the first one in
    these lessons where *every* example of a batch acts on every other, through $\mu$ and $\sigma$:

    $$\frac{\partial L}{\partial x} = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}
    \left( g - \text{mean}(g) - \hat x\, \text{mean}(g \hat x) \right)$$

    The two means are what would only move or scale the whole channel: normalisation undoes that, so it gets
    no gradient. That can be seen, the gradients of a channel sum to 0:
    """)
    return


@app.cell
def _(batchnorm, np):
    _rng = np.random.default_rng(0)
    _x = _rng.normal(3.0, 2.0, size=(16, 4))
    _y, _cache, _ = batchnorm.forward(_x)
    _grad_x, _, _ = batchnorm.backward(_cache, _rng.normal(size=_x.shape))
    output_mean, output_std = _y.mean(0), _y.std(0)
    gradient_sums = _grad_x.sum(0)
    output_mean.round(12), output_std.round(5), gradient_sums.round(12)
    return gradient_sums, output_mean, output_std


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    And in use, when there is one image and no batch? While training the layer keeps *running* averages of
    mean and variance, and in `eval()` it takes these. Forget `eval()`, and the answer for an image depends
    on the other images beside it. Let us see: the trained network, on test images that come sorted by
    digit, ten at a time.
    """)
    return


@app.cell
def _(build, fit, nn, np, test_x, test_y):
    normalised = build(batch_norm=True)
    fit(normalised, epochs=20)
    _sorted = np.argsort(test_y, kind="stable")

    def accuracy_in_tens(network):
        """Return the accuracy on the sorted test images, in batches of ten."""
        with nn.no_grad():
            answers = [network(test_x[_sorted[i : i + 10]]).argmax(1) for i in range(0, len(_sorted), 10)]
        return float(np.mean(np.concatenate(answers) == test_y[_sorted]))

    remembered = accuracy_in_tens(normalised.eval())
    forgot_eval = accuracy_in_tens(normalised.train())
    remembered, forgot_eval
    return forgot_eval, remembered


@app.cell(hide_code=True)
def _(forgot_eval, mo, remembered):
    mo.md(f"""
    {remembered:.1%} with `eval()`, {forgot_eval:.1%} without: a batch of ten zeros looks to the layer as if
    "zero-ness" were the average, and is normalised away. Worse, in training mode each of these batches also
    moved the running averages: the network has been damaged by being looked at.

    ## Exercise

    Write the backward of **normalisation** (batch norm without $\\gamma$ and $\\beta$). The start below
    treats mean and standard deviation as constants, the most common mistake. Use the formula above, or
    better: derive it.
    """)
    return


@app.cell
def _(np):
    EPS = 1e-5

    def forward(x):
        """Return x (N, C) normalised over N, and what backward needs."""
        centred = x - x.mean(0)
        inverse_std = 1 / np.sqrt((centred * centred).mean(0) + EPS)
        normal = centred * inverse_std
        return normal, (normal, inverse_std)

    def backward(cache, grad_y):
        """Return the gradient of x. Your turn."""
        _normal, inverse_std = cache
        return grad_y * inverse_std

    return backward, forward


@app.cell
def _(agreement, backward, forward):
    verdict = agreement.check_gradients((forward, backward), [(6, 3)])
    str(verdict)
    return (verdict,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Then: `chainrule grade dropout my_file.py` and `chainrule grade batchnorm my_file.py`. `chainrule
    train` keeps back validation images with `--validation`, and can stop early.
    """)
    return


if __name__ == "__main__":
    app.run()
