"""Cost of TGC: against a straightforward per-sample implementation, and as the stream grows.

    python benchmarks/temporal.py speed      # samples/s of a training pass, memory of the sampler and of a whole fit
    python benchmarks/temporal.py scaling    # index and one pass over generated streams of 1e4 to 1e7 events
    python benchmarks/temporal.py scaling --events 1e4,1e5

Each measurement runs in a fresh process on one thread. Seconds are CPU seconds of that process, which on one thread is
what a clock on the wall would show on an idle machine. A sample is an event seen from one of its ends; settings of the
paper: one past meeting, two negatives, 128 dimensions, batches of 1024, shuffled.

The yardstick is written plainly, in the shape of the public code: a data set that puts the samples together one by one
in Python, negatives from a table of 1e8 entries, a data loader that stacks them, autograd through a dense table of
vectors, SGD. Both sides start from random vectors and the same stream.
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
from typing import Any

import numpy as np
from fresh import measure, tell

PATENT = "drifting:n=12000,k=6,windows=1,events=7"
SCHOOL = "drifting:n=327,k=9,windows=5,events=231"
SCHOOL_EVENTS = 188_508
EVENTS_PER_NODE = 200
DIM, NEGATIVES, BATCH = 128, 2, 1024
TABLE = 10**8
PASSES = 3


def start(n: int) -> np.ndarray:
    """Random vectors of length 1, (n, DIM) float32."""
    z = np.random.default_rng(0).standard_normal((n, DIM), dtype=np.float32)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def prepare(stream: Any, k: int, mode: str) -> tuple[Any, ...]:
    """What a pass of ours needs, and the CPU seconds that the index of the events took."""
    import torch

    from graphclust.methods._events import Events
    from graphclust.methods._tgc import Table
    from graphclust.methods.tgc import TGC

    rules = TGC(k, mode=mode, hist_len=1, negatives=NEGATIVES, dim=DIM, batch_size=BATCH)._rules()
    begin = time.process_time()
    events = Events.of(stream, rules.time_unit)
    entries = events.entries(torch.ones(stream.m, dtype=torch.bool))
    index = time.process_time() - begin
    table = Table(start(stream.n), k, 1, rules.geometry == "cosine")
    table.start(0, rules.bandwidth)
    optimiser = torch.optim.SGD([table.centres], lr=rules.lr)
    return (table, events, entries, rules, optimiser, torch.Generator().manual_seed(0)), index


def run_ours(mode: str) -> dict[str, float]:
    """Samples a second of the package, the median of some passes, and the loss over the first."""
    from graphclust.coerce import as_stream
    from graphclust.data import load
    from graphclust.methods._tgc import one_pass

    data = load(PATENT)
    parts, _ = prepare(as_stream(data), int(data.k), mode)
    seconds, losses = [], []
    for _ in range(PASSES):
        begin = time.process_time()
        losses.append(one_pass(*parts)["loss"])
        seconds.append(time.process_time() - begin)
    return {"rate": len(parts[2]) / float(np.median(seconds)), "loss": losses[0]}


def run_yardstick(mode: str) -> dict[str, float]:
    """Samples a second of the plain implementation, in the public code's arithmetic whatever ``mode``; one pass."""
    import torch
    from sklearn.cluster import KMeans
    from torch.utils.data import DataLoader, Dataset

    from graphclust.coerce import as_stream
    from graphclust.data import load

    data = load(PATENT)
    stream, rng = as_stream(data), np.random.default_rng(0)
    times, met = stream.unit_time(), [[] for _ in range(stream.n)]
    samples = []
    for s, t, at in zip(stream.src.tolist(), stream.dst.tolist(), times.tolist(), strict=True):
        for a, b in ((s, t), (t, s)):
            samples.append((a, len(met[a])))
            met[a].append((b, at))
    share = np.bincount(np.concatenate((stream.src, stream.dst)), minlength=stream.n) ** 0.75
    filled = np.round(np.cumsum(share) / share.sum() * TABLE).astype(np.int64)
    noise = np.repeat(np.arange(stream.n, dtype=np.float64), np.diff(filled, prepend=0))

    class Samples(Dataset):
        def __len__(self) -> int:
            return len(samples)

        def __getitem__(self, at: int) -> dict[str, Any]:
            s, place = samples[at]
            t, tau = met[s][place]
            past = met[s][max(0, place - 1) : place]
            nodes, when, mask = np.zeros(1), np.zeros(1), np.zeros(1)
            nodes[: len(past)] = [v for v, _ in past]
            when[: len(past)] = [moment for _, moment in past]
            mask[: len(past)] = 1
            return {"s": s, "t": t, "tau": tau, "nodes": nodes, "when": when, "mask": mask,
                    "negatives": noise[rng.integers(0, len(noise), NEGATIVES)]}

    first = torch.from_numpy(start(stream.n))
    z, delta = first.clone().requires_grad_(), torch.ones(stream.n, requires_grad=True)
    centres = torch.from_numpy(KMeans(int(data.k), n_init=20, random_state=0).fit(first.numpy()).cluster_centers_)
    centres.requires_grad_()
    optimiser = torch.optim.SGD([z, delta, centres], lr=0.01)

    def assign(rows: torch.Tensor) -> torch.Tensor:
        q = 1 / (1 + (rows[:, None] - centres).square().sum(2))
        return q / q.sum(1, keepdim=True)

    def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.cosine_similarity(a, b, dim=-1)

    total, begin = 0.0, time.process_time()
    for batch in DataLoader(Samples(), batch_size=BATCH, shuffle=True):
        s, t, mask = batch["s"], batch["t"], batch["mask"].float()
        zs, zt, zh, zn = z[s], z[t], z[batch["nodes"].long()], z[batch["negatives"].long()]
        attention = torch.softmax(-(zs[:, None] - zh).square().sum(2), 1)
        elapsed = (batch["tau"][:, None] - batch["when"]).abs().float()
        weight = attention * mask * torch.exp(delta[s][:, None] * elapsed)
        ahead = -(zs - zt).square().sum(1) - (weight * (zh - zt[:, None]).square().sum(2)).sum(1)
        between = (zh[:, :, None] - zn[:, None]).square().sum(3)
        apart = -(zs[:, None] - zn).square().sum(2) - (weight[:, :, None] * between).sum(1)
        temporal = -torch.log(ahead.sigmoid() + 1e-6) - torch.log((-apart).sigmoid() + 1e-6).sum(1)
        q, target = assign(zs), assign(first[s]).detach()
        target = target.square() / target.sum(0)
        target = target / target.sum(1, keepdim=True)
        node = torch.nn.functional.kl_div(q.log(), target, reduction="batchmean")
        norms = (1 - cosine(zs, zt)).norm() + (1 - mask * cosine(zs[:, None], zh)).norm(dim=0).sum()
        norms = norms + cosine(zs[:, None], zn).norm(dim=0).sum()
        loss = temporal.sum() + node + norms
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item()
    return {"rate": len(samples) / (time.process_time() - begin), "loss": total / len(samples)}


