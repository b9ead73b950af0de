"""TGC's losses against plain loops, and one step of training against autograd over the samples one by one."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from graphclust.losses.temporal import history_attention, intensity, reconstruction_norms, temporal_loss
from graphclust.methods._events import Events
from graphclust.methods._tgc import Rules, Table, _step, one_pass
from graphclust.methods.tgc import TGC
from graphclust.stream import Stream, build_stream

B, H, X, N, DIM, K = 6, 3, 4, 8, 5, 3


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def mask() -> Tensor:
    """Histories that are full, shorter, and empty, the latest first."""
    return torch.arange(H) < torch.tensor([3, 2, 0, 1, 3, 0])[:, None]


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_attention_is_a_softmax_over_the_history_that_exists(rng, mask):
    d = torch.from_numpy(rng.random((B, H)) * 4)
    masked, padded = history_attention(d, mask), history_attention(d, mask, masked=False)
    for b in range(B):
        share = [math.exp(-d[b, h]) for h in range(H)]
        there = sum(share[h] for h in range(H) if mask[b, h])
        for h in range(H):
            assert masked[b, h].item() == pytest.approx(share[h] / there if mask[b, h] else 0)
            assert padded[b, h].item() == pytest.approx(share[h] / sum(share) if mask[b, h] else 0)


def test_attention_does_not_overflow_nor_lose_its_gradient():
    d = torch.tensor([[1e6, 1e6 + 1], [0.0, 1e30]], requires_grad=True)
    a = history_attention(d, torch.tensor([[True, True], [False, False]]))
    torch.testing.assert_close(a, torch.tensor([[sigma(1), sigma(-1)], [0, 0]]))
    a[0, 0].backward()
    expected = sigma(1) * sigma(-1)
    torch.testing.assert_close(d.grad, torch.tensor([[-expected, expected], [0, 0]]))


def test_intensity_is_the_sum_over_the_history(rng):
    to_source, to_history = rng.random((B, X)), rng.random((B, H, X))
    attention, kernel = rng.random((B, H)), rng.random((B, H))
    found = intensity(*map(torch.from_numpy, (to_source, to_history, attention, kernel)))
    for b in range(B):
        for x in range(X):
            value = -to_source[b, x]
            for h in range(H):
                value += attention[b, h] * kernel[b, h] * -to_history[b, h, x]
            assert found[b, x].item() == pytest.approx(value)


@pytest.mark.parametrize("floor", [0.0, 1e-6])
def test_temporal_loss_pulls_the_target_and_pushes_the_negatives(rng, floor):
    values = rng.normal(size=(B, X)) * 3
    found = temporal_loss(torch.from_numpy(values), floor)
    for b in range(B):
        value = -math.log(sigma(values[b, 0]) + floor)
        for x in range(1, X):
            value -= math.log(sigma(-values[b, x]) + floor)
        assert found[b].item() == pytest.approx(value)


def test_the_floor_bounds_the_loss_and_without_it_far_pairs_keep_their_gradient():
    far = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    bounded = temporal_loss(far, 1e-6)
    torch.testing.assert_close(bounded, torch.tensor([-2 * math.log(1e-6)]))
    assert torch.autograd.grad(bounded.sum(), far)[0].abs().max() < 1e-6
    exact = temporal_loss(far)
    torch.testing.assert_close(exact, torch.tensor([400.0]))
    torch.testing.assert_close(torch.autograd.grad(exact.sum(), far)[0], torch.tensor([[-1.0, 1.0]]))


def test_reconstruction_takes_norms_over_the_batch(rng, mask):
    target, history, negatives = (rng.uniform(-1, 1, size) for size in (B, (B, H), (B, 2)))
    found = reconstruction_norms(*map(torch.from_numpy, (target, history)), mask, torch.from_numpy(negatives))
    value = math.sqrt(sum((1 - target[b]) ** 2 for b in range(B)))
    for h in range(H):
        value += math.sqrt(sum((1 - history[b, h]) ** 2 for b in range(B) if mask[b, h]))
    for j in range(2):
        value += math.sqrt(sum(negatives[b, j] ** 2 for b in range(B)))
    assert found.item() == pytest.approx(value)
    # what the public code makes of a missing entry: an angle of 0, which adds 1 under the root
    padded = reconstruction_norms(
        torch.from_numpy(target), torch.from_numpy(history) * mask, torch.ones_like(mask), torch.from_numpy(negatives)
    )
    value = math.sqrt(sum((1 - target[b]) ** 2 for b in range(B)))
    for h in range(H):
        value += math.sqrt(sum((1 - history[b, h]) ** 2 if mask[b, h] else 1 for b in range(B)))
    for j in range(2):
        value += math.sqrt(sum(negatives[b, j] ** 2 for b in range(B)))
    assert padded.item() == pytest.approx(value)


def small_stream() -> Stream:
    """Ties, repeated events, a node (7) met once, and one (0) that stands in for missing history in the public code."""
    rng = np.random.default_rng(4)
    src = np.append(rng.integers(0, N - 1, 30), 7)
    dst = np.append((src[:-1] + rng.integers(1, N - 1, 30)) % (N - 1), 2)
    return build_stream(src, dst, np.append(rng.integers(0, 12, 30) * 5.0, 30.0) + 100)


def unit_of(stream: Stream, unit: str) -> float:
    if unit == "span":
        return stream.time[-1] - stream.time[0]
    gaps = []
    for v in range(stream.n):
        times = [stream.time[e] for e in range(stream.m) if v in (stream.src[e], stream.dst[e])]
        gaps += [b - a for a, b in pairwise(times) if b > a]
    return float(np.median(gaps))


class Plain:
    """TGC's model as dense float64 tensors with autograd, its loss a loop over samples, straight from the spec."""

    def __init__(self, stream: Stream, table: Table, rules: Rules) -> None:
        self.stream, self.rules, self.scale = stream, rules, unit_of(stream, rules.time_unit)
        self.z, self.delta = (part.double().clone().requires_grad_() for part in (table.z, table.delta[:, 0]))
        self.mu = table.centres.detach().double().clone().requires_grad_()
        self.anchor, self.bandwidth = table.anchor.double(), table.bandwidth.item()

    def time(self, e: int) -> float:
        return (self.stream.time[e] - self.stream.time[0]) / self.scale

    def student(self, z: Tensor) -> Tensor:
        unit = (lambda v: v / v.norm()) if self.rules.geometry == "cosine" else (lambda v: v)
        kernel = torch.stack([1 / (1 + (unit(z) - unit(m)).square().sum() / self.bandwidth) for m in self.mu])
        return kernel / kernel.sum()

    def parts(self, samples: list[tuple[int, int]], negatives: list[list[int]]) -> tuple[Tensor, ...]:
        """The three weighted parts of the loss of samples (event, node s), and q."""
        z, rules, h_max, stream = self.z, self.rules, self.rules.hist_len, self.stream
        padded = rules.attention == "padded"
        sign, floor = (1 if rules.kernel == "growth" else -1), (1e-6 if rules.balance == "code" else 0.0)
        temporal = torch.zeros((), dtype=torch.float64)
        to_target, to_negative = [], [[] for _ in negatives[0]]
        to_history = [[] for _ in range(h_max)]
        q, p = [], []
        for (event, s), drawn in zip(samples, negatives, strict=True):
            t = int(stream.dst[event] if stream.src[event] == s else stream.src[event])
            past = [e for e in range(event) if s in (stream.src[e], stream.dst[e])][::-1][:h_max]
            nodes = [int(stream.dst[e] if stream.src[e] == s else stream.src[e]) for e in past]
            times, exists = [self.time(e) for e in past], [True] * len(past)
            if padded:
                missing = h_max - len(past)
                nodes, times, exists = nodes + [0] * missing, times + [0.0] * missing, exists + [False] * missing
            if nodes:
                share = torch.softmax(torch.stack([-(z[s] - z[h]).square().sum() for h in nodes]), 0)
            for place, x in enumerate([t, *drawn]):
                rate = -(z[s] - z[x]).square().sum()
                for i, h in enumerate(nodes):
                    if exists[i]:
                        grown = torch.exp(sign * self.delta[s] * abs(self.time(event) - times[i]))
                        rate = rate - share[i] * grown * (z[h] - z[x]).square().sum()
                temporal = temporal - torch.log(torch.sigmoid(rate if place == 0 else -rate) + floor)
            to_target.append(1 - torch.cosine_similarity(z[s], z[t], 0))
            for place, x in enumerate(drawn):
                to_negative[place].append(torch.cosine_similarity(z[s], z[x], 0))
            for i, h in enumerate(nodes):
                to_history[i].append(1 - torch.cosine_similarity(z[s], z[h], 0) * exists[i])
            q.append(self.student(z[s]))
            p.append(self.student(self.anchor[s]).detach())
        norms = sum(torch.stack(part).norm() for part in [to_target, *to_history, *to_negative] if part)
        q, p = torch.stack(q), torch.stack(p)
        p = p.square() / p.sum(0)
        p = p / p.sum(1, keepdim=True)
        node = (p * (p / q).log()).sum()
        if rules.balance == "code":
            node = node / len(samples)
        return temporal, rules.node_weight * node, rules.batch_weight * norms, q.detach()

    def step(self, samples: list[tuple[int, int]], negatives: list[list[int]]) -> list[float]:
        optimiser = torch.optim.SGD([self.z, self.delta, self.mu], lr=self.rules.lr)
        *parts, q = self.parts(samples, negatives)
        sum(parts).backward()
        if self.rules.balance == "sample" and self.mu.grad is not None:
            self.mu.grad /= q.sum(0).clamp_min(1)[:, None]
        optimiser.step()
        if self.rules.kernel == "decay":
            self.delta.data.clamp_(min=0)
        return [part.item() for part in parts]


