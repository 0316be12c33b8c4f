"""Training by hand and by PyTorch, compared bit for bit.

Two correct engines part in the last bit because each product of matrices is a sum, and each BLAS library adds
in the order that suits it. Here both engines do every reduction (the products, the gradient of the bias,
log-sum-exp, the mean) in float64 and round it once to float32, in which everything is stored. Sums in another
order differ in the last bits of float64, and then nearly always round to the same float32: not if the sum is
so near to the midpoint of two float32 that these bits decide. Such near-ties are what breaks it first.

What is not a reduction is emulated to the bit. That is one thing: PyTorch's ``x.add_(y, alpha=a)`` is a fused
multiply-add, which rounds x + a y once, not twice (`multiply_add`).

PyTorch's side has real ``torch.autograd`` and real ``torch.optim.SGD``. Its layers cast to float64, compute
and cast back, and autograd then does the same on the way back. The loss is cross-entropy written out,
``mean(logsumexp(z) - z[label])``, with each part stored in float32. ``fused_loss=True`` takes PyTorch's one
operation for it, in float64. That breaks sooner: PyTorch's gradient at the label is p - 1, and near p = 1 the
rounding of p, 2^-53, is not small against what is left.
"""

import math
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import nn_reference as nn
from agreement.bits import ExactReport
from nn_reference import cross_entropy, linear, relu, softmax, torch_random

Tensors = dict[str, np.ndarray]


