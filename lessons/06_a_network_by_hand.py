"""Lesson 6: a whole multi-layer perceptron by hand, then the same as a Module, and the training loop."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(app_title="6. A whole network by hand, then Module")


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    # 6. A whole network by hand, then `Module`

    Everything is there: the layer (lesson 4), the bend (3), the loss (5). Now they become a network that
    reads digits: first in twenty lines of NumPy with nothing hidden, then with `Module`, then in PyTorch.
    All three give the same gradients.
    """)
    return


@app.cell
def _():
    import marimo as mo
    import matplotlib.pyplot as plt
    import numpy as np
    import torch

    import agreement
    import nn_reference as nn
    from chainrule import datasets

    return agreement, datasets, mo, nn, np, plt, torch


@app.cell
def _(datasets, np):
    data = datasets.load("digits")
    train_x = data.train_images.reshape(-1, 784) / 255.0  # (1500, 784), float64
    test_x = data.test_images.reshape(-1, 784) / 255.0  # (297, 784)
    train_y, test_y = data.train_labels, data.test_labels
    train_x.shape, test_x.shape, np.unique(train_y)
    return test_x, test_y, train_x, train_y


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## By hand

    784 pixels, 32 hidden neurons, 10 scores. Forward is four lines:

    $$Z = X W_1^T + b_1 \qquad A = \max(Z, 0) \qquad S = A W_2^T + b_2 \qquad P = \text{softmax}(S)$$

    Backward is the same list upside down. Each line takes the gradient of what its forward line *made* and
    gives the gradient of what that line *used*. Read the two functions side by side.
    """)
    return


@app.cell
def _(np):
    def draw_weights(seed, hidden=32):
        """Return W1 (hidden, 784), b1, W2 (10, hidden), b2, drawn as PyTorch draws them."""
        rng = np.random.default_rng(seed)
        a, b = 1 / np.sqrt(784), 1 / np.sqrt(hidden)
        return {
            "W1": rng.uniform(-a, a, (hidden, 784)),
            "b1": rng.uniform(-a, a, hidden),
            "W2": rng.uniform(-b, b, (10, hidden)),
            "b2": rng.uniform(-b, b, 10),
        }

    def forward(w, x, y):
        """Return the mean loss of images x (N, 784) with labels y (N,), and what backward needs."""
        z = x @ w["W1"].T + w["b1"]  # (N, hidden)
        a = np.maximum(z, 0)  # (N, hidden)
        s = a @ w["W2"].T + w["b2"]  # (N, 10)
        e = np.exp(s - s.max(1, keepdims=True))
        p = e / e.sum(1, keepdims=True)  # (N, 10)
        loss = -np.log(p[np.arange(len(y)), y]).mean()
        return loss, (x, z, a, p, y)

    def backward(w, cache):
        """Return the gradient of each weight, under its name."""
        x, z, a, p, y = cache
        grad_s = p.copy()  # (N, 10)
        grad_s[np.arange(len(y)), y] -= 1  # p - y
        grad_s /= len(y)  # the loss is a mean
        grad_a = grad_s @ w["W2"]  # (N, hidden)
        grad_z = grad_a * (z > 0)  # (N, hidden)
        return {
            "W2": grad_s.T @ a,
            "b2": grad_s.sum(0),
            "W1": grad_z.T @ x,
            "b1": grad_z.sum(0),
        }

    return backward, draw_weights, forward


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Training is a loop around them: forward, backward, a step against the gradient. One pass over all images
    is an *epoch*; their order is shuffled for each.
    """)
    return


@app.cell
def _(backward, draw_weights, forward, np, test_x, test_y, train_x, train_y):
    def train_by_hand(epochs=10, learning_rate=0.3, batch_size=50):
        """Return the trained weights and the loss of every step."""
        w, losses = draw_weights(seed=0), []
        rng = np.random.default_rng(1)
        for _ in range(epochs):
            for batch in rng.permutation(len(train_x)).reshape(-1, batch_size):
                loss, cache = forward(w, train_x[batch], train_y[batch])
                grads = backward(w, cache)
                for name in w:
                    w[name] -= learning_rate * grads[name]
                losses.append(float(loss))
        return w, losses

    trained, losses = train_by_hand()
    _, (_, _, _, test_p, _) = forward(trained, test_x, test_y)
    accuracy_by_hand = float(np.mean(test_p.argmax(1) == test_y))
    losses[0], losses[-1], accuracy_by_hand
    return accuracy_by_hand, losses, trained


@app.cell(hide_code=True)
def _(losses, np, plt):
    curve, _axes = plt.subplots(figsize=(6.6, 2.7), layout="constrained")
    _axes.plot(losses, alpha=0.4, label="loss of each batch")
    _axes.plot(
        np.arange(29, len(losses), 30), np.reshape(losses, (-1, 30)).mean(1), "o-", label="mean of an epoch"
    )
    _axes.set(xlabel="step", ylabel="loss", ylim=(0, 2.5))
    _axes.legend()
    curve
    return


