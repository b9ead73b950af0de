"""The training loop: epochs, resumption, divergence, collapse, devices."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from graphclust.graph import InputError
from graphclust.monitor import Silent
from graphclust.training import (
    Checkpoints,
    CollapseGuard,
    DivergenceError,
    Epoch,
    Phase,
    Settled,
    effective_clusters,
    resolve_device,
    torch_generator,
    train,
)


class Watch(Silent):
    """Keeps what the loop reports, and interrupts it when told."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.phases: list[tuple[int, str]] = []
        self.steps: list[tuple[int, dict[str, float], np.ndarray | None]] = []
        self.stop_at = stop_at

    def start(self, total: int, what: str) -> None:
        self.phases.append((total, what))

    def step(self, step, values, labels=None) -> None:
        self.steps.append((step, values, None if labels is None else labels()))
        if step == self.stop_at:
            raise KeyboardInterrupt


def phase(epochs: int = 6, seed: int = 0, labels=None, name: str = "training") -> Phase:
    """Noisy descent of a scalar: Adam's state and the generator both matter."""
    module = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(3.0)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(seed)
    passes = iter(range(1000))

    def epoch() -> Epoch:
        optimiser.zero_grad()
        loss = (module.weight - torch.randn(1, generator=generator)).square().sum()
        loss.backward()
        optimiser.step()
        return Epoch({"loss": loss.item()}, None if labels is None else labels(next(passes)))

    return Phase(name, epochs, module, optimiser, generator, epoch)


def no_file() -> Checkpoints:
    return Checkpoints(None, "key", 0)


def test_every_epoch_is_reported():
    watch, run = Watch(), phase(4, labels=lambda i: torch.tensor([i, 0]))
    train(run, watch, no_file())
    assert watch.phases == [(4, "training")]
    assert [s[0] for s in watch.steps] == [0, 1, 2, 3]
    assert [h["epoch"] for h in run.history] == [0, 1, 2, 3]
    assert [h["loss"] for h in run.history] == [s[1]["loss"] for s in watch.steps]
    np.testing.assert_array_equal(watch.steps[3][2], [3, 0])
    assert run.stopped is None


def test_zero_epochs_change_nothing():
    run = phase(0)
    train(run, Silent(), no_file())
    assert run.module.weight.item() == 3.0
    assert run.history == []


@pytest.mark.parametrize("stop_at", [0, 2, 4])
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, stop_at):
    whole = phase()
    train(whole, Silent(), no_file())
    file = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        train(phase(), Watch(stop_at), Checkpoints(file, "key", 7, interval=0))
    assert [p.name for p in tmp_path.iterdir()] == (["state.pt"] if stop_at else [])
    again, watch = phase(seed=99), Watch()  # another generator: its state must come from the file
    if not stop_at:
        again = phase()
    checkpoints = Checkpoints(file, "key", 8, interval=0)
    assert checkpoints.seed == (7 if stop_at else 8)
    train(again, watch, checkpoints)
    assert watch.steps[0][0] == stop_at  # the epoch that was under way is run again, the finished ones are not
    assert again.module.weight.item() == whole.module.weight.item()
    assert again.history == whole.history


def test_a_finished_phase_is_not_run_again(tmp_path):
    file = tmp_path / "state.pt"
    train(phase(), Silent(), Checkpoints(file, "key", 0))
    again, watch = phase(), Watch()
    train(again, watch, Checkpoints(file, "key", 0))
    assert watch.steps == []
    assert len(again.history) == 6


def test_the_state_of_another_phase_is_left_alone(tmp_path):
    file = tmp_path / "state.pt"
    train(phase(name="pre-training"), Silent(), Checkpoints(file, "key", 0))
    checkpoints = Checkpoints(file, "key", 0)
    assert checkpoints.reached("pre-training")
    assert not checkpoints.reached("training")
    watch = Watch()
    train(phase(), watch, checkpoints)
    assert len(watch.steps) == 6


def test_checkpoints_wait_for_their_interval(tmp_path):
    file = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        train(phase(), Watch(4), Checkpoints(file, "key", 0, interval=1000))
    assert not file.exists()


