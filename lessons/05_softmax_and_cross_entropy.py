"""Lesson 5: from scores to probabilities to a loss, label smoothing, and when accuracy misleads."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(app_title="5. Softmax and cross-entropy")


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    # 5. Softmax and cross-entropy

    The last layer gives ten scores, one for each digit. This lesson turns them into probabilities, the
    probabilities into a loss, and derives the most beautiful gradient of the field, $p - y$. Then: what
    label smoothing changes, and when accuracy says less than one thinks.
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
    from nn_reference import cross_entropy, softmax

    return agreement, cross_entropy, datasets, mo, nn, np, plt, softmax


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Softmax

    Scores $z$ (also called *logits*) may be any numbers. **Softmax** makes them positive and lets them sum
    to 1:

    $$p_j = \frac{e^{z_j}}{\sum_k e^{z_k}}$$

    Only differences count: adding the same number to all scores changes nothing. Move the score of "3".
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    score = mo.ui.slider(-4, 10, step=1, value=2, label="score of the digit 3", show_value=True)
    score
    return (score,)


@app.cell
def _(np, score):
    scores = np.array([[0.5, -1.0, 0.0, score.value, -0.5, 2.5, 0.0, -2.0, 1.0, 0.0]])  # (1, 10)
    label = np.array([3])
    return label, scores


@app.cell(hide_code=True)
def _(cross_entropy, label, np, plt, scores, softmax):
    _p, _ = softmax.forward(scores, 1)
    _loss, _cache = cross_entropy.forward(scores, label)
    _grad = cross_entropy.backward(_cache, np.ones_like(_loss))
    bars, (_up, _down) = plt.subplots(2, 1, figsize=(6.6, 4), layout="constrained", sharex=True)
    _up.bar(range(10), _p[0], color=["#D55E00" if k == 3 else "#0072B2" for k in range(10)])
    _up.set(
        ylabel="probability p", ylim=(0, 1.05), title=f"the image is a 3: loss = -log p = {float(_loss):.3f}"
    )
    _down.bar(range(10), _grad[0], color=["#D55E00" if k == 3 else "#0072B2" for k in range(10)])
    _down.set(xlabel="digit", ylabel="gradient of the score", ylim=(-1.05, 1.05), xticks=range(10))
    bars
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Cross-entropy

    The loss is the surprise at the truth: minus the logarithm of the probability that the right class was
    given,

    $$L = -\log p_y$$

    Sure and right costs nothing; to give the truth 1 % costs $-\log 0.01 = 4.6$. A network that has learnt
    nothing gives each of ten digits 10 %, so the loss **starts near** $\log 10$:
    """)
    return


