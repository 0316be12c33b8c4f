"""Learning rates that change while training: ``torch.optim.lr_scheduler``.

Call ``step()`` after the optimizer's, once an epoch or once a batch, whichever the numbers given are counted
in; ``last_epoch`` (t below) counts these calls. Like torch's, most schedules say how to get from the last
rate to the next one, so that two of them can act on one optimizer. In the formulas lr_0 is the rate that the
optimizer was made with.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nn_reference._arrays import check_choice, refuse
from nn_reference.optim.optimizer import Optimizer

Group = dict[str, Any]


class LRScheduler:
    """The base: a subclass says in ``_next`` what a group's rate becomes at ``last_epoch``."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        refuse(type(self).__name__, last_epoch=None if last_epoch == -1 else last_epoch)
        self.optimizer, self.last_epoch = optimizer, -1
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.step()

    def step(self) -> None:
        """Set the optimizer's learning rates for the next epoch, or batch."""
        self.last_epoch += 1
        rates = [self._next(group) for group in self.optimizer.param_groups]
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = lr

    def restart(self, rates: Iterable[float]) -> None:
        """Begin the schedule again from these rates."""
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = lr
        self.last_epoch = -1
        self.step()

    def _next(self, group: Group) -> float:
        raise NotImplementedError

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on from here."""
        return {key: value for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; the optimizer has its own."""
        vars(self).update(state_dict)


class StepLR(LRScheduler):
    """``lr_t = lr_0 gamma^(t // step_size)``."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR: {step_size=}, expected at least 1")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def _next(self, group: Group) -> float:
        due = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return group["lr"] * self.gamma if due else group["lr"]


class MultiStepLR(LRScheduler):
    """``lr_t = lr_0 gamma^(number of milestones up to t)``."""

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def _next(self, group: Group) -> float:
        return group["lr"] * self.gamma ** self.milestones[self.last_epoch]


class ExponentialLR(LRScheduler):
    """``lr_t = lr_0 gamma^t``."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _next(self, group: Group) -> float:
        return group["lr"] * self.gamma if self.last_epoch > 0 else group["lr"]


class LinearLR(LRScheduler):
    """``lr_t = lr_0 f_t``, where f goes in a straight line from start_factor to end_factor in total_iters."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(f"LinearLR: {start_factor=} and {end_factor=}, expected in (0, 1] and [0, 1]")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def _next(self, group: Group) -> float:
        t = self.last_epoch
        if t == 0:
            return group["lr"] * self.start_factor
        if t > self.total_iters:
            return group["lr"]
        rise = self.end_factor - self.start_factor
        return group["lr"] * (1 + rise / (self.total_iters * self.start_factor + (t - 1) * rise))


class CosineAnnealingLR(LRScheduler):
    """``lr_t = eta_min + (lr_0 - eta_min) (1 + cos(pi t / T_max)) / 2`` (Loshchilov and Hutter 2017)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if T_max < 1:
            raise ValueError(f"CosineAnnealingLR: {T_max=}, expected at least 1")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def _height(self, t: int) -> float:
        return 1 + math.cos(math.pi * t / self.T_max)

    def _next(self, group: Group) -> float:
        t = self.last_epoch
        if t == 0:
            return group["lr"]
        if (t - 1) % (2 * self.T_max) == self.T_max:  # the last rate was eta_min, a ratio to it tells nothing
            rise = (group["initial_lr"] - self.eta_min) * (1 - math.cos(math.pi / self.T_max)) / 2
            return group["lr"] + rise
        return self._height(t) / self._height(t - 1) * (group["lr"] - self.eta_min) + self.eta_min


