"""Forward and backward by hand, in NumPy, under the names of ``torch.nn``.

Each file holds one operation as a pair of pure functions, ``forward`` and below it ``backward`` with its
derivation, and the module that wraps them. From simple to complex they read well in this order: linear, relu,
leaky_relu, sigmoid, tanh, elu, silu, gelu; flatten, dropout; mse, l1, bce_with_logits; softmax, log_softmax,
nll, cross_entropy; batchnorm; conv2d, max_pool2d, avg_pool2d. `module` holds them together, `optim` changes
the parameters, `init` and `torch_random` give them their first values.
"""

from nn_reference import init as init
from nn_reference import optim as optim
from nn_reference import torch_random as torch_random
from nn_reference import utils as utils
from nn_reference.avg_pool2d import AvgPool2d as AvgPool2d
from nn_reference.batchnorm import BatchNorm1d as BatchNorm1d
from nn_reference.batchnorm import BatchNorm2d as BatchNorm2d
from nn_reference.bce_with_logits import BCEWithLogitsLoss as BCEWithLogitsLoss
from nn_reference.conv2d import Conv2d as Conv2d
from nn_reference.cross_entropy import CrossEntropyLoss as CrossEntropyLoss
from nn_reference.dropout import Dropout as Dropout
from nn_reference.elu import ELU as ELU
from nn_reference.flatten import Flatten as Flatten
from nn_reference.flatten import Identity as Identity
from nn_reference.gelu import GELU as GELU
from nn_reference.l1 import L1Loss as L1Loss
from nn_reference.layer import Call as Call
from nn_reference.layer import Layer as Layer
from nn_reference.layer import Tape as Tape
from nn_reference.layer import no_grad as no_grad
from nn_reference.leaky_relu import LeakyReLU as LeakyReLU
from nn_reference.linear import Linear as Linear
from nn_reference.log_softmax import LogSoftmax as LogSoftmax
from nn_reference.max_pool2d import MaxPool2d as MaxPool2d
from nn_reference.module import Module as Module
from nn_reference.module import Parameter as Parameter
from nn_reference.module import Sequential as Sequential
from nn_reference.mse import MSELoss as MSELoss
from nn_reference.nll import NLLLoss as NLLLoss
from nn_reference.relu import ReLU as ReLU
from nn_reference.sigmoid import Sigmoid as Sigmoid
from nn_reference.silu import SiLU as SiLU
from nn_reference.softmax import Softmax as Softmax
from nn_reference.tanh import Tanh as Tanh