@app.cell
def _(nn, np):
    untrained = float(nn.CrossEntropyLoss()(np.zeros((5, 10)), np.arange(5)))
    untrained, float(np.log(10))
    return (untrained,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    If your first loss is far from that, something is wrong before training begins: inputs that are not
    scaled (lesson 1), or initial weights that are too large.

    ## The gradient

    Put softmax into the loss and the logarithm undoes the exponential:

    $$L = -\log \frac{e^{z_y}}{\sum_k e^{z_k}} = \log \sum_k e^{z_k} - z_y$$

    $$\frac{\partial L}{\partial z_j} = \frac{e^{z_j}}{\sum_k e^{z_k}} - [j = y] = p_j - [j = y]$$

    **What the network said, minus what it should have said.** The gradient is between -1 and 1, it sums to
    0, and it does not vanish while the answer is wrong. Compare with the squared error of the probability,
    $(p_y - 1)^2$, when the network is sure and wrong: its gradient has the factor $p_y (1 - p_y)$,
    softmax's own derivative, which is tiny.
    """)
    return


@app.cell
def _(cross_entropy, np, softmax):
    wrong_and_sure = np.array([[0.0, 12.0]])  # the truth is class 0
    _loss, _cache = cross_entropy.forward(wrong_and_sure, np.array([0]))
    by_cross_entropy = cross_entropy.backward(_cache, np.ones_like(_loss))

    _p, _cache = softmax.forward(wrong_and_sure, 1)
    by_squared_error = softmax.backward(_cache, np.array([[2 * (_p[0, 0] - 1), 0.0]]))
    by_cross_entropy, by_squared_error
    return by_cross_entropy, by_squared_error


@app.cell(hide_code=True)
def _(by_cross_entropy, by_squared_error, mo):
    mo.md(f"""
    Cross-entropy pushes with {abs(by_cross_entropy[0, 0]):.5f}; the squared error with
    {abs(by_squared_error[0, 0]):.1e}, and learns nothing from its worst mistakes.

    ## In floating point

    $e^{{1000}}$ is infinite on a computer. As only differences count, one subtracts the largest score
    first; and one never takes the logarithm of a softmax, but both at once.
    """)
    return


@app.cell
def _(cross_entropy, np):
    large = np.array([[1000.0, 0.0]])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        naive = -np.log(np.exp(large) / np.exp(large).sum())[0, 1]
    stable, _ = cross_entropy.forward(large, np.array([1]))
    float(naive), float(stable)
    return naive, stable


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    That is why `CrossEntropyLoss` wants **scores, not probabilities**. A softmax layer before it is a
    common mistake: it raises no error, and the loss can then never fall below a bound. For a perfect
    answer:
    """)
    return


@app.cell
def _(nn, np):
    perfect = np.eye(10)[:1]  # probabilities: certain and right, given as if they were scores
    twice = float(nn.CrossEntropyLoss()(perfect, np.array([0])))
    twice
    return (twice,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Label smoothing

    With hard labels the loss only reaches 0 when a score runs to infinity, so the network is pushed to be
    ever surer, also about labels that are wrong. Label smoothing asks for a little less than certainty: the
    target becomes $1 - \varepsilon + \varepsilon/10$ for the label and $\varepsilon/10$ for each other
    digit. Then there *is* a best score:
    """)
    return


@app.cell(hide_code=True)
def _(mo):
    epsilon = mo.ui.slider(steps=[0.0, 0.05, 0.1, 0.2, 0.3], value=0.1, label="smoothing $\\varepsilon$")
    epsilon
    return (epsilon,)


@app.cell
def _(nn, np):
    leads = np.linspace(0, 14, 281)

    def loss_of_lead(smoothing):
        """Return the loss when the right score is ahead of nine equal ones by each of the leads."""
        criterion = nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")
        z = np.zeros((len(leads), 10))
        z[:, 0] = leads
        return criterion(z, np.zeros(len(leads), int))

    return leads, loss_of_lead


@app.cell(hide_code=True)
def _(epsilon, leads, loss_of_lead, plt):
    _losses = loss_of_lead(epsilon.value)
    smoothing_curve, _axes = plt.subplots(figsize=(6.6, 2.8), layout="constrained")
    _axes.plot(leads, _losses)
    if epsilon.value:
        _axes.plot(leads[_losses.argmin()], _losses.min(), "o", color="#D55E00", label="the best lead")
        _axes.legend()
    _axes.set(
        xlabel="lead of the right score", ylabel="loss", ylim=(0, 4), title=f"smoothing {epsilon.value:g}"
    )
    smoothing_curve
    return


@app.cell
def _(leads, loss_of_lead, np):
    best_lead = float(leads[loss_of_lead(0.1).argmin()])
    expected_lead = float(np.log((1 - 0.1 + 0.01) / 0.01))  # where p equals the smoothed target
    best_lead, expected_lead
    return best_lead, expected_lead


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Typical is $\varepsilon = 0.1$. Expect a *higher* training loss (its minimum is no longer 0) and often a
    slightly better accuracy and honester probabilities. Do not compare losses with and without it.

    ## When accuracy misleads

    Accuracy is the share of right answers. Three ways in which it deceives:

    **1. Rare classes.** "Is it an 8?" Here is a classifier that never looks:
    """)
    return


