"""The gradient written out is autograd's."""

import pytest
import torch

from fedclust.models import Model, ModelConfig
from fedclust.objectives import cross_entropy
from fedclust.task import stream


@pytest.mark.parametrize("config", [ModelConfig(name="linear"), ModelConfig(hidden=(5,)), ModelConfig(hidden=(7, 5))])
@pytest.mark.parametrize("n", [1, 9])
def test_backpropagation_is_autograds(config, n):
    model, g = Model(config, (2, 3), 4), stream(0, "data")
    x, y, weight = torch.randn(n, 2, 3, generator=g), torch.randint(4, (n,), generator=g), torch.rand(n, generator=g)
    params = model.init(stream(0, "init"))
    leaves = {name: p.clone().requires_grad_() for name, p in reversed(params.items())}
    expected = torch.autograd.grad(weight @ cross_entropy(model, leaves, x, y, None, None), list(leaves.values()))
    found = model.gradient(params, x, y, weight)
    assert found.keys() == params.keys()
    for name, e in zip(leaves, expected, strict=True):
        assert torch.allclose(found[name], e, atol=1e-6), name


@pytest.mark.parametrize("config", [ModelConfig(name="linear"), ModelConfig(hidden=(7, 5))])
@pytest.mark.parametrize("own_samples", [True, False])
def test_many_models_at_once_are_one_after_the_other(config, own_samples):
    model, g = Model(config, (2, 3), 4), stream(0, "data")
    lead = (3,) if own_samples else ()
    x, y = torch.randn(*lead, 9, 2, 3, generator=g), torch.randint(4, (*lead, 9), generator=g)
    weight = torch.rand(3, 9, generator=g)
    each = [model.init(stream(0, "init", j)) for j in range(3)]
    together = model.gradient({name: torch.stack([p[name] for p in each]) for name in model.names}, x, y, weight)
    for j, params in enumerate(each):
        own = (x[j], y[j]) if own_samples else (x, y)
        for name, t in model.gradient(params, *own, weight[j]).items():
            assert torch.allclose(together[name][j], t, atol=1e-6), name


def test_only_architectures_that_it_knows():
    assert not Model(ModelConfig(name="gcn"), (3,), 2).has_gradient
    assert not Model(ModelConfig(name="convnet"), (1, 8, 8), 2).has_gradient
