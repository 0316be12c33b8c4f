"""PyTorch as it is, float32 throughout, followed bit for bit over an epoch of MNIST: on one kind of machine.

    CHAINRULE_DATA=folder python benchmarks/unmodified_epoch.py [--seeds 8] [--steps 938]

The network is torch.nn.Linear(784, 128), ReLU, Linear(128, 10), with torch.nn.CrossEntropyLoss and
torch.optim.SGD, nothing changed. The sums by hand are made in the order in which PyTorch makes them: the
processor and the versions decide it, so this is an experiment and no test. Written down here is what PyTorch
2.13.0 does with MKL 2024.2, on an AMD EPYC with AVX-512, in one thread. The orders were found by sums that
show them: of ones, with 2^40 and -2^40 in two places, only those ones survive that are added after the two
have met (Xie, Gao, Wang and Xue, *Revealing Floating-Point Accumulation Orders*, 2024).
"""

import argparse
import time

import numpy as np
import torch

import nn_reference as nn
from agreement.exact import SGD, multiply_add
from chainrule import datasets
from nn_reference import torch_random

f32 = np.float32


def product(a: np.ndarray, b: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """``start + a b``, (M, K) and (K, N), N >= 12: a fused multiply-add after the other along K.

    Every 192 of them begin again at 0, and their sums are added to ``start`` one after the other.
    """
    total = start
    for first in range(0, a.shape[1], 192):
        part = np.zeros((a.shape[0], b.shape[1]), f32)
        for k in range(first, min(first + 192, a.shape[1])):
            if a[:, k].any():
                part = multiply_add(a[:, k : k + 1], b[k], part)
        total = part if total is None else total + part
    return total


def narrow_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a b``, (M, K) and (K, 10): the first 8 columns by 4 sums side by side, the last 2 by 8."""
    return np.concatenate([lanes(a, b[:, :8], 4), lanes(a, b[:, 8:], 8)], axis=1)


def lanes(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """``a b`` without fused multiply-adds; sum i takes the terms i, i + n, ...; at last halves are added."""
    sums = np.zeros((n, a.shape[0], b.shape[1]), f32)
    for k in range(0, a.shape[1], n):
        sums += a[:, k : k + n].T[:, :, None] * b[k : k + n, None, :]
    while len(sums) > 1:
        sums = sums[: len(sums) // 2] + sums[len(sums) // 2 :]
    return sums[0]


def sum_rows(a: np.ndarray) -> np.ndarray:
    """(N, M) summed over N, M a multiple of 16: runs of 16 rows, whose sums are added one after the other."""
    total = np.zeros(a.shape[1], f32)
    for first in range(0, len(a), 16):
        total = total + one_by_one(a[first : first + 16])
    return total


def sum_rows_narrow(a: np.ndarray) -> np.ndarray:
    """(N, 10) summed over N: 4 sums side by side, of every fourth row, and these one after the other."""
    return one_by_one(np.stack([sum_rows(a[i::4]) for i in range(4)]))


def one_by_one(a: np.ndarray) -> np.ndarray:
    """The sum over the first axis, in order."""
    total = a[0]
    for row in a[1:]:
        total = total + row
    return total


def horner(x: np.ndarray, *coefficients: float) -> np.ndarray:
    """A polynomial, the highest power first, by fused multiply-adds."""
    value = np.full(x.shape, coefficients[0], f32)
    for c in coefficients[1:]:
        value = multiply_add(value, x, np.full(x.shape, c, f32))
    return value


def exp(x: np.ndarray) -> np.ndarray:
    """exp in float32 as Sleef has it (Shibata and Petrogalli 2020, ``expf_u10``): 2^q exp(s), small s."""
    q = np.rint(x * f32(1.4426950408889634))
    s = multiply_add(q, -0.693145751953125, x)
    s = multiply_add(q, -1.428606765330187045e-06, s)
    head = (0.00019852761, 0.0013930436, 0.0083333608, 0.041666485, 0.16666667, 0.5)
    y = f32(1) + multiply_add(s * s, horner(s, *head), s)
    return np.where(x < -104, f32(0), np.ldexp(y, q.astype(int)))


def log(x: np.ndarray) -> np.ndarray:
    """log in float32 as Sleef has it (``logf_u10``): of 2^e m with m near 1, by r = (m - 1) / (m + 1).

    log m = 2 r + r^3 (2/3 + ...). Sleef keeps r and the sum in two float32; float64 holds as much.
    """
    e = np.floor(np.log2(x.astype(np.float64) / 0.75))
    m = x * np.exp2(-e)
    r = (m - 1).astype(f32) * (f32(1) / (m + 1).astype(f32))
    square = r * r
    tail = square * r * horner(square, 0.3027294874, 0.3996108174, 0.6666694880)
    ln2 = float(f32(0.69314718246459960938)) + float(f32(-1.904654323148236017e-09))
    return (ln2 * e + 2 * ((m - 1) / (m + 1)) + tail).astype(f32)


def mean_loss(losses: np.ndarray) -> np.ndarray:
    """(N,), N <= 256: the first apart, then runs of 16; the last, unfinished run is where it begins."""
    runs = [one_by_one(losses[i : i + 16]) for i in range(1, len(losses), 16)]
    full = runs[:-1] if len(losses) % 16 != 1 else runs
    rest = runs[-1] if len(losses) % 16 != 1 else f32(0)
    middle = one_by_one(np.array(full)) if full else f32(0)
    return np.asarray((rest + middle + losses[0]) / f32(len(losses)))


class ByHand:
    """The training by hand; ``step`` returns what PyTorch is compared with, by name."""

    def __init__(self, generator: torch_random.Generator, sgd: SGD) -> None:
        linears = nn.Linear(784, 128, generator=generator), nn.Linear(128, 10, generator=generator)
        self.w1, self.b1, self.w2, self.b2 = (p.data for fc in linears for p in (fc.weight, fc.bias))
        self.velocities: list[np.ndarray | None] = [None] * 4
        self.sgd = sgd

    def step(self, x: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        n, rows = len(x), np.arange(len(x))
        h = product(x, self.w1.T, start=np.broadcast_to(self.b1, (n, 128)))  # (n, 128)
        h = np.maximum(h, 0)
        z = narrow_product(h, self.w2.T) + self.b2  # (n, 10)

        shifted = z - z.max(1, keepdims=True)
        log_p = shifted - log(one_by_one(exp(shifted).T))[:, None]
        loss = mean_loss(-log_p[rows, labels])

        grad_z = np.zeros_like(z)
        grad_z[rows, labels] = f32(-1 / n)
        grad_z = multiply_add(exp(log_p), 1 / n, grad_z)  # p / n - [j = label] / n
        grad_h = np.where(h > 0, product(grad_z, self.w2), f32(0))
        grads = [product(grad_h.T, x), sum_rows(grad_h), product(grad_z.T, h), sum_rows_narrow(grad_z)]
        new = [self.w1, self.b1, self.w2, self.b2]
        for i, (w, g) in enumerate(zip(new, grads, strict=True)):
            new[i], self.velocities[i] = self.sgd.step(w, g, self.velocities[i])
        self.w1, self.b1, self.w2, self.b2 = new
        return {"hidden": h, "logits": z, "loss": loss, "grad of logits": grad_z} | {
            f"{kind}{name}": a
            for kind, arrays in (("grad of ", grads), ("", new))
            for name, a in zip(("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"), arrays, strict=True)
        }


class ByTorch:
    """The same, as anyone writes it."""

    def __init__(self, sgd: SGD) -> None:
        self.fc1, self.fc2 = torch.nn.Linear(784, 128), torch.nn.Linear(128, 10)
        self.parameters = {
            f"{name}.{kind}": parameter
            for name, layer in (("fc1", self.fc1), ("fc2", self.fc2))
            for kind, parameter in layer.named_parameters()
        }
        self.criterion = torch.nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.parameters.values(), lr=sgd.lr, momentum=sgd.momentum)

    def step(self, x: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        h = torch.relu(self.fc1(torch.from_numpy(x)))
        z = self.fc2(h)
        z.retain_grad()
        loss = self.criterion(z, torch.from_numpy(labels))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        tensors = {"hidden": h, "logits": z, "loss": loss, "grad of logits": z.grad} | self.parameters
        tensors |= {f"grad of {name}": parameter.grad for name, parameter in self.parameters.items()}
        return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=938)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    mnist = datasets.load("mnist")
    images = mnist.train_images.reshape(-1, 784).astype(f32) / f32(255)
    labels = mnist.train_labels.astype(np.int64)
    print(f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, one thread\n")
    print("| seed | steps | elements compared | differ | first difference | last loss | seconds |")
    print("|---|---|---|---|---|---|---|")
    for seed in range(arguments.seeds):
        start = time.perf_counter()
        sgd = SGD(lr=0.1, momentum=0.9)
        torch.manual_seed(seed)
        generator = torch_random.Generator(seed)
        hand, theirs = ByHand(generator, sgd), ByTorch(sgd)
        order = generator.randperm(len(images))
        compared = differ = 0
        first = "-"
        for step in range(arguments.steps):
            batch = order[step * 64 : step * 64 + 64]
            ours, expected = (side.step(images[batch], labels[batch]) for side in (hand, theirs))
            for name, a in ours.items():
                wrong = int((a.view(np.uint32) != expected[name].view(np.uint32)).sum())
                if wrong and first == "-":
                    first = f"step {step + 1}, {name}: {wrong} elements"
                compared, differ = compared + a.size, differ + wrong
        seconds = time.perf_counter() - start
        loss = float(ours["loss"])
        print(
            f"| {seed} | {step + 1} | {compared} | {differ} | {first} | {loss:.6g} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