def test_foreign_and_broken_checkpoints_are_refused(tmp_path):
    file = tmp_path / "state.pt"
    train(phase(), Silent(), Checkpoints(file, "key", 0))
    with pytest.raises(InputError, match="other parameters or data"):
        Checkpoints(file, "another key", 0)
    file.write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        Checkpoints(file, "key", 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_divergence_names_the_epoch_and_the_remedy(bad):
    run = phase(5)
    values = iter([1.0, 2.0, bad])
    run.epoch = lambda: Epoch({"loss": next(values)})
    with pytest.raises(DivergenceError, match=r"training diverged: loss is \w+ in epoch 2; lower lr \(now 0\.1\)"):
        train(run, Silent(), no_file())
    assert len(run.history) == 2


def test_effective_number_of_clusters():
    assert effective_clusters(torch.tensor([0, 1, 2, 0, 1, 2])) == pytest.approx(3)
    assert effective_clusters(torch.tensor([1, 1, 1])) == pytest.approx(1)
    assert effective_clusters(torch.tensor([0, 0, 0, 1])) == pytest.approx(math.exp(0.5623351446))


def collapsing(i: int) -> torch.Tensor:
    """Three clusters until epoch 3, then one."""
    return torch.arange(9) % 3 if i < 3 else torch.zeros(9, dtype=torch.long)


def test_collapse_ends_training_at_the_last_sound_weights():
    sound = phase(2)
    train(sound, Silent(), no_file())  # the weights that gave the labels of epoch 2
    run = phase(10, labels=collapsing)
    train(run, Silent(), no_file(), [CollapseGuard(0.5)])
    assert run.stopped == "collapse"
    assert len(run.history) == 4
    assert run.module.weight.item() == sound.module.weight.item()


def test_guard_survives_resumption(tmp_path):
    whole = phase(10, labels=collapsing)
    train(whole, Silent(), no_file(), [CollapseGuard(0.5)])
    file = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        train(phase(10, labels=collapsing), Watch(2), Checkpoints(file, "key", 0, interval=0), [CollapseGuard(0.5)])
    again = phase(10, labels=lambda i: collapsing(i + 2))
    train(again, Silent(), Checkpoints(file, "key", 0, interval=0), [CollapseGuard(0.5)])
    assert again.stopped == "collapse"
    assert again.module.weight.item() == whole.module.weight.item()
    third, watch = phase(10), Watch()
    train(third, watch, Checkpoints(file, "key", 0), [CollapseGuard(0.5)])
    assert watch.steps == []
    assert third.stopped == "collapse"


def test_guard_lets_balanced_training_run():
    run = phase(5, labels=lambda i: torch.arange(9) % 3)
    train(run, Silent(), no_file(), [CollapseGuard(0.9)])
    assert run.stopped is None
    assert len(run.history) == 5


def drifting(i: int) -> torch.Tensor:
    """200 nodes of two clusters; each epoch up to the 20th moves one more node."""
    return (torch.arange(200) >= 100 - min(i, 20)).long()


def test_training_ends_once_the_partition_has_settled(tmp_path):
    whole = phase(50, labels=drifting)
    train(whole, Silent(), no_file(), [Settled(0.01, 10)])
    assert whole.stopped == "settled"
    assert len(whole.history) == 31  # between epochs 20 and 30 nobody moved; between 10 and 20 ten of 200 did
    early = phase(30)
    train(early, Silent(), no_file())
    assert whole.module.weight.item() == early.module.weight.item()  # the weights that gave the settled labels
    with pytest.raises(KeyboardInterrupt):
        train(phase(50, labels=drifting), Watch(25), Checkpoints(tmp_path / "c", "k", 0, interval=0), [Settled(0.01)])
    again = phase(50, labels=lambda i: drifting(i + 25))
    train(again, Silent(), Checkpoints(tmp_path / "c", "k", 0, interval=0), [Settled(0.01)])
    assert len(again.history) == 31
    assert again.module.weight.item() == whole.module.weight.item()


def test_a_partition_that_keeps_moving_runs_to_the_last_epoch():
    run = phase(25, labels=lambda i: (torch.arange(10) >= i % 10).long())
    train(run, Silent(), no_file(), [Settled(0.005, 3), CollapseGuard(0.0)])
    assert run.stopped is None
    assert len(run.history) == 25


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match="device = 'cuda', but torch finds no cuda device"):
        resolve_device("cuda")
    with pytest.raises(InputError, match="device = 'gpu'; it must be"):
        resolve_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


def test_torch_generator_follows_the_numpy_one():
    draw = [torch.rand(3, generator=torch_generator(np.random.default_rng(s))) for s in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


def test_checkpoint_holds_no_pickled_code(tmp_path: Path):
    file = tmp_path / "state.pt"
    train(phase(labels=collapsing), Silent(), Checkpoints(file, "key", 0), [CollapseGuard(0.1)])
    assert set(torch.load(file, weights_only=True)) == {
        "key", "seed", "phase", "module", "optimiser", "generator", "history", "stopped", "rules",
    }