def run_sampler(ref: str) -> dict[str, float]:
    """MB that the samples of a stream take: their arrays, and the peak of NumPy while these are made."""
    import torch

    from graphclust.coerce import as_stream
    from graphclust.data import load
    from graphclust.methods._events import Events

    stream = as_stream(load(ref))
    tracemalloc.start()
    events = Events.of(stream, "gap")
    peak = tracemalloc.get_traced_memory()[1]
    held = [value for value in vars(events).values() if isinstance(value, torch.Tensor)]
    return {"events": stream.m, "arrays": sum(part.nbytes for part in held) / 1e6, "made": peak / 1e6}


def run_fit(mode: str) -> dict[str, float]:
    """A whole fit, from events to labels, of a stream as large as school."""
    from graphclust.coerce import as_stream
    from graphclust.data import load
    from graphclust.methods.tgc import TGC

    data = load(SCHOOL)
    stream = as_stream(data).between(0, SCHOOL_EVENTS)
    begin = time.process_time()
    TGC(int(data.k), mode=mode, dim=DIM, epochs=2, random_state=0).fit(stream)
    return {"events": stream.m, "cpu": time.process_time() - begin}


def run_scaling(events: str) -> dict[str, float]:
    """Index and one pass, default mode."""
    from graphclust.coerce import as_stream
    from graphclust.data import load
    from graphclust.methods._tgc import one_pass

    data = load(f"sessions:n={int(events) // EVENTS_PER_NODE},k=4,sessions=5,events=10")
    parts, index = prepare(as_stream(data), 4, "default")
    begin = time.process_time()
    one_pass(*parts)
    return {"nodes": int(data.n_nodes), "index": index, "pass": time.process_time() - begin}


RUNS = {"ours": run_ours, "yardstick": run_yardstick, "sampler": run_sampler, "fit": run_fit, "scaling": run_scaling}


def one(args: list[str]) -> None:
    """Inside the fresh process."""
    import torch

    torch.set_num_threads(1)
    kind, *rest = args
    result = RUNS[kind](*rest)
    tell(result)


def speed() -> None:
    """Print samples a second of both, and memory."""
    print(f"one pass over {PATENT} (42,000 events, 84,000 samples)")
    plain = measure("yardstick", "faithful")
    print(f"{'':20} {'samples/s':>10} {'ratio':>6} {'loss':>7} {'peak MB':>8}")
    print(f"{'plain':20} {plain['rate']:10,.0f} {1:6.1f} {plain['loss']:7.4f} {plain['memory']:8.0f}", flush=True)
    for mode in ("faithful", "default"):
        row = measure("ours", mode)
        ratio = row["rate"] / plain["rate"]
        print(f"{'ours, ' + mode:20} {row['rate']:10,.0f} {ratio:6.1f} {row['loss']:7.4f} {row['memory']:8.0f}",
              flush=True)
    for ref in (PATENT, SCHOOL):
        row = measure("sampler", ref)
        print(f"sampler of {ref}: {row['arrays']:.1f} MB, {row['made']:.1f} MB while it is made", flush=True)
    for mode in ("faithful", "default"):
        row = measure("fit", mode)
        print(f"fit of {row['events']:,} events among 327 nodes, {mode}: peak {row['memory']:.0f} MB, "
              f"{row['cpu']:.1f} CPU s for two epochs", flush=True)


def scaling(events: list[int]) -> None:
    """Print time and memory for each number of events."""
    print(f"{'events':>9} {'nodes':>7} {'index s':>8} {'pass s':>8} {'us/event':>9} {'samples/s':>10} {'peak MB':>8}")
    for m in events:
        row = measure("scaling", m)
        each = (row["index"] + row["pass"]) / m * 1e6
        print(f"{m:9} {row['nodes']:7} {row['index']:8.2f} {row['pass']:8.2f} {each:9.2f} {2 * m / row['pass']:10,.0f} "
              f"{row['memory']:8.0f}", flush=True)


def main() -> None:
    """Command line."""
    if sys.argv[1:2] == ["one"]:
        return one(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["speed", "scaling"])
    parser.add_argument("--events", default="1e4,1e5,1e6,1e7", help="numbers of events (scaling)")
    options = parser.parse_args()
    if options.mode == "speed":
        speed()
    else:
        scaling([int(float(m)) for m in options.events.split(",")])


if __name__ == "__main__":
    main()