@app.cell(hide_code=True)
def _(accuracy_by_hand, mo):
    mo.md(f"""
    It begins near log 10 = 2.3, as it should, and reads {accuracy_by_hand:.1%} of the test digits, which it
    has never seen. That is the whole of it. What follows is convenience and proof.

    What has a hidden neuron learnt? Each has 784 weights, one for each pixel: shown as images, blue where
    ink speaks against it and red where it speaks for it.
    """)
    return


@app.cell(hide_code=True)
def _(np, plt, trained):
    _order = np.argsort(-np.abs(trained["W1"]).max(1))[:16]
    neurons, _all = plt.subplots(2, 8, figsize=(8, 2.4))
    neurons.suptitle("the weights of 16 hidden neurons")
    for _axes, _unit in zip(_all.flat, _order, strict=True):
        _image = trained["W1"][_unit].reshape(28, 28)
        _axes.imshow(_image, cmap="RdBu_r", vmin=-np.abs(_image).max(), vmax=np.abs(_image).max())
        _axes.set_axis_off()
    neurons
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## The same as a `Module`

    Written like that, every new network is a new pair of functions. But each line is an operation with a
    forward and a backward of its own, and going back is *always* the same list in reverse. So let each
    layer keep its own cache and its own parameters; a `Sequential` then runs forward through the list and
    backward through the reversed list:

    ```python
    def forward(self, x):
        for module in self:
            x = module(x)
        return x

    def backward(self, grad):
        for module in reversed(self):
            grad = module.backward(grad)
        return grad
    ```

    That is what `nn_reference.Sequential` is, give or take a line. With the same weights as above:
    """)
    return


@app.cell
def _(draw_weights, nn, np):
    def module_of(w):
        """Return the same network made of modules."""
        network = nn.Sequential(
            nn.Linear(784, 32, dtype=np.float64), nn.ReLU(), nn.Linear(32, 10, dtype=np.float64)
        )
        network.load_state_dict(
            {"0.weight": w["W1"], "0.bias": w["b1"], "2.weight": w["W2"], "2.bias": w["b2"]}
        )
        return network

    network = module_of(draw_weights(seed=0))
    network
    return module_of, network


@app.cell
def _(network, nn, train_x, train_y):
    criterion = nn.CrossEntropyLoss()
    with nn.Tape(network, loss=criterion) as tape:
        module_loss = criterion(network(train_x[:50]), train_y[:50])
        network.backward(criterion.backward())
    return criterion, module_loss, tape


@app.cell(hide_code=True)
def _(mo, tape):
    mo.md(
        "A *tape* has listened to every layer. From top to bottom is forward, "
        "from bottom to top backward:\n\n"
        "| layer | input | output | gradient of the output | gradient of the input |\n"
        "| --- | --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {call.name} ({type(call.layer).__name__}) | {call.inputs[0].shape} | {call.output.shape} | "
            f"{call.grad_output.shape} | {call.grad_input.shape} |"
            for call in tape.calls
        )
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## The same in PyTorch

    There one writes only forward; `loss.backward()` finds the rest. The names are the same, because
    `nn_reference` takes its names from `torch.nn`.
    """)
    return


@app.cell
def _(draw_weights, torch, train_x, train_y):
    theirs = torch.nn.Sequential(torch.nn.Linear(784, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)).double()
    with torch.no_grad():
        for _parameter, _value in zip(theirs.parameters(), draw_weights(seed=0).values(), strict=True):
            _parameter.copy_(torch.from_numpy(_value))
    torch_loss = torch.nn.CrossEntropyLoss()(
        theirs(torch.from_numpy(train_x[:50])), torch.from_numpy(train_y[:50]).long()
    )
    torch_loss.backward()
    return theirs, torch_loss


@app.cell
def _(agreement, backward, draw_weights, forward, network, theirs, train_x, train_y):
    _w = draw_weights(seed=0)
    _, _cache = forward(_w, train_x[:50], train_y[:50])
    _by_hand = backward(_w, _cache)
    same = {}
    for _name, _module, _torch in zip(_w, network.parameters(), theirs.parameters(), strict=True):
        same[_name] = [
            agreement.compare_tensors(_name, _by_hand[_name], _module.grad).error,
            agreement.compare_tensors(_name, _by_hand[_name], _torch.grad.numpy()).error,
        ]
    return (same,)


