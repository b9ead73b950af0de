"""FedRC with the released code's aggregation beside the same rule, client by client, in plain PyTorch."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedclust.algorithms.base import initial_models
from fedclust.config import FederationConfig
from fedclust.data.build import build_federation
from fedclust.models import Model
from fedclust.outcome import outcome
from simulations.engines import get_engine
from simulations.plan import load_setting
from simulations.setups import load_setup

pytestmark = pytest.mark.slow

K, ROUNDS, LOOKS = 3, 60, (20, 40, 60)


@pytest.fixture(scope="module")
def config() -> FederationConfig:
    setup, setting = load_setup("digits-3shift", 0), load_setting("configs/fed/fedrc/n.yaml")
    return FederationConfig(
        algorithm="fedrc", settings={"n_groups": K, **setting.settings}, federation=setup.federation,
        **setup.config | {"evaluate_every": LOOKS[0], "shots": (), "engine": "batched"},
    )


def logits(nets: list[Tensor], x: Tensor) -> Tensor:
    """Of K perceptrons side by side, (K, n, classes)."""
    w1, b1, w2, b2 = nets
    return torch.relu(x.flatten(1) @ w1.mT + b1[:, None]) @ w2.mT + b2[:, None]


def losses(nets: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Of every sample under every model, (K, n)."""
    return cross_entropy(logits(nets, x).flatten(0, 1), y.repeat(K), reduction="none").view(K, -1)


def plain(config: FederationConfig) -> list[float]:
    """Mean test accuracy of the clients after each of LOOKS; batches are drawn in an order of their own."""
    federation = build_federation(config.federation)
    clients, c = federation.clients, federation.n_classes
    nets = [t.clone() for t in initial_models(Model(config.model, federation.input_shape, c), 0, K).values()]
    omega, class_weights = torch.full((len(clients), K), 1 / K), torch.full((K, c), 1 / c)
    n, order, found = sum(len(client.train) for client in clients), torch.Generator().manual_seed(1), []
    for r in range(ROUNDS):
        counts, means = torch.zeros(K, c), [torch.zeros_like(t) for t in nets]
        for i, client in enumerate(clients):
            x, y = client.train.x, client.train.y
            gamma = torch.softmax(omega[i].log()[:, None] - losses(nets, x, y) - class_weights[:, y].log(), 0)
            omega[i] = gamma.mean(1)
            counts.index_add_(1, y, gamma)
            for mean, own in zip(means, trained(nets, x, y, gamma, config, order), strict=True):
                mean += len(y) / n * own.detach()
        class_weights = counts.clamp_min(1e-8) / counts.clamp_min(1e-8).sum(1, keepdim=True)
        nets = means
        if r + 1 in LOOKS:
            mixed = [torch.tensordot(omega[i], logits(nets, client.test.x).softmax(2), 1)
                     for i, client in enumerate(clients)]
            found.append(float(np.mean([(p.argmax(1) == client.test.y).float().mean()
                                        for p, client in zip(mixed, clients, strict=True)])))
    return found


def trained(nets: list[Tensor], x: Tensor, y: Tensor, gamma: Tensor, config: FederationConfig,
            order: torch.Generator) -> list[Tensor]:
    """Every model after the client's epochs, each on its own weighted loss."""
    own, t = [p.clone().requires_grad_() for p in nets], config.training
    step = torch.optim.SGD(own, lr=t.lr, weight_decay=t.weight_decay)
    for _ in range(t.epochs):
        for batch in torch.randperm(len(y), generator=order).split(t.batch_size):
            step.zero_grad()
            (gamma[:, batch] * losses(own, x[batch], y[batch])).mean(1).sum().backward()
            step.step()
    return own


def test_accuracy_follows_the_plain_rule_for_sixty_rounds(config):
    """Within .02: the order of the batches, and even rounding, move the round in which groups part."""
    torch.set_num_threads(1)
    curve = outcome(get_engine("batched")(config), {}).accuracy.mean(1)
    ours, reference = curve[list(LOOKS)], plain(config)
    assert np.abs(ours - reference).max() < 0.02, f"ours {ours.round(3)}, plain {np.round(reference, 3)}"
    assert ours[0] < ours[-1] - 0.05, "a trajectory, not a plateau"
