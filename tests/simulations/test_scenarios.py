"""The named scenarios say what they plant."""

import torch

from fedclust.data.spec import FederationSpec, build_federation
from simulations.scenarios import scenario


def test_digits_3shift_is_what_the_published_setting_says():
    spec = scenario("digits-3shift")
    federation = build_federation(spec)
    concept, feature = federation.truth["concept"], federation.truth["feature"]
    assert [len(c.train) for c in federation.clients] == [200] * 30
    assert [len(c.test) for c in federation.clients] == [60] * 30
    assert [concept[c.id] for c in federation.clients] == [i % 3 for i in range(30)]
    assert sum(feature[c.id] > 0 for c in federation.clients) == 12
    assert len(federation.unseen) == 9
    for c in federation.unseen:
        assert c.train.y.bincount().tolist() == [27] * 10
        assert c.test.y.bincount().tolist() == [27] * 10
    assert federation.input_shape == (1, 8, 8)
    assert all(c.train.x.min() >= 0 and c.train.x.max() <= 1 for c in federation.everyone)


def test_a_spec_that_went_through_json_gives_the_same_tensors():
    spec = scenario("digits-3shift", n_clients=4)
    again = build_federation(FederationSpec.model_validate_json(spec.model_dump_json()))
    for one, other in zip(build_federation(spec).everyone, again.everyone, strict=True):
        assert torch.equal(one.train.x, other.train.x)
        assert torch.equal(one.test.y, other.test.y)