@app.cell
def _(datasets, np):
    test_labels = datasets.load("digits").test_labels
    is_eight = test_labels == 8
    never = np.zeros_like(is_eight)  # always "no"
    lazy_accuracy = float(np.mean(never == is_eight))
    lazy_recall = float(np.mean(never[is_eight]))
    balanced = (lazy_recall + float(np.mean(~never[~is_eight]))) / 2
    return balanced, lazy_accuracy, lazy_recall, test_labels


@app.cell(hide_code=True)
def _(balanced, lazy_accuracy, lazy_recall, mo):
    mo.md(f"""
    It is right {lazy_accuracy:.1%} of the time and finds {lazy_recall:.0%} of the eights. Look at the
    **recall** (how many of the eights are found), the **precision** (how many of those called eight are),
    the confusion matrix, or the balanced accuracy, the mean recall over the classes: {balanced:.0%}, no
    better than a coin.

    **2. Small test sets.** An accuracy is measured on a sample, and has a standard error of
    $\\sqrt{{a(1-a)/n}}$.
    """)
    return


@app.cell
def _(np, test_labels):
    standard_error = {n: float(np.sqrt(0.97 * 0.03 / n)) for n in (len(test_labels), 10_000)}
    standard_error
    return (standard_error,)


@app.cell(hide_code=True)
def _(mo, standard_error):
    _few, _many = standard_error.values()
    mo.md(f"""
    At 97 %, our {next(iter(standard_error))} test images leave ± {_few:.1%} of pure chance, MNIST's 10,000
    ± {_many:.1%}. A difference smaller than two of these is no difference.

    **3. It does not hear how sure the answer is.** Two networks with the same accuracy, and losses that are
    far apart:
    """)
    return


@app.cell
def _(nn, np):
    truth = np.array([0, 0, 0, 1])
    careful = np.log([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.6, 0.4]])  # the last one is wrong, but unsure
    reckless = np.log([[0.6, 0.4], [0.6, 0.4], [0.6, 0.4], [0.999, 0.001]])  # wrong, and certain of it
    same_accuracy = {
        name: (float(np.mean(z.argmax(1) == truth)), round(float(nn.CrossEntropyLoss()(z, truth)), 3))
        for name, z in {"careful": careful, "reckless": reckless}.items()
    }
    same_accuracy
    return (same_accuracy,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    The reverse happens while training: the validation loss rises (a few answers become very sure and wrong)
    while accuracy still creeps up. Lesson 9 shows it.

    ## Exercise

    Write the backward of **softmax alone**, for any upstream gradient $g$. Its derivative is a matrix,
    $\partial p_i / \partial z_j = p_i ([i = j] - p_j)$, so

    $$\frac{\partial L}{\partial z_j} = \sum_i g_i\, p_i ([i = j] - p_j) = p_j (g_j - \sum_i g_i\, p_i)$$

    The version below forgets the sum, as if softmax worked on each element alone. A check with an upstream
    gradient of ones would be of no use here: do you see why? (The probabilities sum to 1, whatever the
    scores.)
    """)
    return


@app.cell
def _(np):
    def forward(z):
        """Return the softmax of z (N, C) over C, and what backward needs."""
        e = np.exp(z - z.real.max(1, keepdims=True))
        p = e / e.sum(1, keepdims=True)
        return p, p

    def backward(p, grad_p):
        """Return the gradient of z. Your turn."""
        return p * grad_p

    return backward, forward


@app.cell
def _(agreement, backward, forward):
    verdict = agreement.check_gradients((forward, backward), [(3, 5)])
    str(verdict)
    return (verdict,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Then: `chainrule grade softmax my_file.py`, `chainrule grade cross-entropy my_file.py` and, for both at
    once, `chainrule grade log-softmax-cross-entropy my_file.py`. `chainrule evaluate RUN` prints recall,
    precision and the confusion matrix of a trained network.
    """)
    return


if __name__ == "__main__":
    app.run()
