"""One training by several processes: each takes its share of a batch, and the gradient is the whole batch's.

With N ranks, a batch of n examples of which this rank has m, and the mean loss L_r over a rank's share:

    L = sum over ranks of (m / n) L_r          so that dL/dw = mean over ranks of d(N m / n L_r)/dw

`torch.nn.parallel.DistributedDataParallel` takes the mean of the ranks' gradients, overlapped with backward;
the factor N m / n makes it right for shares of different sizes, as the last batch of an epoch has them. Where
a batch is smaller than the number of ranks, some have no share, and contribute nothing.

A rank's share is every N-th example of the batch. Nothing is drawn or decided by a rank for itself: all have
the same parameters, optimizer, learning rate and sums, to the bit.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from torch_impl.engine import Data, TorchEngine


class ParallelEngine(TorchEngine):
    """A `TorchEngine` in each of the processes of ``torch.distributed``, which must have been set up.

    Every rank calls the same methods with the same arguments: ``train_step`` with the indices of the whole
    batch, ``evaluate`` with all the data. Loss, accuracy, gradient and outputs are those of the whole batch
    and of all the data, whichever the rank. BatchNorm takes its statistics over the whole batch
    (`GlobalBatchNorm`); the masks of Dropout follow from ``seed``, the number of the step and the rank.
    """

    def __init__(
        self,
        network: nn.Module,
        criterion: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: str,
        *,
        seed: int = 0,
        **options: Any,
    ):
        if options.get("cuda_graphs"):
            raise ValueError("cuda_graphs is for one process: recorded steps do not wait for other ranks")
        with_batch_statistics_of_all_ranks(network)
        super().__init__(network, criterion, optimizer, device, **options)
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self._seed, self._steps, self._alone = seed, 0, False
        self._draws = any(isinstance(module, nn.Dropout) for module in network.modules())
        self._model = DistributedDataParallel(network, gradient_as_bucket_view=True)

    def _gradient(self, data: Data, indices: Tensor) -> tuple[Tensor, Tensor]:
        share = indices[self.rank :: self.ranks]
        if self._draws:
            torch.manual_seed(_seed_of(self._seed, self._steps, self.rank))
        self._steps += 1
        loss, correct = self._forward(len(indices))(data, share)
        (loss * (self.ranks * len(share) / len(indices))).backward()
        sums = torch.stack([loss.detach().double() * len(share), correct.double()])
        dist.all_reduce(sums)
        return sums[0] / len(indices), sums[1]

    def _mean_loss(self, logits: Tensor, labels: Tensor) -> Any:
        """Return the mean loss; of no examples 0, with a gradient of 0 for every parameter."""
        return super()._mean_loss(logits, labels) if len(labels) else logits.sum() * 0

    @torch.no_grad()
    def evaluate(self, data: Data, batch_size: int = 1000) -> tuple[float, np.ndarray]:
        """Return the mean loss over ``data`` and the outputs, (N, classes); each rank computes its share."""
        count = len(data.labels)
        if self._alone or count < self.ranks:
            return super().evaluate(data, batch_size)
        first, end = (count * rank // self.ranks for rank in (self.rank, self.rank + 1))
        share = Data(data.pixels[first:end], data.labels[first:end], data.mean, data.std)
        total, mine = self._evaluate(share, batch_size)
        outputs = mine.new_zeros((count, *mine.shape[1:]))
        outputs[first:end] = mine
        dist.all_reduce(outputs)
        dist.all_reduce(total)
        return total.item() / count, outputs.cpu().numpy()

    def part(self) -> None:
        """Go on alone, once the training is over: an evaluation then needs no other rank, and is whole."""
        self._alone = True

    def training_state(self) -> dict[str, Any]:
        """Return what a `TorchEngine` would, and the number of steps, which the masks follow from."""
        state = super().training_state()
        return {**state, "random": {**state["random"], "steps": self._steps}}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Go on from where any engine's ``training_state`` was called, with any number of ranks."""
        super().load_training_state(state)
        self._steps = int(state["random"].get("steps", 0))


def _seed_of(*numbers: int) -> int:
    """Return a seed that no other numbers are likely to give."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks, on each of them.

    What a rank puts in, every rank gets out; so its gradient is the sum of the gradients of all of them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm1d and BatchNorm2d over the whole batch, on CPUs as well (``nn.SyncBatchNorm`` needs CUDA).

    Mean and variance are those of all ranks' shares together, forward and backward, so that N ranks do what
    one process does with the whole batch. In eval mode it is the layer that it replaces.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # the layer that this replaces has been tried

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised images; x is (N, C) or (N, C, H, W)."""
        if not self.training:
            unchanged: Tensor = super().forward(input)
            return unchanged
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [axis for axis in range(x.dim()) if axis != 1]
        column = [1, -1] + [1] * (x.dim() - 2)
        sums = torch.cat([x.sum(axes), x.new_full((1,), x.numel() // x.shape[1])])  # (C + 1,)
        sums = _SumOverRanks.apply(sums)  # type: ignore[no-untyped-call]
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()  # (), (C,)
        centred = x - mean.view(column)
        squares = _SumOverRanks.apply(centred.square().sum(axes))  # type: ignore[no-untyped-call]
        variance = squares / count  # (C,)
        if self.running_mean is not None and self.running_var is not None:
            self._keep(mean.detach(), squares.detach() / (count - 1))
        y = centred * (variance + self.eps).rsqrt().view(column)
        if self.affine:
            y = y * self.weight.view(column) + self.bias.view(column)
        normalised: Tensor = y.to(input.dtype)
        return normalised

    @torch.no_grad()
    def _keep(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        """Move the running statistics towards those of this batch."""
        momentum: Any = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            momentum = 1 / self.num_batches_tracked.double() if momentum is None else momentum
        for running, now in ((self.running_mean, mean), (self.running_var, unbiased_variance)):
            running.mul_(1 - momentum).add_(now * momentum)  # type: ignore[union-attr]


def with_batch_statistics_of_all_ranks(network: nn.Module) -> None:
    """Replace each BatchNorm layer by a `GlobalBatchNorm` of the same parameters and buffers."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                over_all = GlobalBatchNorm(
                    layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
                )
                over_all._parameters, over_all._buffers = layer._parameters, layer._buffers
                over_all.training = layer.training
                setattr(parent, name, over_all)
