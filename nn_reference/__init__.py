"""Forward and backward by hand, in NumPy, under the names of ``torch.nn``.

Each file holds one operation as a pair of pure functions, ``forward`` and below it ``backward`` with its
derivation, and the module that wraps them. From simple to complex they read well in this order: linear, relu,
leaky_relu, sigmoid, tanh, elu, silu, gelu; flatten, dropout; mse, l1, bce_with_logits; softmax, log_softmax,
nll, cross_entropy; batchnorm; conv2d, max_pool2d, avg_pool2d. `module` holds them together, `optim` changes
the parameters, `init` and `torch_random` give them their first values.
"""

from nn_reference import init, optim, torch_random, utils
from nn_reference.avg_pool2d import AvgPool2d
from nn_reference.batchnorm import BatchNorm1d, BatchNorm2d
from nn_reference.bce_with_logits import BCEWithLogitsLoss
from nn_reference.conv2d import Conv2d
from nn_reference.cross_entropy import CrossEntropyLoss
from nn_reference.dropout import Dropout
from nn_reference.elu import ELU
from nn_reference.flatten import Flatten, Identity
from nn_reference.gelu import GELU
from nn_reference.l1 import L1Loss
from nn_reference.leaky_relu import LeakyReLU
from nn_reference.linear import Linear
from nn_reference.log_softmax import LogSoftmax
from nn_reference.max_pool2d import MaxPool2d
from nn_reference.module import Call, Layer, Module, Parameter, Sequential, Tape, no_grad
from nn_reference.mse import MSELoss
from nn_reference.nll import NLLLoss
from nn_reference.relu import ReLU
from nn_reference.sigmoid import Sigmoid
from nn_reference.silu import SiLU
from nn_reference.softmax import Softmax
from nn_reference.tanh import Tanh

__all__ = [
    "ELU",
    "GELU",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Call",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "L1Loss",
    "Layer",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Tape",
    "init",
    "no_grad",
    "optim",
    "torch_random",
    "utils",
]
