"""Payloads and reports survive the way through Flower's records."""

import pickle

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, RecordDict

from fedclust.algorithms.base import Payload, Report
from fedclust.messages import (
    Packer,
    delivery,
    report_contents,
    reports,
    settings_of,
    tensor_bytes,
)
from fedclust.records import TensorRecord, gathered, n_bytes, pack, signature, unpack

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


def test_inside_the_process_nothing_is_written(monkeypatch):
    monkeypatch.setattr("fedclust.records._array", lambda t: pytest.fail("written"))
    record = pack(TENSORS)
    again = record.copy()
    assert unpack(again)["float"] is TENSORS["float"] and n_bytes([record]) == sum(t.nbytes for t in TENSORS.values())
    assert dict((name, (shape, dtype)) for name, shape, dtype in signature(again))["int"] == ((5,), torch.int64)


def test_what_leaves_the_process_is_flowers_own_record():
    record = TensorRecord({"w": torch.arange(6.0).view(3, 2)}, (1,))
    flowers = ArrayRecord({"w": torch.tensor([2.0, 3])})
    assert record.deflate() == flowers.deflate() and record.object_id == flowers.object_id
    arrived = pickle.loads(pickle.dumps(record))
    assert type(arrived) is ArrayRecord and arrived == flowers == record
    assert unpack(arrived)["w"].tolist() == [2, 3] and signature(arrived) == signature(record)
    assert len(pickle.dumps(TensorRecord({"w": torch.zeros(10**6, 1)}, (3,)))) < 2000, "the whole source was pickled"


def test_a_record_that_is_changed_no_longer_says_what_its_source_says():
    source = {"w": torch.zeros(2, 3)}
    record = TensorRecord(source, (0,))
    other = record.copy()
    record["v"] = pack({"v": torch.ones(1)})["v"]
    del record["w"]
    third = record.copy()
    assert list(record) == ["v"] and list(unpack(record)) == ["v"] and n_bytes([record]) == 4 and "w" not in record
    assert list(other) == ["w"] and list(unpack(third)) == ["v"] and repr(other) != repr(record)


def test_records_of_one_source_are_stacked_without_a_copy_where_they_are_in_order():
    source = {"w": torch.arange(24.0).view(2, 3, 4)}
    every = [TensorRecord(source, (i, j)) for i in range(2) for j in range(3)]
    whole = gathered(every)["w"]
    assert same(whole, source["w"].flatten(0, 1)) and whole.data_ptr() == source["w"].data_ptr()
    some = [every[4], every[0], pack({"w": torch.ones(4)}), every[4], TensorRecord({"w": torch.zeros(9, 4)}, (2,))]
    assert same(gathered(some)["w"], torch.stack([unpack(r)["w"] for r in some]))
    assert same(gathered([pack(unpack(r)) for r in some])["w"], gathered(some)["w"])
    with pytest.raises(KeyError):
        gathered([every[0], pack({"v": torch.ones(4)})])
    with pytest.raises(RuntimeError):
        gathered([every[0], pack({"w": torch.ones(5)})])


def test_a_dtype_that_numpy_does_not_have_is_refused():
    with pytest.raises(TypeError, match="BFloat16"):
        pack({"a": torch.zeros(2, dtype=torch.bfloat16)})


@pytest.fixture
def state():
    return {"model/w": torch.arange(12.0).view(3, 2, 2), "model/count": torch.arange(3), "other/v": torch.ones(2, 5)}


def test_a_payload_arrives_with_its_groups_in_order_and_the_cohorts_axis(state):
    content = Packer(state).content(Payload([2, 0], {"c": torch.tensor([1.0, 2.0])}, phase="warm"), {"round": -1})
    arrived = delivery([content])
    assert arrived.models["w"].shape == (1, 2, 2, 2) and same(arrived.models["w"][0], state["model/w"][[2, 0]])
    assert same(arrived.models["count"], torch.tensor([[2, 0]]))
    assert same(arrived.arrays["c"], torch.tensor([[1.0, 2.0]]))
    assert arrived.phase == "warm" and settings_of(content)["round"] == -1


