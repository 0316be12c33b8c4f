"""Optimizers, by the names and arguments of ``torch.optim``."""

from nn_reference.optim import lr_scheduler
from nn_reference.optim.adam import Adam, AdamW
from nn_reference.optim.optimizer import Optimizer
from nn_reference.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]