def made(stream: Stream, mode: str, **options) -> tuple[Table, Events, Rules, torch.optim.Optimizer]:
    rules = TGC(K, mode=mode, **{"hist_len": 3, "lr": 0.03, "negatives": 2, "batch_size": 1000, **options})._rules()
    rng = np.random.default_rng(1)
    table = Table(rng.normal(size=(stream.n, DIM)).astype(np.float32) * 0.6, K, 1, rules.geometry == "cosine")
    table.anchor.copy_(table.position(torch.from_numpy(rng.normal(size=(stream.n, DIM)))))  # else P and Q begin alike
    table.centres.data.copy_(torch.from_numpy(rng.normal(size=(K, DIM))))
    table.delta.copy_(torch.from_numpy(rng.uniform(0, 1.5, (stream.n, 1))))
    table.bandwidth.fill_(rules.bandwidth if isinstance(rules.bandwidth, float) else 0.7)
    return table, Events.of(stream, rules.time_unit), rules, torch.optim.SGD([table.centres], lr=rules.lr)


OPTIONS = [
    ("faithful", {}), ("faithful", {"hist_len": 1}), ("faithful", {"node_weight": 0.0, "batch_weight": 0.5}),
    ("default", {}), ("default", {"hist_len": 1, "negatives": 1}), ("default", {"kernel": "growth"}),
    ("default", {"attention": "padded"}), ("default", {"time_unit": "span"}), ("default", {"balance": "code"}),
    ("default", {"geometry": "euclidean"}), ("default", {"geometry": "cosine"}), ("default", {"bandwidth": 2.0}),
    ("default", {"node_weight": 3.0, "batch_weight": 0.0}),
]


