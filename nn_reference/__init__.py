"""Forward and backward by hand, in NumPy, under the names of ``torch.nn``.

Each file holds one operation as a pair of pure functions, ``forward`` and below it ``backward`` with its
derivation, and the module that wraps them. A good order to read them in: linear, relu, flatten, mse, softmax,
cross_entropy; module is what holds them together.
"""

from nn_reference import init, optim
from nn_reference.cross_entropy import CrossEntropyLoss
from nn_reference.flatten import Flatten, Identity
from nn_reference.linear import Linear
from nn_reference.module import Layer, Module, Parameter, Sequential, Tape, no_grad
from nn_reference.mse import L1Loss, MSELoss
from nn_reference.nll import NLLLoss
from nn_reference.relu import ReLU
from nn_reference.softmax import LogSoftmax, Softmax

__all__ = [
    "CrossEntropyLoss",
    "Flatten",
    "Identity",
    "L1Loss",
    "Layer",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "Module",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "Sequential",
    "Softmax",
    "Tape",
    "init",
    "no_grad",
    "optim",
]