@app.cell(hide_code=True)
def _(mo, same):
    mo.md(
        "Largest difference over largest value, by hand against ...\n\n"
        "| gradient of | `Module` | PyTorch |\n| --- | --- | --- |\n"
        + "\n".join(f"| {name} | {module:.0e} | {torch:.0e} |" for name, (module, torch) in same.items())
        + "\n\nThat is rounding in the last digit. Lesson 7 says how small such a number has to be."
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Why `zero_grad`?

    In the hand-written loop each step made new gradients. A `Module` **adds** to `parameter.grad`, as
    PyTorch does. The reason is lesson 2: a parameter that is used twice gets a gradient from each use, and
    they must add up. The engine cannot know whether your next backward belongs to the same step or begins a
    new one, so you say it: `zero_grad()`. Forget it, and each step follows the *sum of all gradients so
    far*:
    """)
    return


@app.cell
def _(draw_weights, module_of, nn, np, train_x, train_y):
    def train_module(zero, learning_rate=0.3, epochs=3):
        """Return the loss of every step, with or without zero_grad."""
        net, criterion = module_of(draw_weights(seed=0)), nn.CrossEntropyLoss()
        optimizer = nn.optim.SGD(net.parameters(), lr=learning_rate)
        rng, path = np.random.default_rng(1), []
        for _ in range(epochs):
            for batch in rng.permutation(len(train_x)).reshape(-1, 50):
                if zero:
                    optimizer.zero_grad()
                path.append(float(criterion(net(train_x[batch]), train_y[batch])))
                net.backward(criterion.backward(), input_grad=False)
                optimizer.step()
        return path

    with_zero, without_zero = train_module(zero=True), train_module(zero=False)
    return with_zero, without_zero


@app.cell(hide_code=True)
def _(plt, with_zero, without_zero):
    forgotten, _axes = plt.subplots(figsize=(6.6, 2.7), layout="constrained")
    _axes.semilogy(with_zero, label="with zero_grad")
    _axes.semilogy(without_zero, label="without")
    _axes.set(xlabel="step", ylabel="loss")
    _axes.legend()
    forgotten
    return


@app.cell
def _(losses, np, with_zero):
    same_as_by_hand = float(np.abs(np.array(with_zero) - losses[: len(with_zero)]).max())
    same_as_by_hand
    return (same_as_by_hand,)


@app.cell(hide_code=True)
def _(mo, same_as_by_hand):
    mo.md(f"""
    (With it, the losses are those of the loop by hand: over 90 steps the largest difference is
    {same_as_by_hand:.0e}.)

    Adding up is useful, too. If a batch does not fit into memory, run two halves, each with its loss
    divided by two, and only then take the step: the gradients are the same as those of the whole.

    The four lines of every training loop, here and in PyTorch:

    ```python
    optimizer.zero_grad()              # forget the last step's gradients
    loss = criterion(network(x), y)    # forward
    network.backward(criterion.backward())   # backward (PyTorch: loss.backward())
    optimizer.step()                   # change the parameters
    ```

    Around it stand `network.train()` before training and `network.eval()` before testing. In this network
    they change nothing. They do as soon as there is dropout or batch normalisation in it: lesson 9.

    ## Exercise

    Give the network a second hidden layer: 784-32-16-10. Write its forward and backward like the ones
    above. The check compares with autograd. In the start below the new layer is there, and its backward is
    missing: the gradient jumps over it.
    """)
    return


@app.cell
def _(np):
    def forward3(x, w1, w2, w3):
        """Return the scores of a network with two hidden ReLU layers (no biases), and what backward needs."""
        a1 = np.maximum(x @ w1.T, 0)  # (N, 6)
        a2 = np.maximum(a1 @ w2.T, 0)  # (N, 6)
        return a2 @ w3.T, (x, a1, a2, w1, w2, w3)  # (N, 3)

    def backward3(cache, grad_s):
        """Return the gradients of x, w1, w2 and w3. Your turn."""
        x, a1, a2, w1, _w2, w3 = cache
        grad_z2 = (grad_s @ w3) * (a2 > 0)
        grad_z1 = grad_z2 * (a1 > 0)  # jumps over w2
        return grad_z1 @ w1, grad_z1.T @ x, grad_z2.T @ a1, grad_s.T @ a2

    return backward3, forward3


@app.cell
def _(agreement, backward3, forward3, torch):
    def with_autograd(x, w1, w2, w3):
        """Return the scores of the same network, of tensors."""
        return torch.relu(torch.relu(x @ w1.T) @ w2.T) @ w3.T

    verdict = agreement.compare((forward3, backward3), with_autograd, [(5, 8), (6, 8), (6, 6), (3, 6)])
    str(verdict)
    return (verdict,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Then: `chainrule grade mlp my_mlp.py` for gradients, and `chainrule grade mnist my_training.py`
    for a loop that has to learn. `chainrule train simplenet` does all this with both engines, and
    `chainrule explain` shows each number.
    """)
    return


if __name__ == "__main__":
    app.run()