@pytest.mark.parametrize(("mode", "options"), OPTIONS, ids=lambda v: v if isinstance(v, str) else str(v))
def test_steps_equal_autograd_over_the_samples_one_by_one(mode, options):
    stream = small_stream()
    table, events, rules, optimiser = made(stream, mode, **options)
    plain = Plain(stream, table, rules)
    before = table.z.clone()
    # every node's first entry (no history), its second, and some later ones: s is in the batch again and again
    first = events.first[torch.arange(stream.n)]
    batches = [torch.cat((first, first[:-1] + 1, torch.arange(0, len(events), 5))), torch.arange(0, len(events), 7)]
    assert all(len(events.node[batch].unique()) < len(batch) for batch in batches)
    for number, batch in enumerate([*batches, first[-1:]]):
        negatives = events.negatives(len(batch), rules.negatives, torch.Generator().manual_seed(number)).tolist()
        samples = list(zip(events.event[batch].tolist(), events.node[batch].tolist(), strict=True))
        want = plain.step(samples, negatives)
        plain.z.grad = plain.delta.grad = plain.mu.grad = None
        found = _step(table, events, batch, rules, optimiser, torch.Generator().manual_seed(number))
        torch.testing.assert_close(found, torch.tensor(want, dtype=torch.float64), rtol=1e-5, atol=1e-5)
        for mine, theirs in ((table.z, plain.z), (table.delta[:, 0], plain.delta), (table.centres, plain.mu)):
            torch.testing.assert_close(mine.double(), theirs.detach(), rtol=1e-5, atol=1e-5, check_dtype=False)
    assert (table.z - before).abs().max() > 0.01, "nothing was learnt"


