"""The exercise mnist, done by the engine."""

import numpy as np

import nn_reference as nn

EPOCHS = {60_000: 6}


def scaled(images):
    return images.reshape(len(images), -1).astype(np.float32) / 255


def train(images, labels, rng):
    x, labels = scaled(images), labels.astype(np.int64)
    network = nn.Sequential(nn.Linear(784, 128, generator=rng), nn.ReLU(), nn.Linear(128, 10, generator=rng))
    criterion, optimizer = nn.CrossEntropyLoss(), nn.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(EPOCHS.get(len(x), 20)):
        order = rng.permutation(len(x))
        for start in range(0, len(x), 64):
            batch = order[start : start + 64]
            optimizer.zero_grad()
            criterion(network(x[batch]), labels[batch])
            network.backward(criterion.backward(), input_grad=False)
            optimizer.step()
    return network


def predict(network, images):
    with nn.no_grad():
        return network(scaled(images)).argmax(1)
