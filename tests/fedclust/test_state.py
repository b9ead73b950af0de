"""Checkpoints and results come back as they were, whole or not at all."""

import json
import math
import os

import pytest
import torch

from fedclust.state import Checkpoint, FederationResult, History, mean
from graphclust.graph import InputError

STATE = {
    "model/w": torch.randn(3, 2, 2), "weights": torch.tensor([[0.5, 0.5], [math.nan, math.nan]]),
    "round": torch.tensor(4), "alive": torch.tensor([True, False]), "count": torch.arange(3),
}


def history():
    h = History()
    h.add({"round": 0, "mean": {"accuracy": None}}, {"group": torch.tensor([0.0, math.nan])})
    h.add({"round": 1, "mean": {"accuracy": 0.5}},
          {"group": torch.tensor([0.0, 1.0]), "accuracy": torch.tensor([0.5, 1.0])})
    h.add({"round": 2, "mean": {}}, {"group": torch.tensor([1.0, 1.0])})
    return h


def same(a, b):
    assert a.keys() == b.keys()
    for name, t in a.items():
        assert t.dtype == b[name].dtype and torch.equal(t.nan_to_num(-7), b[name].nan_to_num(-7)), name


def test_a_round_without_a_value_leaves_a_gap():
    table = history().tables["accuracy"]
    assert table.shape == (3, 2) and table[1].tolist() == [0.5, 1]
    assert table[[0, 2]].isnan().all()
    assert history().tables["group"].nan_to_num(-1).tolist() == [[0, -1], [0, 1], [1, 1]]


def test_the_mean_leaves_out_what_is_not_known():
    assert mean(torch.tensor([1.0, math.nan, 0.0])) == 0.5 and mean(torch.tensor([math.nan])) is None


def test_a_checkpoint_comes_back(tmp_path):
    memories = {"2/memory-0/omega": torch.rand(1, 3)}
    Checkpoint("abc", ["a", "b/c"], STATE, history(), memories).save(tmp_path / "x" / "checkpoint")
    back = Checkpoint.load(tmp_path / "x" / "checkpoint", "abc")
    assert back is not None and back.ids == ["a", "b/c"] and back.history.rounds == history().rounds
    same(back.state, STATE)
    same(back.history.tables, history().tables)
    same(back.memories, memories)


def test_tensors_that_share_memory_are_saved(tmp_path):
    stacked = torch.arange(6.0).view(2, 3)
    Checkpoint("abc", [], {"a": stacked[0], "b": stacked[1], "t": stacked.T}, History()).save(tmp_path / "c")
    back = Checkpoint.load(tmp_path / "c", "abc")
    assert back is not None and back.state["b"].tolist() == [3, 4, 5] and torch.equal(back.state["t"], stacked.T)


def test_no_checkpoint_and_another_configs_checkpoint(tmp_path):
    assert Checkpoint.load(tmp_path / "none", "abc") is None
    Checkpoint("abc", [], STATE, History()).save(tmp_path / "c")
    with pytest.raises(InputError, match="belongs to config abc, this one is xyz"):
        Checkpoint.load(tmp_path / "c", "xyz")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(InputError, match=r"c is no file of fedclust"):
        Checkpoint.load(tmp_path / "c", "abc")


def test_a_checkpoint_that_fails_to_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    Checkpoint("abc", ["old"], STATE, History()).save(tmp_path / "c")

    def no_space(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="no space left"):
        Checkpoint("abc", ["new"], STATE, History()).save(tmp_path / "c")
    back = Checkpoint.load(tmp_path / "c", "abc")
    assert back is not None and back.ids == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_result_comes_back(tmp_path):
    result = FederationResult(
        {"algorithm": "ifca"}, ["a", "b"], [3, 4], history(), STATE, torch.eye(2),
        [{"id": "a", "accuracy": 0.5}, {"id": "b", "accuracy": None}],
        [{"client": "u", "shots": None, "undetermined": True}], torch.tensor([[math.nan, math.nan]]),
        {"rounds": {"up": 1, "down": 2}}, 1.5,
    )
    result.save(tmp_path / "r")
    back = FederationResult.load(tmp_path / "r")
    same(back.state, STATE)
    same(back.history.tables, result.history.tables)
    same({"w": back.weights, "u": back.unseen_weights}, {"w": result.weights, "u": result.unseen_weights})
    for name in ("config", "ids", "n_samples", "clients", "unseen", "traffic", "seconds"):
        assert getattr(back, name) == getattr(result, name)
        json.dumps(getattr(back, name), allow_nan=False)