def multiply_add(a: np.ndarray, b: float | np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return ``a b + c`` in float32, rounded once: what ``torch.add(c, a, alpha=b)`` computes.

        a, c  (*), float32; b is rounded to float32 first, as by torch

    In float64 the product of two float32 is exact. The sum is not always, and rounding what is rounded
    already goes wrong if the first rounding lands on the midpoint of two float32: there the sum is moved by
    one unit of float64 towards what was lost. Source: Boldo and Melquiond (2008), rounding to odd.
    """
    product = a.astype(np.float64) * np.asarray(b, np.float32)
    total = product + c
    maybe_midpoint = (total.view(np.int64) & (2**28 - 1) == 0) & (total != c)
    if maybe_midpoint.any():
        p, t, c64 = product[maybe_midpoint], total[maybe_midpoint], c[maybe_midpoint].astype(np.float64)
        with np.errstate(invalid="ignore"):
            part = t - p
            lost = (p - (t - part)) + (c64 - part)  # exactly p + c - t (Knuth)
            total[maybe_midpoint] = np.nextafter(t, np.where(lost, np.copysign(np.inf, lost), t))
    rounded: np.ndarray = total.astype(np.float32)
    return rounded


@dataclass(frozen=True)
class SGD:
    """The settings of ``torch.optim.SGD``, and its step in float32."""

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def step(
        self, w: np.ndarray, g: np.ndarray, b: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the new weight and velocity, from weight, gradient and velocity (None at first)."""
        if self.weight_decay:
            g = multiply_add(w, self.weight_decay, g)
        if self.momentum:
            b = g if b is None else multiply_add(g, 1 - self.dampening, b * np.float32(self.momentum))
            g = multiply_add(b, self.momentum, g) if self.nesterov else b
        return multiply_add(g, -self.lr, w), b


class Reference:
    """The network by hand: `nn_reference`'s pure functions in float64, each result rounded to float32."""

    def __init__(self, network: nn.Sequential, sgd: SGD, fused_loss: bool) -> None:
        self.layers = layers_of(network)
        self.parameters: Tensors = network.state_dict()
        self.velocities: dict[str, np.ndarray | None] = dict.fromkeys(self.parameters)
        self.sgd, self.fused_loss = sgd, fused_loss
        self.unrounded: Tensors = {}  # the float64 value of each reduction of the last step

    def step(self, x: np.ndarray, labels: np.ndarray) -> Tensors:
        """Train on a batch, x (N, in) and labels (N,); return all that was computed, in that order."""
        seen: Tensors = {}
        caches: list[Any] = []
        cache: Any
        for name, layer in self.layers:
            if isinstance(layer, nn.Linear):
                own = [self.parameters[key].astype(np.float64) for key in keys_of(name, layer)]
                y, cache = linear.forward(x.astype(np.float64), *own)
                x = self._round(f"{name}.output", y)
            else:
                x, cache = relu.forward(x)
            seen[f"{name}.output"] = x
            caches.append(cache)

        grad = self._loss(x, labels, seen)
        for i in reversed(range(len(self.layers))):
            name, layer = self.layers[i]
            seen[f"{name}.output.grad"] = grad
            if isinstance(layer, nn.Linear):
                grad_x, *grads = linear.backward(caches[i], grad.astype(np.float64), need_grad_x=i > 0)
                for key, g in zip(keys_of(name, layer), grads, strict=False):  # bias=False has no second key
                    seen[f"{key}.grad"] = self._round(f"{key}.grad", g)
                if i > 0:
                    grad = self._round(f"{self.layers[i - 1][0]}.output.grad", grad_x)
            else:  # not relu.backward, whose product with the mask is -0 in places where torch has 0
                grad = np.where(caches[i] > 0, grad, np.float32(0))

        for key, w in self.parameters.items():
            new_w, velocity = self.sgd.step(w, seen[f"{key}.grad"], self.velocities[key])
            self.parameters[key], self.velocities[key] = new_w, velocity
            seen[key] = new_w
            if velocity is not None:
                seen[f"{key}.momentum_buffer"] = velocity
        return seen

    def _round(self, name: str, value: Any) -> np.ndarray:
        self.unrounded[name] = np.asarray(value)
        return self.unrounded[name].astype(np.float32)

    def _loss(self, z: np.ndarray, labels: np.ndarray, seen: Tensors) -> np.ndarray:
        """Put the loss of the logits z (N, C) into ``seen``; return its gradient with respect to z."""
        logits_grad = f"{self.layers[-1][0]}.output.grad"
        wide, rows = z.astype(np.float64), np.arange(len(z))
        if self.fused_loss:
            loss, cache = cross_entropy.forward(wide, labels)
            seen["loss"] = self._round("loss", loss)
            return self._round(logits_grad, cross_entropy.backward(cache, np.ones(())))
        _, _, rest = softmax.exponentials(wide, 1)
        seen["logsumexp"] = self._round("logsumexp", wide.max(1) + np.log1p(rest[:, 0]))
        losses = seen["logsumexp"] - z[rows, labels]  # (N,), in float32
        seen["loss"] = self._round("loss", losses.mean(dtype=np.float64))
        share = np.float32(1 / len(z))  # the gradient of each loss; each of its two terms passes it on
        p, _ = softmax.forward(wide, 1)
        grad = self._round(logits_grad, p * np.float64(share))
        grad[rows, labels] -= share
        self.unrounded[logits_grad][rows, labels] -= share
        return grad


class Autograd:
    """The same network in PyTorch, from the same bits; it keeps what passes between the layers."""

    def __init__(self, network: nn.Sequential, sgd: SGD, fused_loss: bool) -> None:
        import torch

        class Float64Linear(torch.nn.Linear):
            def forward(self, x: Any) -> Any:
                bias = None if self.bias is None else self.bias.double()
                return torch.nn.functional.linear(x.double(), self.weight.double(), bias).float()

        modules: OrderedDict[str, Any] = OrderedDict()
        for name, layer in layers_of(network):
            if isinstance(layer, nn.Linear):
                has_bias = layer.bias is not None
                modules[name] = Float64Linear(layer.in_features, layer.out_features, has_bias)
            else:
                modules[name] = torch.nn.ReLU()
        self.network = torch.nn.Sequential(modules)
        self.network.load_state_dict({k: torch.from_numpy(v) for k, v in network.state_dict().items()})
        self.optimizer = torch.optim.SGD(self.network.parameters(), **asdict(sgd))
        self.fused_loss = fused_loss

    def step(self, x: np.ndarray, labels: np.ndarray) -> Tensors:
        """Train on a batch, x (N, in) and labels (N,); return all that was computed."""
        import torch

        seen: dict[str, Any] = {}
        z, target = torch.from_numpy(x), torch.from_numpy(labels)
        for name, module in self.network.named_children():
            z = module(z)
            z.retain_grad()
            seen[f"{name}.output"] = z
        if self.fused_loss:
            loss = torch.nn.functional.cross_entropy(z.double(), target).float()
        else:
            seen["logsumexp"] = torch.logsumexp(z.double(), 1).float()
            losses = seen["logsumexp"] - z.gather(1, target[:, None])[:, 0]
            loss = losses.double().mean().float()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

        seen |= {f"{name}.grad": output.grad for name, output in seen.items() if name.endswith(".output")}
        for name, parameter in self.network.named_parameters():
            state = self.optimizer.state[parameter]
            seen |= {name: parameter, f"{name}.grad": parameter.grad}
            seen[f"{name}.momentum_buffer"] = state.get("momentum_buffer")
        seen["loss"] = loss
        return {name: value.detach().numpy() for name, value in seen.items() if value is not None}


def exact_training(
    network: nn.Sequential,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    steps: int,
    generator: torch_random.Generator,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    batch_size: int = 64,
    fused_loss: bool = False,
) -> ExactReport:
    """Train ``network`` by hand and by PyTorch from the same bits, and compare every bit at every step.

        network    Linear and ReLU layers in float32, a Linear first (after a Flatten, if there is one)
        images     (N, ...), float32
        labels     (N,), int64
        generator  gives the order of each epoch, as ``torch.randperm`` does

    The network is not changed, and neither engine is given anything of the other's after the start. Compared
    are each layer's output and its gradient, the loss, and each parameter, its gradient and its velocity.

    Raises NotImplementedError for another layer, TypeError or ValueError for other dtypes and numbers of
    examples, and FloatingPointError when the loss is no longer finite.
    """
    x = _check(network, images, labels)
    sgd = SGD(lr, momentum, dampening, weight_decay, nesterov)
    reference, autograd = Reference(network, sgd, fused_loss), Autograd(network, sgd, fused_loss)
    report = ExactReport()
    per_epoch = math.ceil(len(x) / batch_size)
    for step in range(steps):
        if step % per_epoch == 0:
            order = generator.randperm(len(x))
        start = step % per_epoch * batch_size
        batch = order[start : start + batch_size]
        ours, theirs = reference.step(x[batch], labels[batch]), autograd.step(x[batch], labels[batch])
        if not np.isfinite(ours["loss"]):
            raise FloatingPointError(f"exact_training: the loss is {ours['loss']} at step {step + 1}")
        report.add(ours, theirs, reference.unrounded)
    return report


def layers_of(network: nn.Sequential) -> list[tuple[str, Any]]:
    """Return the names and layers of a network, without a Flatten in front."""
    layers = list(network.named_children())
    return layers[1:] if layers and isinstance(layers[0][1], nn.Flatten) else layers


def keys_of(name: str, layer: nn.Linear) -> list[str]:
    """Return the keys of a layer's parameters: of the weight and, if there is one, of the bias."""
    return [f"{name}.weight"] if layer.bias is None else [f"{name}.weight", f"{name}.bias"]


def _check(network: nn.Sequential, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the images as (N, in); raise what `exact_training` says."""
    layers = layers_of(network)
    for name, layer in layers:
        if not isinstance(layer, nn.Linear | nn.ReLU):
            kind = type(layer).__name__
            raise NotImplementedError(f"exact_training: {name!r} is a {kind}, expected Linear or ReLU")
    if not layers or not isinstance(layers[0][1], nn.Linear):
        raise ValueError("exact_training: the network does not begin with a Linear")
    for key, value in {**network.state_dict(), "images": images}.items():
        if value.dtype != np.float32:
            raise TypeError(f"exact_training: {key} is {value.dtype}, expected float32")
    if labels.dtype != np.int64:
        raise TypeError(f"exact_training: labels is {labels.dtype}, expected int64")
    if len(images) != len(labels) or not len(images):
        raise ValueError(f"exact_training: {len(images)} images and {len(labels)} labels")
    return images.reshape(len(images), -1)