def test_a_decay_never_turns_into_growth():
    stream = small_stream()
    table, events, rules, optimiser = made(stream, "default", negatives=3)
    table.z *= 0.1  # all near each other: the negatives gain more from the history than the target does
    table.delta.fill_(1e-6)
    plain = Plain(stream, table, rules)
    batch = torch.arange(len(events))
    negatives = events.negatives(len(batch), 3, torch.Generator().manual_seed(0)).tolist()
    plain.step(list(zip(events.event.tolist(), events.node.tolist(), strict=True)), negatives)
    _step(table, events, batch, rules, optimiser, torch.Generator().manual_seed(0))
    assert table.delta.min() == 0
    torch.testing.assert_close(table.delta[:, 0].double(), plain.delta.detach(), rtol=1e-5, atol=1e-5)


def test_a_row_that_no_sample_touches_does_not_move():
    stream = small_stream()
    table, events, rules, optimiser = made(stream, "default", hist_len=1)
    batch = torch.tensor([int(events.first[7])])
    rows = {7, int(events.other[batch]), *events.negatives(1, 2, torch.Generator().manual_seed(0)).ravel().tolist()}
    before = table.z.clone()
    _step(table, events, batch, rules, optimiser, torch.Generator().manual_seed(0))
    assert set(torch.nonzero((table.z != before).any(1)).ravel().tolist()) == rows


def test_a_pass_is_its_steps_in_the_order_asked_for():
    stream = small_stream()
    whole, events, rules, optimiser = made(stream, "default", order="chronological", batch_size=25)
    entries = events.entries(torch.ones(stream.m, dtype=torch.bool))
    losses = one_pass(whole, events, entries, rules, optimiser, torch.Generator().manual_seed(3))
    steps, _, _, optimiser = made(stream, "default")
    generator, total = torch.Generator().manual_seed(3), torch.zeros(3)
    for at in range(0, len(entries), 25):
        total = total + _step(steps, events, entries[at : at + 25], rules, optimiser, generator)
    torch.testing.assert_close(whole.z, steps.z, rtol=0, atol=0)
    means = (total / len(events)).tolist()
    assert [losses[part] for part in ("temporal", "node", "reconstruction")] == pytest.approx(means)
    assert losses["loss"] == pytest.approx(sum(means))
    mixed, _, rules, optimiser = made(stream, "default", order="shuffled", batch_size=25)
    one_pass(mixed, events, entries, rules, optimiser, torch.Generator().manual_seed(3))
    assert (mixed.z - whole.z).abs().max() > 1e-4