class OneCycleLR(LRScheduler):
    """Up to ``max_lr`` and down to almost nothing within ``total_steps`` steps, one a batch.

    From max_lr / div_factor up during the first ``pct_start`` of the steps, and down to that divided by
    ``final_div_factor``, along a cosine or a line; with ``three_phase`` first down as it went up. With
    ``cycle_momentum`` the momentum (Adam's beta1) goes the other way. Source: Smith and Topin (2018).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if total_steps < 1 or not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: {total_steps=}, {pct_start=}, expected at least 1, from 0 to 1")
        check_choice("OneCycleLR", "anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.total_steps, self.anneal_strategy = total_steps, anneal_strategy
        self.cycle_momentum = cycle_momentum
        # each phase: its last step, and the names of the rates and momenta that it goes between
        up, last = pct_start * total_steps - 1, total_steps - 1
        rise = (up, "initial_lr", "max_lr", "max_momentum", "base_momentum")
        if three_phase:
            fall = (2 * up, "max_lr", "initial_lr", "base_momentum", "max_momentum")
            self.phases = [rise, fall, (last, "initial_lr", "min_lr", "max_momentum", "max_momentum")]
        else:
            self.phases = [rise, (last, "max_lr", "min_lr", "base_momentum", "max_momentum")]
        if cycle_momentum and not {"momentum", "betas"} & set(optimizer.defaults):
            raise ValueError("OneCycleLR: cycle_momentum needs an optimizer with momentum or betas")
        groups = optimizer.param_groups
        given = [_each(value, len(groups)) for value in (max_lr, max_momentum, base_momentum)]
        for group, top, most, least in zip(groups, *given, strict=True):
            group.update(initial_lr=top / div_factor, max_lr=top, min_lr=top / div_factor / final_div_factor)
            if cycle_momentum:
                group.update(max_momentum=most, base_momentum=least)
        super().__init__(optimizer, last_epoch)

    def _next(self, group: Group) -> float:
        t = self.last_epoch
        if t > self.total_steps:
            raise ValueError(f"OneCycleLR: step {t}, total_steps is {self.total_steps}")
        phase = next((i for i, (end, *_) in enumerate(self.phases) if t <= end), len(self.phases) - 1)
        start = self.phases[phase - 1][0] if phase else 0.0
        end, first_lr, last_lr, first_momentum, last_momentum = self.phases[phase]
        done = (t - start) / (end - start) if end != start else 1.0
        if self.cycle_momentum:
            momentum = self._between(group[first_momentum], group[last_momentum], done)
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum
        return self._between(group[first_lr], group[last_lr], done)

    def _between(self, start: float, end: float, done: float) -> float:
        if self.anneal_strategy == "cos":
            return end + (start - end) / 2 * (1 + math.cos(math.pi * done))
        return (end - start) * done + start


class SequentialLR(LRScheduler):
    """One schedule after the other: the next begins, from the initial rates, at each of ``milestones``."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        refuse("SequentialLR", last_epoch=None if last_epoch == -1 else last_epoch)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(f"SequentialLR: {len(milestones)} milestones for {len(schedulers)} schedulers")
        for scheduler in schedulers:
            name = type(scheduler).__name__
            if isinstance(scheduler, ReduceLROnPlateau | SequentialLR):
                raise NotImplementedError(f"SequentialLR: a {name} among the schedulers is not supported")
            if scheduler.optimizer is not optimizer:
                raise ValueError(f"SequentialLR: the {name} belongs to another optimizer")
        self.optimizer, self.last_epoch = optimizer, 0
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        self.schedulers[0].restart([group["initial_lr"] for group in optimizer.param_groups])

    def step(self) -> None:
        """Set the optimizer's learning rates for the next epoch, or batch."""
        self.last_epoch += 1
        i = bisect_right(self.milestones, self.last_epoch)
        if i > 0 and self.milestones[i - 1] == self.last_epoch:
            self.schedulers[i].restart(self.schedulers[i].base_lrs)
        else:
            self.schedulers[i].step()

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on from here."""
        return {**super().state_dict(), "schedulers": [s.state_dict() for s in self.schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; the optimizer has its own."""
        for scheduler, state in zip(self.schedulers, state_dict["schedulers"], strict=True):
            scheduler.load_state_dict(state)
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "schedulers"})


class ReduceLROnPlateau(LRScheduler):
    """Multiply the rate by ``factor`` when a metric has not improved for more than ``patience`` epochs.

    Improving means by more than ``threshold``, "rel"ative to the best so far or "abs"olute. After a reduction
    nothing counts as bad for ``cooldown`` epochs.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        if factor >= 1:
            raise ValueError(f"ReduceLROnPlateau: factor={factor}, expected less than 1")
        check_choice("ReduceLROnPlateau", "mode", mode, ("min", "max"))
        check_choice("ReduceLROnPlateau", "threshold_mode", threshold_mode, ("rel", "abs"))
        self.optimizer, self.last_epoch = optimizer, 0
        self.mode, self.factor, self.patience, self.cooldown = mode, factor, patience, cooldown
        self.threshold, self.threshold_mode, self.eps = threshold, threshold_mode, eps
        self.min_lrs = _each(min_lr, len(optimizer.param_groups))
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = 0

    def step(self, metrics: float | None = None) -> None:
        """Count the epoch as good or bad by its metric, and reduce the rates when it is time."""
        if metrics is None:
            raise TypeError("ReduceLROnPlateau: step needs the metric, as step(loss)")
        self.last_epoch += 1
        if self._improved(float(metrics)):
            self.best, self.num_bad_epochs = float(metrics), 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                lr = max(group["lr"] * self.factor, least)
                if group["lr"] - lr > self.eps:
                    group["lr"] = lr
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _improved(self, metric: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * metric > sign * self.best * (1 + sign * self.threshold)
        return sign * metric > sign * self.best + self.threshold


def _each(value: float | Sequence[float], groups: int) -> list[float]:
    """Return one number for each group."""
    values = list(value) if isinstance(value, Sequence) else [value] * groups
    if len(values) != groups:
        raise ValueError(f"found {len(values)} numbers, expected one, or one for each of {groups} groups")
    return values
