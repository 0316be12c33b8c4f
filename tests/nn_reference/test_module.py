"""Modules: state, printing, the order of calls, the tape, and every refusal in one line."""

import copy
import itertools
from collections import OrderedDict

import numpy as np
import pytest
import torch

import nn_reference as nn
from nn_reference import dropout, linear, optim, relu, torch_random
from nn_reference.optim import lr_scheduler

PARAMETER = nn.Parameter(np.zeros(1))
OPTIMIZER = optim.SGD([PARAMETER])


def digits_network(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(12, 7, dtype=dtype, generator=rng),
            bn=nn.BatchNorm1d(7, dtype=dtype),
            relu=nn.ReLU(),
            head=nn.Sequential(nn.Dropout(0.5, generator=rng), nn.Linear(7, 3, dtype=dtype, generator=rng)),
        )
    )


def torch_digits_network():
    return torch.nn.Sequential(
        OrderedDict(
            flatten=torch.nn.Flatten(),
            fc1=torch.nn.Linear(12, 7),
            bn=torch.nn.BatchNorm1d(7),
            relu=torch.nn.ReLU(),
            head=torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(7, 3)),
        )
    )


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(5, 3, 4)).astype(np.float32)


@pytest.fixture
def g():
    return np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)


# -- state ----------------------------------------------------------------------------------------


def test_state_dict_has_torchs_keys_shapes_and_order():
    ours, theirs = digits_network().state_dict(), torch_digits_network().state_dict()
    assert [(k, v.shape, str(v.dtype)) for k, v in ours.items()] == [
        (k, tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in theirs.items()
    ]
    names = [name for name, _ in torch_digits_network().named_modules()]
    assert [name for name, _ in digits_network().named_modules()] == names


def test_a_state_dict_moves_between_the_engines(x):
    theirs = torch_digits_network().eval()
    theirs.bn.running_mean.uniform_()
    ours = digits_network().eval()
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).detach(), rtol=1e-5, atol=1e-6)
    back = torch_digits_network()
    back.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
    assert all(torch.equal(a, b) for a, b in zip(back.state_dict().values(), theirs.state_dict().values()))  # noqa: B905


def test_state_dict_is_a_copy_and_loading_keeps_the_memory(x):
    network = digits_network()
    fc1 = network.fc1.weight
    fc1.data = np.asfortranarray(fc1.data)  # a transposed view, as a fast engine stores it
    storage = fc1.data
    before = network.state_dict()
    assert before["fc1.weight"].flags.c_contiguous
    fc1.data += 1
    assert not np.array_equal(before["fc1.weight"], fc1.data)
    network.load_state_dict(before)
    assert fc1.data is storage
    np.testing.assert_array_equal(storage, before["fc1.weight"])


def test_load_state_dict_names_all_that_is_wrong_and_changes_nothing():
    network = digits_network()
    before = network.state_dict()
    wrong = dict(before)
    del wrong["bn.bias"]
    wrong |= {"fc9.weight": np.ones(2), "fc1.weight": np.ones((7, 11)), "fc1.bias": np.ones(7, complex)}
    with pytest.raises(ValueError, match="load_state_dict") as caught:
        network.load_state_dict(wrong)
    message = str(caught.value)
    for part in (
        "bn.bias is missing",
        "fc9.weight is unexpected",
        "fc1.weight is float64 (7, 11), expected float32 (7, 12)",
        "fc1.bias is complex128",
    ):
        assert part in message
    assert "\n" not in message
    assert all(
        np.array_equal(a, b) for a, b in zip(before.values(), network.state_dict().values(), strict=True)
    )
    partial = {"fc1.bias": np.ones(7), "other": np.ones(1)}
    loaded = network.load_state_dict(partial, strict=False)
    assert loaded.unexpected_keys == ["other"]
    assert "bn.bias" in loaded.missing_keys
    assert (network.fc1.bias.data == 1).all()


def test_to_converts_parameters_gradients_and_statistics(x, g):
    network = digits_network()
    network(x)
    network.backward(g)
    network.double()
    assert {a.dtype for a in network.state_dict().values()} == {np.dtype("f8"), np.dtype("i8")}
    assert {p.grad.dtype for p in network.parameters()} == {np.dtype("f8")}
    network(x.astype(float))
    network.float()
    assert network.bn.running_mean.dtype == np.float32
    with pytest.raises(TypeError, match="floating point"):
        network.to(np.int64)


