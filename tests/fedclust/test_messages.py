"""Payloads and reports survive the way through Flower's records."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord

from fedclust.algorithms.base import Payload, Report
from fedclust.messages import (
    Packer,
    client_report,
    delivery,
    pack,
    report_content,
    settings_of,
    stacked,
    tensor_bytes,
    unpack,
)

TENSORS = {
    "float": torch.randn(3, 4), "double": torch.randn(2).double(), "int": torch.arange(5), "byte": torch.ones(2).byte(),
    "bool": torch.tensor([True, False]), "scalar": torch.tensor(7), "empty": torch.zeros(0, 3),
    "transposed": torch.arange(6.0).view(2, 3).T, "slice": torch.arange(10.0)[2:8:2],
}


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def test_tensors_come_back_with_their_dtype_and_shape():
    back = unpack(pack(TENSORS))
    assert list(back) == list(TENSORS)
    assert all(same(back[name], t) for name, t in TENSORS.items())


def test_what_is_packed_is_byte_for_byte_what_flower_makes_of_it():
    contiguous = {name: t.contiguous() for name, t in TENSORS.items()}
    ours, flowers = pack(contiguous), ArrayRecord(contiguous)
    assert all(ours[name] == flowers[name] for name in TENSORS)
    assert all(same(t, TENSORS[name]) for name, t in ours.to_torch_state_dict().items())


def test_arrays_of_another_writer_are_read():
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert unpack(ArrayRecord([fortran]))["0"].tolist() == fortran.tolist()


def test_unpacked_tensors_are_memory_of_their_own():
    record = pack({"a": torch.zeros(3)})
    unpack(record)["a"].fill_(1)
    assert unpack(record)["a"].tolist() == [0, 0, 0]


def test_a_dtype_that_numpy_does_not_have_is_refused():
    with pytest.raises(TypeError, match="BFloat16"):
        pack({"a": torch.zeros(2, dtype=torch.bfloat16)})


@pytest.fixture
def state():
    return {"model/w": torch.arange(12.0).view(3, 2, 2), "model/count": torch.arange(3), "other/v": torch.ones(2, 5)}


def test_a_payload_arrives_with_its_groups_in_order_and_the_cohorts_axis(state):
    content = Packer(state).content(Payload([2, 0], {"c": torch.tensor([1.0, 2.0])}, phase="warm"), {"round": -1})
    arrived = delivery(content)
    assert arrived.models["w"].shape == (1, 2, 2, 2) and same(arrived.models["w"][0], state["model/w"][[2, 0]])
    assert same(arrived.models["count"], torch.tensor([[2, 0]]))
    assert same(arrived.arrays["c"], torch.tensor([[1.0, 2.0]]))
    assert arrived.phase == "warm" and settings_of(content)["round"] == -1


def test_a_payload_without_models_or_arrays(state):
    arrived = delivery(Packer(state).content(Payload([], phase="histogram")))
    assert arrived.models == {} and arrived.arrays == {} and arrived.phase == "histogram"


def test_another_family_of_models(state):
    packer = Packer(state)
    arrived = delivery(packer.content(Payload([1], family="other")))
    assert arrived.models["v"].shape == (1, 1, 5)
    assert packer.shapes("other") == {"v": (5,)} and packer.shapes("none") == {}
    assert packer.shapes("model") == {"w": (2, 2), "count": ()}


def test_a_model_is_packed_once_and_no_two_messages_share_their_outer_dict(state):
    packer = Packer(state)
    one, other = packer.content(Payload([0, 1])), packer.content(Payload([1]))
    assert one["model-1"] is other["model-0"]
    del one["model-1"]
    assert "model-0" in other


def test_reports_come_back_one_by_one_and_are_stacked_in_order():
    sent = [Report({"w": torch.full((1, 2, 3), float(i))}, {"n": torch.tensor([i]), "h": torch.ones(1, 4) * i})
            for i in range(3)]
    back = [client_report(report_content(r)) for r in sent]
    assert back[1].models["w"].shape == (2, 3) and back[1].arrays["n"].shape == ()
    together = stacked(back)
    assert together.models["w"].shape == (3, 2, 3) and together.models["w"][:, 0, 0].tolist() == [0, 1, 2]
    assert same(together.arrays["n"], torch.arange(3)) and together.arrays["h"].shape == (3, 4)


def test_several_reports_in_one_message_are_kept_apart():
    content = report_content(Report(arrays={"w": torch.zeros(1, 2)}), "0-")
    content.update(report_content(Report({"m": torch.ones(1, 1, 2)}, {"w": torch.ones(1, 2)}), "1-"))
    assert client_report(content, "0-").arrays["w"].tolist() == [0, 0]
    assert client_report(content, "1-").arrays["w"].tolist() == [1, 1]
    assert client_report(content, "0-").models == {} and client_report(content, "1-").models["m"].shape == (1, 2)


def test_models_with_unlike_parameters_are_an_error():
    content = report_content(Report({"w": torch.zeros(1, 1, 2)}))
    content["model-1"] = pack({"v": torch.zeros(2)})
    with pytest.raises(KeyError):
        client_report(content)


def test_bytes_are_those_of_the_tensors(state):
    content = Packer(state).content(Payload([0, 2], {"c": torch.zeros(3, dtype=torch.float64)}), {"round": 3})
    assert tensor_bytes(content) == 2 * (4 * 4 + 8) + 3 * 8
    report = Report({"w": torch.zeros(1, 2, 5)}, {"g": torch.zeros(1, dtype=torch.bool)})
    assert tensor_bytes(report_content(report)) == 2 * 5 * 4 + 1
