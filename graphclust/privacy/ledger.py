"""What a private result cost: the ledger that goes with it, and the budget that runs on one graph share."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graphclust.atomic import write_atomic
from graphclust.graph import InputError

ADJACENCY = ("edge: neighbouring graphs differ in one undirected edge; the nodes, their number n and the number of "
             "clusters are public")
NODE_DP = ("node-level privacy is refused, not approximated: one node changes up to n - 1 edges, so the noise would "
           "grow by that factor and hide every cluster; no budget below the order of log n can be enough (arXiv "
           "2604.09078, 2605.15943)")


class Event(BaseModel):
    """One look at the private graph.

    ``sensitivity`` is the most by which one edge changes the answer before the noise (L1 for counts and flips, L2 for
    matrices), ``scale`` the noise's scale in the same unit, ``loss`` the a of a two-point privacy loss and ``mu`` the
    sensitivity / sigma of a Gaussian one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    mechanism: str
    sensitivity: float
    scale: float
    loss: float | None = None
    mu: float | None = None
    details: dict[str, float] = Field(default_factory=dict)


class Ledger(BaseModel):
    """The guarantee of a release and all that it rests on; where it is void, ``void`` says why."""

    model_config = ConfigDict(extra="forbid")

    method: str
    adjacency: str = ADJACENCY
    epsilon: float
    delta: float
    guarantee: bool
    void: str | None = None
    events: list[Event] = Field(default_factory=list)
    public: dict[str, Any] = Field(default_factory=dict)
    accountant: str = "closed form: Gaussian and two-point privacy losses convolved (Balle & Wang 2018, theorem 8)"
    randomness: str
    spent_epsilon: float = 0.0
    spent_delta: float = 0.0
    budget: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)


class Spending(BaseModel):
    """One run's charge to a budget."""

    model_config = ConfigDict(extra="forbid")

    when: str
    method: str
    epsilon: float
    delta: float


class Budget(BaseModel):
    """All that may be spent on one graph, and what was.

    Runs add up by basic composition, epsilons and deltas each: it is the rule that holds even when a run's parameters
    are chosen after another's result was seen (Rogers, Roth, Ullman & Vadhan 2016, arXiv 1605.08294, section 3).
    """

    model_config = ConfigDict(extra="forbid")

    graph: str = Field(min_length=1)
    epsilon: float = Field(gt=0)
    delta: float = Field(ge=0, lt=1)
    spent: list[Spending] = Field(default_factory=list)

    @property
    def left(self) -> tuple[float, float]:
        """Epsilon and delta that are not spent."""
        return (self.epsilon - sum(s.epsilon for s in self.spent), self.delta - sum(s.delta for s in self.spent))


def create_budget(path: Path, graph: str, epsilon: float, delta: float) -> Budget:
    """Write a new budget file; InputError when it is there already, or for epsilon <= 0 or delta outside [0, 1)."""
    if path.exists():
        raise InputError(f"the budget {path} exists; a budget is never replaced, since what was spent stays spent")
    try:
        budget = Budget(graph=graph, epsilon=epsilon, delta=delta)
    except ValidationError as e:
        raise InputError(
            f"budget epsilon = {epsilon:g}, delta = {delta:g}: epsilon must be > 0 and delta in [0, 1)") from e
    write_atomic(path, budget.model_dump_json(indent=1))
    return budget


def read_budget(path: Path) -> Budget:
    """Read a budget file; InputError when there is none, or it is damaged."""
    if not path.is_file():
        raise InputError(f"the budget {path} does not exist; create it with graphclust budget {path} --data NAME "
                         "--epsilon E --delta D")
    try:
        return Budget.model_validate(json.loads(path.read_text()))
    except ValueError as e:
        raise InputError(f"the budget {path} cannot be read ({e}); restore it: without it nothing may be spent") from e


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def afford(path: Path, graph: str | None, epsilon: float, delta: float) -> Budget:
    """The budget, if a run on ``graph`` (None: not compared) may spend this much of it.

    Raises
    ------
    InputError
        The budget is of another graph, or the run would exceed it.
    """
    budget = read_budget(path)
    if graph is not None and graph != budget.graph:
        raise InputError(f"the budget {path} is of the graph {budget.graph!r} and the run's data is {graph!r}; "
                         "give the budget of this graph, or create one")
    left_epsilon, left_delta = budget.left
    # sums of decimals such as 0.1 are not exact: a part in 10^9 is let pass
    if epsilon > left_epsilon + 1e-9 * budget.epsilon or delta > left_delta + 1e-9 * budget.delta:
        raise InputError(
            f"the run asks for epsilon = {epsilon:g}, delta = {delta:g} and the budget {path} has "
            f"epsilon = {max(left_epsilon, 0):g}, delta = {max(left_delta, 0):g} left after {len(budget.spent)} runs; "
            "lower them, or stop here: nothing was spent")
    return budget


def charge(path: Path, graph: str | None, method: str, epsilon: float, delta: float) -> int:
    """Charge a run before it looks at the graph, if :func:`afford` allows; the entry's number, for :func:`settle`."""
    read_budget(path)
    with _locked(path):
        budget = afford(path, graph, epsilon, delta)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        budget.spent.append(Spending(when=now, method=method, epsilon=epsilon, delta=delta))
        write_atomic(path, budget.model_dump_json(indent=1))
        return len(budget.spent) - 1


def settle(path: Path, entry: int, epsilon: float, delta: float) -> None:
    """Lower an entry to what its run really spent (it was refused after its first events)."""
    with _locked(path):
        budget = read_budget(path)
        old = budget.spent[entry]
        less = {"epsilon": min(epsilon, old.epsilon), "delta": min(delta, old.delta)}
        budget.spent[entry] = old.model_copy(update=less)
        write_atomic(path, budget.model_dump_json(indent=1))
