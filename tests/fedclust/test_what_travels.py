"""The table "What travels" of the deployment page against the code: what every algorithm sends, and how many bytes."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch

from fedclust.algorithms import algorithm_names, get_algorithm, make_algorithm
from fedclust.data.client import ClientData, Split
from fedclust.messages import Packer, report_contents, tensor_bytes
from fedclust.models import Model, ModelConfig
from fedclust.task import Training, stream
from tests.fedclust.loop import Loop, deliver

PAGE = (Path(__file__).parents[2] / "docs/deployment.md").read_text()
N, ROUNDS = 6, 5
DIGITS = Model(ModelConfig(), (64,), 10)
QUICK = {
    "cfl": {"first_split": 2}, "community": {"warmup": 2}, "fedcollab": {"divergence": {"rounds": 3}},
    "flhc": {"warmup": 2}, "hierarchical": {"warmup": 2}, "oracle": {"true_groups": (0, 1, 2) * 2},
    "fedem": {"trial_rounds": 2}, "fedrc": {"trial_rounds": 2},
}
SIMILARITIES = ("updates", "losses", "labels", "divergence")
CASES = [(name, s) for name in algorithm_names() for s in (SIMILARITIES if name == "community" else ("",))]


def clients():
    """Six clients with 30 samples each, of the shape of the digits."""
    made = []
    for i in range(N):
        g = stream(0, "digits-like", i)
        x, y = torch.rand(30, 64, generator=g), torch.randint(10, (30,), generator=g)
        made.append(ClientData(f"c{i}", Split(x, y), Split(x[:0], y[:0]), Split(x[:0], y[:0])))
    return made


def words(models: int, arrays) -> str:
    """What a message holds, in words."""
    parts = [f"{models} model{'s' * (models > 1)}"] if models else []
    return ", ".join([*parts, *(f"`{name}`" for name in arrays)]) or "nothing"


@cache
def seen(name: str, similarity: str = ""):
    """(phase, what goes up, bytes, what comes down, bytes) of one client, in the order of appearance; array names."""
    settings = {**QUICK.get(name, {}), **({"similarity": similarity} if similarity else {})}
    if similarity == "divergence":
        settings["divergence"] = {"rounds": 3}
    loop = Loop(make_algorithm(name, settings, Training(batch_size=30)), clients(), DIGITS)
    found, arrays = [], set()
    while loop.round < ROUNDS:
        state = {**loop.state, "round": torch.tensor(loop.round)}
        payload = loop.algorithm.payload(state, 0)
        cohort = loop.cohort(0)
        cohort.memory = dict(cohort.memory)
        report = loop.algorithm.local_step(cohort, deliver(state, payload))
        up, down = report_contents(report, 1)[0], Packer(state).content(payload)
        sent = next(iter(report.models.values())).shape[1] if report.models else 0
        row = (payload.phase, words(sent, report.arrays), tensor_bytes([up]),
               words(len(payload.groups), payload.arrays), tensor_bytes([down]))
        arrays |= {*report.arrays}
        if row not in found:
            found.append(row)
        loop.step()
    return found, arrays, loop.algorithm


def rows(name: str, similarity: str) -> list[str]:
    """The lines of the table."""
    title = f"`{name}`" + (f" ({similarity})" if similarity else "")
    return [f"| {title} | {phase} | {up} | {u:,} | {down} | {d:,} |" for phase, up, u, down, d in
            seen(name, similarity)[0]]


@pytest.mark.parametrize("name, similarity", CASES)
def test_the_page_says_what_is_sent(name, similarity):
    start = f"| `{name}`" + (f" ({similarity})" if similarity else " |")
    table = PAGE.partition("### What travels")[2].partition("\n## ")[0]
    assert [line for line in table.splitlines() if line.startswith(start)] == rows(name, similarity)


@pytest.mark.parametrize("name, similarity", CASES)
def test_algorithms_declare_their_arrays(name, similarity):
    found, arrays, algorithm = seen(name, similarity)
    assert arrays == {*algorithm.extras}
    assert (get_algorithm(name).sends == "nothing") == (not any(bytes_up for _, _, bytes_up, _, _ in found))


def test_every_array_has_a_line_on_what_it_reveals():
    table = PAGE.partition("What each piece reveals")[2].partition("\n## ")[0]
    pieces = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", table, re.M)
    told = set(re.findall(r"`(\w+)`", " ".join(pieces)))
    assert set().union(*(seen(*case)[1] for case in CASES)) <= told


def test_a_model_of_the_digits_has_the_bytes_that_its_layers_say():
    assert seen("fedavg")[0] == [("train", "1 model", 4 * (64 * 64 + 64 + 64 * 10 + 10), "1 model", 19240)]