def test_a_payload_without_models_or_arrays(state):
    arrived = delivery([Packer(state).content(Payload([], phase="histogram"))])
    assert arrived.models == {} and arrived.arrays == {} and arrived.phase == "histogram"


def test_another_family_of_models(state):
    packer = Packer(state)
    arrived = delivery([packer.content(Payload([1], family="other"))])
    assert arrived.models["v"].shape == (1, 1, 5)
    assert packer.signature("other") == (("v", (5,), torch.float32),) and packer.signature("none") == ()
    assert packer.signature("model") == (("count", (), torch.int64), ("w", (2, 2), torch.float32))


def test_payloads_that_say_the_same_share_their_content(state):
    packer = Packer(state)
    one, other = packer.content(Payload([0, 1])), packer.content(Payload([1]))
    assert one["model-1"] is other["model-0"] and packer.content(Payload([0, 1])) is one
    with_arrays = packer.content(Payload([1], {"c": torch.zeros(1)}))
    assert "arrays" in with_arrays and "arrays" not in other
    assert packer.content(Payload([1]), {"round": 2}) != packer.content(Payload([1]), {"round": 3})


def test_reports_come_back_stacked_in_order():
    sent = [Report({"w": torch.full((1, 2, 3), float(i))}, {"n": torch.tensor([i]), "h": torch.ones(1, 4) * i})
            for i in range(3)]
    back = [report_contents(r, 1)[0] for r in sent]
    assert reports(back[1:2]).models["w"].shape == (1, 2, 3) and reports(back[1:2]).arrays["n"].shape == (1,)
    together = reports(back)
    assert together.models["w"].shape == (3, 2, 3) and together.models["w"][:, 0, 0].tolist() == [0, 1, 2]
    assert same(together.arrays["n"], torch.arange(3)) and together.arrays["h"].shape == (3, 4)


def test_a_cohorts_report_goes_out_one_by_one_and_comes_back_as_it_was():
    report = Report({"w": torch.randn(4, 2, 3)}, {"n": torch.arange(4)})
    contents = report_contents(report, 4)
    assert [list(c) for c in contents] == [["model-0", "model-1", "arrays"]] * 4
    assert same(unpack(contents[2]["model-1"])["w"], report.models["w"][2, 1])
    back = reports(contents)
    assert same(back.models["w"], report.models["w"]) and back.models["w"].data_ptr() == report.models["w"].data_ptr()
    assert same(reports(contents[::-1]).models["w"], report.models["w"].flip(0))
    assert report_contents(Report(), 2) == [RecordDict(), RecordDict()]


def test_several_reports_in_one_message_are_kept_apart():
    content = report_contents(Report(arrays={"w": torch.zeros(1, 2)}), 1, "0-")[0]
    content.update(report_contents(Report({"m": torch.ones(1, 1, 2)}, {"w": torch.ones(1, 2)}), 1, "1-")[0])
    first, second = reports([content], "0-"), reports([content], "1-")
    assert first.arrays["w"].tolist() == [[0, 0]] and second.arrays["w"].tolist() == [[1, 1]]
    assert first.models == {} and second.models["m"].shape == (1, 1, 2)


def test_models_with_unlike_parameters_are_an_error():
    content = report_contents(Report({"w": torch.zeros(1, 1, 2)}), 1)[0]
    content["model-1"] = pack({"v": torch.zeros(2)})
    with pytest.raises(KeyError):
        reports([content])


def test_bytes_are_those_of_the_tensors(state):
    content = Packer(state).content(Payload([0, 2], {"c": torch.zeros(3, dtype=torch.float64)}), {"round": 3})
    assert tensor_bytes([content, content]) == 2 * ( 2 * (4 * 4 + 8) + 3 * 8)
    report = Report({"w": torch.zeros(1, 2, 5)}, {"g": torch.zeros(1, dtype=torch.bool)})
    assert tensor_bytes(report_contents(report, 1)) == 2 * 5 * 4 + 1
