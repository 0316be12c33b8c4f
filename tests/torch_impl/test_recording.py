"""Recorded steps are the steps of training: on CUDA, and with a stand-in for CUDA graphs on the CPU."""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch

from torch_impl import TorchEngine

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
OPTIMIZERS = [
    (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5, "fused": True}),
    (torch.optim.Adam, {"capturable": True, "fused": True}),
    (torch.optim.AdamW, {"capturable": True, "fused": True}),
]


class StandIn:
    """Does on the CPU what CUDA graphs do: recording changes nothing, replaying takes the recorded step.

    It knows the step from the recorder: a replayed step sees the indices and learning rates that lie in the
    recording's memory.
    """

    recorders: list = []  # noqa: RUF012
    replayed = 0

    @staticmethod
    @contextmanager
    def recording(graph):
        recorder = StandIn.recorders[-1]
        optimizer = recorder._optimizer
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        tensors = parameters + [
            value for p in parameters for value in optimizer.state[p].values() if torch.is_tensor(value)
        ]
        before = [tensor.detach().clone() for tensor in tensors]
        graph.recorder = recorder
        graph.rates = [group["lr"] for group in optimizer.param_groups]
        yield
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)

    def replay(self):
        StandIn.replayed += 1
        recorder = self.recorder
        groups = recorder._optimizer.param_groups
        kept = [group["lr"] for group in groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = float(rate)
        for into, value in zip(
            recorder._results, recorder._step(recorder._data, recorder._indices), strict=True
        ):
            into.copy_(value.detach())
        for group, rate in zip(groups, kept, strict=True):
            group["lr"] = rate


@pytest.fixture
def stand_in(monkeypatch):
    class Stream:
        def wait_stream(self, other):
            pass

    for name, value in {
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda _: nullcontext(),
        "CUDAGraph": StandIn,
        "graph": StandIn.recording,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    StandIn.recorders, StandIn.replayed = [], 0
    return StandIn


def learn(device, optimizer, settings, scheduler=None, steps=18, **options):
    """Take steps on batches of 16, each third one of 5, and load the engine's own state midway."""
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (60, 4, 4), np.uint8), random.integers(0, 10, 60, np.uint8)

    def make():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 10)).to(device)
        more = {} if device == "cuda" else {"capturable": False} if "capturable" in settings else {}
        made = optimizer(network.parameters(), lr=0.05, **{**settings, **more})
        engine = TorchEngine(network, torch.nn.CrossEntropyLoss(), made, device, **options)
        if engine._recorder is not None:
            StandIn.recorders.append(engine._recorder)
        data = engine.put(images, labels, 0.0, 1.0)
        return engine, data, scheduler(made) if scheduler else None

    engine, data, schedule = make()
    found = []
    for i in range(steps):
        size = 5 if i % 3 == 2 else 16
        values = engine.train_step(data, engine.indices(random.integers(0, 60, size)))
        found.append([float(value) for value in values])
        if schedule is not None:
            schedule.step()
        if i == 7:
            state = engine.training_state()
            engine.load_training_state(state)
    assert all(isinstance(group["lr"], float) for group in engine.optimizer.param_groups)
    return np.array(found), engine.state_dict()


def decaying(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)


def cycling(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=30)


@pytest.mark.parametrize(("optimizer", "settings"), OPTIMIZERS)
@pytest.mark.parametrize("scheduler", [None, decaying, cycling])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_recorded_steps_are_those_of_training(optimizer, settings, scheduler, device, request):
    if device == "cpu":
        request.getfixturevalue("stand_in")
    expected = learn(device, optimizer, settings, scheduler)
    found = learn(device, optimizer, settings, scheduler, cuda_graphs=True)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert all(found[1][name] == pytest.approx(value, rel=1e-4) for name, value in expected[1].items())
    if device == "cpu":
        # 6 steps of 16 images before the state is taken over, and 6 after it: 3 eager, 3 replayed each time.
        assert StandIn.replayed == (2 if scheduler is cycling else 6)
