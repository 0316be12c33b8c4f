"""One training step of a whole network against PyTorch's."""

from collections import OrderedDict

import numpy as np
import torch

import nn_reference as nn
from nn_reference import optim


def both_networks(*, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    ours = nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(35, 11, generator=rng),
            relu1=nn.ReLU(),
            fc2=nn.Linear(11, 4, generator=rng),
        )
    ).to(dtype)
    theirs = torch.nn.Sequential(
        OrderedDict(
            flatten=torch.nn.Flatten(),
            fc1=torch.nn.Linear(35, 11),
            relu1=torch.nn.ReLU(),
            fc2=torch.nn.Linear(11, 4),
        )
    ).to(torch.float64 if dtype == np.float64 else torch.float32)
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
    return ours, theirs, rng


def test_training_follows_pytorch_in_float64():
    ours, theirs, rng = both_networks()
    criterion, their_criterion = nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss()
    optimizer = optim.Adam(ours.parameters(), lr=1e-2, weight_decay=1e-3)
    their_optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-2, weight_decay=1e-3)
    for _ in range(20):
        x, labels = rng.normal(size=(6, 5, 7)), rng.integers(0, 4, 6)
        loss = criterion(ours(x), labels)
        optimizer.zero_grad()
        ours.backward(criterion.backward(), input_grad=False)
        optimizer.step()

        their_loss = their_criterion(theirs(torch.from_numpy(x)), torch.from_numpy(labels))
        their_optimizer.zero_grad()
        their_loss.backward()
        their_optimizer.step()
        assert abs(loss - their_loss.item()) < 1e-14
        for (key, p), (their_key, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            assert key == their_key
            largest = q.grad.abs().max().item()
            assert np.abs(p.grad - q.grad.numpy()).max() <= 1e-12 * largest, key
            assert np.abs(p.data - q.detach().numpy()).max() <= 1e-13 * q.detach().abs().max().item(), key


def test_float32_stays_float32():
    network, _, rng = both_networks(dtype=np.float32)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.Adam(network.parameters())
    x = rng.normal(size=(6, 5, 7)).astype(np.float32)
    loss = criterion(network(x), rng.integers(0, 4, 6))
    grad_x = network.backward(criterion.backward())
    optimizer.step()
    assert loss.dtype == grad_x.dtype == np.float32
    assert (
        {p.dtype for p in network.parameters()}
        == {p.grad.dtype for p in network.parameters()}
        == {loss.dtype}
    )