def test_train_and_eval_reach_every_module(x):
    network = digits_network()
    assert network.eval() is network
    assert not any(module.training for module in network.modules())
    np.testing.assert_array_equal(network(x), network(x))
    network.train()
    assert not np.array_equal(network(x), network(x))  # dropout draws


def test_a_parameter_used_twice_is_listed_once_and_its_gradients_add():
    first, second = nn.Linear(3, 3, dtype=np.float64), nn.Linear(3, 3, dtype=np.float64)
    second.weight = first.weight
    network = nn.Sequential(first, nn.Tanh(), second)
    assert [name for name, _ in network.named_parameters()] == ["0.weight", "0.bias", "2.bias"]
    assert list(network.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    x, g = np.random.default_rng(0).normal(size=(2, 4, 3))
    network(x)
    network.backward(g)
    tensors = {k: torch.from_numpy(v).requires_grad_() for k, v in network.state_dict().items()}
    w = tensors["0.weight"]
    hidden = torch.tanh(torch.from_numpy(x) @ w.T + tensors["0.bias"])
    (hidden @ w.T + tensors["2.bias"]).backward(torch.from_numpy(g))
    np.testing.assert_allclose(first.weight.grad, w.grad, rtol=1e-12)


# -- the order of calls ---------------------------------------------------------------------------


def test_backward_before_forward_and_twice(x, g):
    network = digits_network()
    with pytest.raises(RuntimeError, match=r"Linear.backward: called before forward"):
        network.backward(g)
    network(x)
    network.backward(g)
    with pytest.raises(RuntimeError, match=r"Linear.backward: called twice for one forward"):
        network.backward(g)
    with nn.no_grad():
        network(x)
    with pytest.raises(RuntimeError, match="no_grad"):
        network.backward(g)


def test_a_forward_that_a_later_one_dropped():
    layer, x = nn.Tanh(), np.ones(3)
    layer.backward(layer(layer(x)))
    with pytest.raises(
        RuntimeError, match="a later forward dropped it .then make both calls within one module"
    ):
        layer.backward(x)


def test_a_wrong_gradient_is_refused_and_the_right_one_then_taken(x, g):
    network = digits_network()
    network(x)
    with pytest.raises(ValueError, match=r"Linear.backward: gradient is \(3, 5\), the output was \(5, 3\)"):
        network.backward(g.T)
    with pytest.raises(TypeError, match=r"gradient is float64, the output was float32"):
        network.backward(g.astype(float))
    with pytest.raises(TypeError, match=r"gradient is list"):
        network.backward(g.tolist())
    assert network.backward(g).shape == x.shape


def test_gradients_accumulate_until_zero_grad(x, g):
    network = digits_network().eval()
    network(x)
    network.backward(g)
    once = {name: p.grad.copy() for name, p in network.named_parameters()}
    network(x)
    network.backward(g)
    for name, p in network.named_parameters():
        np.testing.assert_array_equal(p.grad, 2 * once[name])
    network.zero_grad()
    assert all(p.grad is None for p in network.parameters())


def test_a_layer_used_several_times_in_one_forward():
    class Recurrent(nn.Module):
        """h = tanh(linear(h)), three times with the same two layers."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4, dtype=np.float64, generator=np.random.default_rng(0))
            self.tanh = nn.Tanh()

        def forward(self, h):
            for _ in range(3):
                h = self.tanh(self.linear(h))
            return h

        def backward(self, grad, input_grad=True):
            for _ in range(3):
                grad = self.linear.backward(self.tanh.backward(grad))
            return grad

    network = Recurrent()
    x, g = np.random.default_rng(1).normal(size=(2, 5, 4))
    network(x)
    network(x)  # a forward that nobody goes back through leaves nothing behind
    grad_x = network.backward(g)
    with pytest.raises(RuntimeError, match="called twice"):
        network.backward(g)
    w, b = (torch.from_numpy(a).requires_grad_() for a in network.state_dict().values())
    h = t = torch.from_numpy(x).requires_grad_()
    for _ in range(3):
        h = torch.tanh(h @ w.T + b)
    h.backward(torch.from_numpy(g))
    np.testing.assert_allclose(grad_x, t.grad, rtol=1e-12)
    np.testing.assert_allclose(network.linear.weight.grad, w.grad, rtol=1e-12)
    np.testing.assert_allclose(network.linear.bias.grad, b.grad, rtol=1e-12)


def test_evaluation_does_not_pile_up_memory(x):
    network = digits_network().eval()
    layers = [module for module in network.modules() if isinstance(module, nn.Layer)]
    for _ in range(3):
        network(x)
        assert [len(layer._pending) for layer in layers] == [1] * len(layers)
    with nn.no_grad():
        network(x)
    assert [len(layer._pending) for layer in layers] == [0] * len(layers)
    network.fc1.forward(x.reshape(5, -1))
    network.fc1.forward(x.reshape(5, -1))  # outside any call: each is a forward of its own
    assert len(network.fc1._pending) == 1


def test_an_error_in_forward_leaves_no_call_open(x, g):
    network = digits_network()
    with pytest.raises(ValueError, match=r"Linear: input has shape \(5, 8\), expected \(\*, 12\)"):
        network(x[:, 1:])
    network(x)
    assert network.backward(g).shape == x.shape


def test_copies_of_a_network_are_independent(x, g):
    network = digits_network().eval()
    network(x)
    other = copy.deepcopy(network)
    np.testing.assert_array_equal(network.backward(g), other.backward(g))
    other.fc1.weight.data += 1
    assert not np.array_equal(network.fc1.weight.data, other.fc1.weight.data)


def test_out_arrays_are_written_and_returned():
    rng = np.random.default_rng(0)
    x, weight, bias, g = (rng.normal(size=shape) for shape in ((6, 3), (4, 3), (4,), (6, 4)))
    weight = np.asfortranarray(weight)
    y, cache = linear.forward(x, weight, bias)
    into = np.empty_like(y)
    written, _ = linear.forward(x, weight, bias, out=into)
    assert np.shares_memory(written, into)
    np.testing.assert_array_equal(into, y)
    expected = linear.backward(cache, g)
    out = (np.empty((6, 3)), np.empty_like(weight), np.empty(4))
    for found, array, value in zip(linear.backward(cache, g, out=out), out, expected, strict=True):
        assert np.shares_memory(found, array)
        np.testing.assert_allclose(array, value, rtol=1e-14)
    for file, cache in ((relu, np.maximum(y, 0)), (dropout, rng.random(y.shape))):
        assert file.backward(cache, g, out=into) is into
        np.testing.assert_array_equal(into, file.backward(cache, g))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_labels_of_any_integer_dtype(dtype):
    x, labels = np.random.default_rng(0).normal(size=(4, 3)), np.array([2, 0, 1, 2])
    for make in (nn.CrossEntropyLoss, nn.NLLLoss):
        criterion = make(np.array([1.0, 2.0, 3.0]))
        loss, grad = criterion(x, labels), criterion.backward()
        assert criterion(x, labels.astype(dtype)) == loss
        np.testing.assert_array_equal(criterion.backward(), grad)


def test_an_output_that_backward_needs_cannot_be_written_into():
    x = np.random.default_rng(0).normal(size=(4, 3))
    for module in (
        nn.Tanh(),
        nn.ReLU(),
        nn.Sigmoid(),
        nn.Softmax(1),
        nn.BatchNorm1d(3, affine=False).double(),
    ):
        y = module(x)
        with pytest.raises(ValueError, match="read-only"):
            y += x
    assert nn.Linear(3, 3).double()(x).flags.writeable
    assert nn.Identity()(x) is x
    assert x.flags.writeable


def test_an_input_without_dimensions():
    network = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Dropout(), nn.SiLU(), nn.GELU())
    assert isinstance(network(np.array(0.5)), np.ndarray)
    grad = network.backward(np.array(2.0))
    assert isinstance(grad, np.ndarray)
    assert grad.shape == ()


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda d: nn.Dropout(np.float64(0.5)), []),
        (lambda d: nn.ELU(np.float64(0.5)), []),
        (lambda d: nn.LeakyReLU(np.float64(0.5)), []),
        (lambda d: nn.BatchNorm1d(3, eps=np.float64(1e-3), momentum=np.float64(0.2)), []),
        (lambda d: nn.CrossEntropyLoss(label_smoothing=np.float64(0.1)), [np.array([0, 1, 2, 0])]),
        (lambda d: nn.CrossEntropyLoss(label_smoothing=np.float64(0.1)), [np.ones((4, 3), np.float16)]),
        (lambda d: nn.BCEWithLogitsLoss(), [np.ones((4, 3), bool)]),
        (lambda d: nn.BCEWithLogitsLoss(), [np.ones((4, 3), np.float16)]),
    ],
)
def test_numbers_of_numpy_do_not_change_the_dtype(make, inputs):
    module, x = make(None), np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    y = module(x, *inputs)
    assert y.dtype == np.float32
    assert module.backward(np.ones_like(y)).dtype == np.float32


def test_a_soft_target_of_a_narrower_dtype_is_smoothed_in_the_input_s():
    x, target = np.random.default_rng(0).normal(size=(4, 3)), np.eye(4, 3, dtype=np.float32)
    losses = [nn.CrossEntropyLoss(label_smoothing=0.1)(x, t) for t in (target, target.astype(float))]
    assert losses[0] == losses[1]


def test_an_operation_that_changes_the_dtype_is_named():
    class Wide(nn.Layer):
        def _forward(self, x):
            return x * np.float64(2), None

    with pytest.raises(TypeError, match="Wide: output is float64 but the input is float32"):
        Wide()(np.ones(3, np.float32))


@pytest.mark.parametrize(
    ("expression", "shape"),
    [
        ("Linear(3, 4)", (0, 3)),
        ("Linear(3, 4)", (2, 0, 3)),
        ("Linear(3, 0)", (2, 3)),
        ("Linear(0, 3)", (2, 0)),
        ("Conv2d(2, 4, 3)", (0, 2, 5, 5)),
        ("MaxPool2d(2)", (0, 2, 4, 4)),
        ("AvgPool2d(2)", (0, 2, 4, 4)),
        ("Softmax(1)", (2, 0)),
        ("LogSoftmax(0)", (0, 3)),
        ("Sigmoid()", (0, 3)),
        ("ReLU()", (0, 3)),
        ("GELU()", (0, 3)),
        ("Flatten()", (0, 3, 2)),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_empty_batches_and_sizes(expression, shape):
    ours, theirs = eval(expression, vars(nn)), eval(expression, vars(torch.nn))
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
    t = torch.zeros(shape, requires_grad=True)
    their_y = theirs(t)
    their_y.backward(torch.ones_like(their_y))
    y = ours(np.zeros(shape, np.float32))
    np.testing.assert_array_equal(y, their_y.detach())
    np.testing.assert_array_equal(ours.backward(np.ones_like(y)), t.grad)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_array_equal(p.grad, q.grad)


# -- the tape -------------------------------------------------------------------------------------


def test_the_tape_names_every_value_and_gradient(x):
    network, criterion = digits_network(), nn.CrossEntropyLoss()
    labels = np.array([0, 1, 2, 1, 0])
    with nn.Tape(network, loss=criterion) as tape:
        loss = criterion(network(x), labels)
        grad_x = network.backward(criterion.backward())
    names = ["flatten", "fc1", "bn", "relu", "head.0", "head.1", "loss"]
    assert [call.name for call in tape.calls] == names
    for before, after in itertools.pairwise(names):
        assert tape[before].output is tape[after].inputs[0]
        assert tape[before].grad_output is tape[after].grad_input
    assert tape["flatten"].grad_input is grad_x
    assert tape["loss"].output == loss
    assert tape["loss"].inputs[1] is labels
    np.testing.assert_array_equal(tape["head.0"].output, tape["relu"].output * tape["head.0"].cache)
    network(x)
    assert len(tape.calls) == len(names)  # it has stopped


def test_the_tape_lists_repeated_calls_and_works_without_gradients(x):
    act = nn.Tanh()
    network = nn.Sequential(act, act)
    with nn.no_grad(), nn.Tape(network) as tape:
        network(x)
    assert [call.name for call in tape.calls] == ["0", "0"]
    assert tape.calls[0].grad_output is None
    with pytest.raises(KeyError, match="called 2 times"):
        tape["0"]
    with pytest.raises(KeyError, match="called 0 times"):
        tape["fc1"]


# -- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        "Linear(3, 4)",
        "Linear(3, 4, bias=False)",
        "ReLU()",
        "LeakyReLU(0.2)",
        "ELU()",
        "SiLU()",
        "Sigmoid()",
        "Tanh()",
        "GELU()",
        "GELU(approximate='tanh')",
        "Flatten()",
        "Identity()",
        "Dropout(0.3)",
        "Softmax(1)",
        "LogSoftmax(-1)",
        "BatchNorm1d(3)",
        "BatchNorm2d(3, momentum=None, affine=False)",
        "BatchNorm1d(3, bias=False)",
        "Conv2d(2, 4, 3)",
        "Conv2d(2, 4, (3, 2), stride=2, padding='same' and 1, dilation=2, groups=2, bias=False)",
        "Conv2d(2, 4, 3, padding='same')",
        "MaxPool2d(2)",
        "MaxPool2d((2, 3), stride=1, padding=1, ceil_mode=True)",
        "AvgPool2d(3, padding=1)",
        "CrossEntropyLoss()",
        "NLLLoss()",
        "MSELoss()",
        "L1Loss()",
        "BCEWithLogitsLoss()",
        "Sequential()",
        "Sequential(Linear(2, 3), Sequential(ReLU(), Flatten()))",
    ],
)
def test_repr_reads_as_torchs(expression):
    assert repr(eval(expression, vars(nn))) == repr(eval(expression, vars(torch.nn)))


def test_sequential_is_a_container():
    network = digits_network()
    assert len(network) == 5
    assert network[1] is network.fc1
    assert network[-1] is network.head
    assert list(network[:2]) == [network.flatten, network.fc1]
    assert [name for name, _ in network[1:3].named_children()] == ["fc1", "bn"]


def test_torchs_own_defaults_and_names_are_taken():
    network = nn.Sequential(nn.Linear(2, 3, device=None, dtype=None))
    assert network[0].weight.dtype == np.float32
    assert network.append(nn.BatchNorm1d(3)) is network
    network.append(nn.Conv2d(4, 8, np.int64(3)))
    assert repr(network[2]) == repr(torch.nn.Conv2d(4, 8, 3))
    theirs = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Conv2d(4, 8, 3))
    assert [name for name, _ in network.named_buffers()] == [name for name, _ in theirs.named_buffers()]
    assert len(list(network.buffers())) == 3
    assert list(network.children()) == list(network)
    seen = []
    assert network.apply(seen.append) is network
    assert seen == [*network, network]
    network.zero_grad(set_to_none=True)
    sgd = optim.SGD(network.named_parameters(), foreach=None, fused=None, differentiable=False)
    assert sgd.param_groups[0]["params"] == list(network.parameters())
    sgd.zero_grad(set_to_none=True)
    adam = optim.AdamW([PARAMETER], maximize=True, capturable=False)
    adam.add_param_group(param_group={"params": nn.Parameter(np.zeros(1)), "initial_lr": 0.1})
    lr_scheduler.OneCycleLR(adam, 0.1, 10, last_epoch=-1)
    lr_scheduler.SequentialLR(OPTIMIZER, [lr_scheduler.ExponentialLR(OPTIMIZER, 0.5, last_epoch=-1)], [], -1)
    criterion = nn.CrossEntropyLoss()
    x = np.zeros((2, 3), np.float32)
    assert criterion(input=x, target=np.array([0, 1])) == criterion(x, np.array([0, 1]))
    assert nn.init.constant_(tensor=x, val=2.0) is x
    with pytest.raises(TypeError, match="imput"):
        nn.ReLU()(imput=x)


def test_a_module_whose_init_does_not_call_the_bases():
    class Careless(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(2, 3)

        def forward(self, x):
            return self.fc(x)

    assert Careless().eval()(np.zeros((1, 2), np.float32)).shape == (1, 3)


def test_a_gradient_that_does_not_fit_its_parameter():
    for grad in (np.ones(1, np.float32), np.ones((1, 1))):
        parameter = nn.Parameter(np.zeros(1))
        parameter.grad = grad
        with pytest.raises(ValueError, match="SGD: a gradient is"):
            optim.SGD([parameter]).step()


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.ReLU(inplace=True), NotImplementedError, "ReLU: inplace=True is not supported"),
        (lambda: nn.Dropout(inplace=True), NotImplementedError, "Dropout: inplace=True is not supported"),
        (lambda: nn.MaxPool2d(2, return_indices=True), NotImplementedError, "return_indices=True"),
        (lambda: nn.Conv2d(1, 1, 3, padding_mode="reflect"), NotImplementedError, "padding_mode='reflect'"),
        (lambda: nn.Conv2d(1, 1, 3, padding="full"), ValueError, "padding='full', expected one of"),
        (lambda: nn.Conv2d(1, 1, 3, padding="same", stride=2), ValueError, "padding='same' needs stride 1"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "groups=2 does not divide"),
        (lambda: nn.Conv2d(1, 1, 0), ValueError, "kernel_size=0"),
        (lambda: nn.Linear(1, 1, device="cuda"), NotImplementedError, "device='cuda'"),
        (lambda: nn.Softmax(), ValueError, "dim=None"),
        (lambda: nn.GELU("erf"), ValueError, "approximate='erf', expected one of 'none', 'tanh'"),
        (lambda: nn.Dropout(1.5), ValueError, "p=1.5"),
        (lambda: nn.MSELoss("average"), ValueError, "reduction='average'"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=2.0), ValueError, "label_smoothing=2.0"),
        (lambda: nn.CrossEntropyLoss(size_average=True), TypeError, "size_average"),
        (lambda: nn.AvgPool2d(2, divisor_override=0), ValueError, "divisor_override=0"),
        (lambda: nn.Sequential(3), TypeError, "0 is a int, expected a Module"),
        (lambda: nn.Sequential(OrderedDict({"train": nn.ReLU()})), ValueError, "'train' cannot be the name"),
        (lambda: optim.Adam([]), ValueError, "Adam: no parameters"),
        (lambda: optim.Adam([nn.Parameter(np.zeros(1))], fused=True), NotImplementedError, "fused=True"),
        (lambda: nn.Linear(1, 1, dtype=np.int64), TypeError, "Linear: dtype is int64"),
        (lambda: nn.Linear(1, 1)(), TypeError, "missing 1 required positional argument: 'input'"),
        (lambda: nn.Linear(1, 1).zero_grad(set_to_none=False), NotImplementedError, "set_to_none=False"),
        (lambda: nn.CrossEntropyLoss([1.0, 2.0]), TypeError, "weight is a list, expected a NumPy array"),
        (lambda: nn.BCEWithLogitsLoss(pos_weight=2.0), TypeError, "pos_weight is a float"),
        (lambda: optim.SGD(PARAMETER), TypeError, "SGD: params is a Parameter, expected a list"),
        (lambda: optim.SGD([{"lr": 0.1}]), ValueError, "SGD: a parameter group has no 'params'"),
        (lambda: optim.SGD([PARAMETER], foreach=True), NotImplementedError, "SGD: foreach=True"),
        (lambda: optim.AdamW([PARAMETER], foreach=True), NotImplementedError, "AdamW: foreach=True"),
        (lambda: optim.Adam([PARAMETER], betas=(0.9,)), ValueError, "expected two numbers"),
        (lambda: lr_scheduler.StepLR(OPTIMIZER, 0), ValueError, "StepLR: step_size=0"),
        (lambda: lr_scheduler.CosineAnnealingLR(OPTIMIZER, 0), ValueError, "T_max=0"),
        (
            lambda: lr_scheduler.StepLR(OPTIMIZER, 2, last_epoch=3),
            NotImplementedError,
            "StepLR: last_epoch=3 is not supported",
        ),
        (lambda: torch_random.Generator(2**64), ValueError, "seed=18446744073709551616"),
        (lambda: torch_random.Generator(0).randperm(-1), ValueError, "n=-1"),
        (lambda: torch_random.Generator(0).uniform(2, 1, (3,)), ValueError, "low=2, high=1"),
        (lambda: optim.Adam([nn.Parameter(np.zeros(1))], lr=-1.0), ValueError, "lr=-1.0"),
        (
            lambda: optim.Adam([nn.Parameter(np.zeros(1))], betas=(0.9, 1.0)),
            ValueError,
            r"betas=\(0.9, 1.0\)",
        ),
        (
            lambda: optim.SGD([nn.Parameter(np.zeros(1))], nesterov=True),
            ValueError,
            "nesterov needs a momentum",
        ),
        (lambda: optim.SGD([np.zeros(1)]), TypeError, "found a ndarray, expected a Parameter"),
        (
            lambda: optim.SGD([{"params": [nn.Parameter(np.zeros(1))], "momemtum": 1}]),
            ValueError,
            "'momemtum'",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "inputs", "error", "message"),
    [
        (nn.Linear(3, 2), [np.ones((4, 3))], TypeError, "input is float64 but weight is float32"),
        (nn.Flatten(), [np.ones((4, 3), np.uint8)], TypeError, "input is uint8, expected floating point"),
        (nn.ReLU(), [[1.0, 2.0]], TypeError, "input is a list, expected a NumPy array"),
        (
            nn.Linear(3, 2),
            [np.ones((4, 2), "f4")],
            ValueError,
            r"input has shape \(4, 2\), expected \(\*, 3\)",
        ),
        (
            nn.Conv2d(3, 2, 3),
            [np.ones((4, 2, 5, 5), "f4")],
            ValueError,
            r"expected \(N, 3, H, W\) or \(3, H, W\)",
        ),
        (nn.Conv2d(1, 2, 3), [np.ones((4, 1, 2, 5), "f4")], ValueError, r"the kernel spans \(3, 3\) pixels"),
        (nn.MaxPool2d(2), [np.ones((4, 4))], ValueError, r"MaxPool2d: input has shape \(4, 4\)"),
        (nn.MaxPool2d(2, padding=2), [np.ones((1, 4, 4))], ValueError, "padding=2, expected at most half"),
        (nn.BatchNorm1d(3), [np.ones((4, 2), "f4")], ValueError, r"expected \(N, 3\) or \(N, 3, L\)"),
        (nn.BatchNorm1d(3), [np.ones((1, 3), "f4")], ValueError, "two values per channel"),
        (nn.BatchNorm2d(3), [np.ones((4, 3), "f4")], ValueError, r"expected \(N, 3, H, W\)"),
        (nn.Flatten(0, 3), [np.ones((4, 2))], ValueError, "has no dimension 3"),
        (nn.Flatten(2, 1), [np.ones((4, 2, 3))], ValueError, "start_dim=2 comes after end_dim=1"),
        (nn.Softmax(2), [np.ones((4, 2))], ValueError, "has no dimension 2"),
        (
            nn.CrossEntropyLoss(),
            [np.ones((2, 3)), np.array([0, 3])],
            ValueError,
            "target holds 3, expected a class",
        ),
        (nn.CrossEntropyLoss(), [np.ones((2, 3)), np.array([0, -1])], ValueError, "target holds -1"),
        (
            nn.CrossEntropyLoss(),
            [np.ones((2, 3)), np.array([0])],
            ValueError,
            r"target has shape \(1,\), expected \(2,\)",
        ),
        (nn.CrossEntropyLoss(), [np.ones((2, 3)), np.ones((2, 2))], ValueError, r"target has shape \(2, 2\)"),
        (
            nn.CrossEntropyLoss(),
            [np.ones((2, 3)), [0, 1]],
            TypeError,
            "target is list, expected an array of integers",
        ),
        (nn.NLLLoss(), [np.ones((2, 3)), np.ones(2)], TypeError, "target is float64"),
        (nn.NLLLoss(np.ones(2)), [np.ones((2, 3)), np.array([0, 1])], ValueError, r"weight has shape \(2,\)"),
        (
            nn.MSELoss(),
            [np.ones((2, 3)), np.ones(3)],
            ValueError,
            r"target has shape \(3,\), expected \(2, 3\)",
        ),
        (
            nn.MSELoss(),
            [np.ones(3, "f4"), np.ones(3)],
            TypeError,
            "target is float64 but the input is float32",
        ),
        (nn.BCEWithLogitsLoss(pos_weight=np.ones(2)), [np.ones(3), np.ones(3)], ValueError, "pos_weight"),
    ],
)
def test_a_wrong_input_is_refused_in_one_line(module, inputs, error, message):
    with pytest.raises(error, match=message) as caught:
        module(*inputs)
    assert "\n" not in str(caught.value)


def test_a_loss_without_reduction_needs_the_gradient_of_each():
    criterion = nn.MSELoss(reduction="none")
    criterion(np.ones(3), np.zeros(3))
    with pytest.raises(ValueError, match="needs the gradient of each loss"):
        criterion.backward()
    np.testing.assert_array_equal(criterion.backward(np.arange(3.0)), [0.0, 2.0, 4.0])
