"""Federations with a name and a known truth."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, validate_call

from fedclust.data.concept import ConceptShift
from fedclust.data.deal import Deal
from fedclust.data.draw import Bootstrap, Draw, LabelShift
from fedclust.data.feature import Corruption, FeatureShift
from fedclust.data.graphs import Nodes
from fedclust.data.partition import Iid, Quantity
from fedclust.data.spec import FederationSpec, HeldBack, Unseen
from graphclust.config_file import problems
from graphclust.data.catalogue import check_params
from graphclust.graph import InputError

_BLOCKS = Deal(how="blocks")
_CONCEPTS = ("identity", "reverse", "next", "next:4")
# clean .6, each corruption .1: 40 % of the clients have one
_CORRUPTED = FeatureShift(
    variants=(Corruption(), Corruption(kind="noise", amount=0.25), Corruption(kind="contrast", amount=0.4),
              Corruption(kind="blur", amount=0.6), Corruption(kind="rotate", amount=20.0)),
    deal=Deal(how="dealt", shares=(0.6, 0.1, 0.1, 0.1, 0.1)),
)
# class supports {0..3}, {1..4}, {5..8}, {6..9}, the first and the last class of each at half weight
_SUPPORTS = tuple(tuple([0.0] * a + [0.5, 1.0, 1.0, 0.5] + [0.0] * (6 - a)) for a in (0, 1, 5, 6))


def digits_3shift(
    n_clients: PositiveInt = 30, A: PositiveFloat = 3.0, noise: NonNegativeFloat = 0.05,
    varied: Literal["train", "all"] = "train", seed: NonNegativeInt = 0,
) -> FederationSpec:
    """Three concepts, Dirichlet labels (A: total concentration) and 40 % corrupted clients, independent of each other.

    The published setting leaves open how pictures move, how noisy they are and on what scale models see them: here the
    training pictures move sideways by at most a pixel, with noise of standard deviation .05; all others are the
    source's own, from a part that no client trains on; and pixels lie in [-1/2, 1/2]. This was chosen by how well local
    training and FedAvg do (docs/fedclust.md, results). With varied=all the others move too, only half of the source
    is trained on, and pixels lie in [0, 1], which is harder.
    """
    mild = varied == "train"
    draw = Draw(labels=LabelShift(concentration=A), bootstrap=Bootstrap(noise=noise, varied=varied), centred=mild,
                pools=(0.7, 0.15, 0.15) if mild else (0.5, 0.25, 0.25))
    return FederationSpec(
        n_clients=n_clients, partition=draw, concept=ConceptShift(maps=_CONCEPTS[:3]), feature=_CORRUPTED,
        unseen=Unseen(features=(0, 1, 2)), seed=seed,
    )


def digits_one_concept(
    n_clients: PositiveInt = 30, A: PositiveFloat = 3.0, noise: NonNegativeFloat = 0.05,
    varied: Literal["train", "all"] = "train", seed: NonNegativeInt = 0,
) -> FederationSpec:
    """As digits-3shift with one concept only: labels and features differ, and one group is right."""
    spec = digits_3shift(n_clients, A, noise, varied, seed)
    return spec.model_copy(update={"concept": ConceptShift(), "group_by": "concept"})


def digits_concept_shift(
    n_clients: PositiveInt = 12, big: PositiveInt = 300, small: PositiveInt = 100, seed: NonNegativeInt = 0
) -> FederationSpec:
    """Four label maps in blocks (identity, reverse first 4, reverse, both); the first half of the clients is big.

    400 test pictures each, nearly all there are: whether a client fares better than alone (IPR) is often one percent.
    """
    return FederationSpec(
        n_clients=n_clients,
        partition=Draw(train=(big, small), test=(400,), validation=(40,), bootstrap=None),
        concept=ConceptShift(maps=("identity", "reverse_first:4", "reverse", "reverse_first:4>reverse"), deal=_BLOCKS),
        unseen=Unseen(support=200, test=200), seed=seed,
    )


def digits_label_shift(
    n_clients: PositiveInt = 12, big: PositiveInt = 300, small: PositiveInt = 100, seed: NonNegativeInt = 0
) -> FederationSpec:
    """Four class supports in blocks, two and two overlapping; the first half of the clients is big."""
    return FederationSpec(
        n_clients=n_clients,
        partition=Draw(train=(big, small), test=(60,), validation=(40,), bootstrap=None, pools=(0.6, 0.15, 0.25),
                       labels=LabelShift(groups=_SUPPORTS, deal=_BLOCKS)),
        unseen=Unseen(support=60, test=120), seed=seed,
    )


def fmnist_label_shift(
    n_clients: PositiveInt = 20, big: PositiveInt = 2100, ratio: PositiveFloat = math.exp(-5), seed: NonNegativeInt = 0
) -> FederationSpec:
    """Fashion-MNIST, four class supports in blocks; the first half of the clients is big, the rest ratio as large."""
    return FederationSpec(
        source="fashion_mnist", n_clients=n_clients,
        partition=Draw(train=(big, max(2, round(big * ratio))), test=(300,), validation=(60,), bootstrap=None,
                       pools=(0.7, 0.1, 0.2), labels=LabelShift(groups=_SUPPORTS, deal=_BLOCKS)),
        unseen=Unseen(support=200, test=400), seed=seed,
    )


def fmnist_rotated(
    n_clients: PositiveInt = 20, big: PositiveInt = 2500, ratio: PositiveFloat = math.exp(-2), seed: NonNegativeInt = 0
) -> FederationSpec:
    """Fashion-MNIST turned by -25, 25, 155 or -155 degrees in blocks; the first half is big, the rest ratio as large.

    The authors turn CIFAR-10 and fill the corners by reflection; here they are black.
    """
    return FederationSpec(
        source="fashion_mnist", n_clients=n_clients,
        partition=Draw(train=(big, max(2, round(big * ratio))), test=(400,), validation=(60,), bootstrap=None,
                       pools=(0.7, 0.1, 0.2)),
        feature=FeatureShift(variants=_turned(-25, 25, 155, -155), deal=_BLOCKS),
        unseen=Unseen(support=200, test=400, features=(0, 1, 2, 3)), seed=seed,
    )


def digits_rotated(n_clients: PositiveInt = 20, seed: NonNegativeInt = 0) -> FederationSpec:
    """Digits cut iid, then turned by 0, 90, 180 or 270 degrees, client i by the (i mod 4)th."""
    return FederationSpec(
        n_clients=n_clients, partition=Iid(), feature=FeatureShift(variants=_turned(0, 90, 180, 270)),
        unseen=HeldBack(clients=4), seed=seed,
    )


def minority_groups(
    n_clients: PositiveInt = 40, A: PositiveFloat = 10.0, seed: NonNegativeInt = 0
) -> FederationSpec:
    """Four concepts held by 25, 9, 4 and 2 of 40 clients, mild label shift."""
    return FederationSpec(
        n_clients=n_clients, partition=Draw(train=(100,), labels=LabelShift(concentration=A)),
        concept=ConceptShift(maps=_CONCEPTS, deal=Deal(how="blocks", shares=(25, 9, 4, 2))), unseen=Unseen(), seed=seed,
    )


def quantity_skew(
    n_clients: PositiveInt = 16, concentration: PositiveFloat = 1.0, seed: NonNegativeInt = 0
) -> FederationSpec:
    """Two concepts; the digits are divided in the shares of Dir(concentration) over the clients, at least 20 each."""
    return FederationSpec(
        n_clients=n_clients, partition=Quantity(concentration=concentration, minimum=20),
        concept=ConceptShift(maps=_CONCEPTS[:2]), unseen=HeldBack(clients=2), seed=seed,
    )


def digits_vs_mnist(
    n_clients: PositiveInt = 20, A: PositiveFloat = 10.0, seed: NonNegativeInt = 0
) -> FederationSpec:
    """A real shift of two domains: half of the clients hold scikit-learn's digits, half MNIST brought to 8x8."""
    return FederationSpec(
        source="digits_vs_mnist", n_clients=n_clients,
        partition=Draw(train=(100,), labels=LabelShift(concentration=A)), unseen=Unseen(), seed=seed,
    )


def graph_sbm(n_clients: PositiveInt = 12, concepts: PositiveInt = 2, seed: NonNegativeInt = 0) -> FederationSpec:
    """Random subgraphs of an attributed block model of 1,200 nodes; half of the clients have their labels reversed."""
    return _graph(f"asbm:n=1200,k=4,degree_in=60,degree_out=12,d=32,signal=1,seed={seed}", "random", n_clients,
                  concepts, seed)


def graph_debtopics13(
    n_clients: PositiveInt = 10, concepts: PositiveInt = 1, seed: NonNegativeInt = 0
) -> FederationSpec:
    """Leiden communities of the Debian package graph as clients; topics are the classes."""
    return _graph("debtopics13", "leiden", n_clients, concepts, seed)


def graph_cora(n_clients: PositiveInt = 10, concepts: PositiveInt = 1, seed: NonNegativeInt = 0) -> FederationSpec:
    """Leiden communities of Cora as clients; subjects are the classes."""
    return _graph("cora", "leiden", n_clients, concepts, seed)


def graph_sbm_clustering(
    n_clients: PositiveInt = 4, method: Literal["leiden", "random"] = "random", n: PositiveInt = 240,
    seed: NonNegativeInt = 0,
) -> FederationSpec:
    """Subgraphs of an attributed block model whose nodes are to be clustered, without labels."""
    source = f"asbm:n={n},k=4,degree_in=20,degree_out=4,d=16,signal=1,seed={seed}"
    return _clustering(source, method, n_clients, 2, seed)


def graph_debtopics13_clustering(
    n_clients: PositiveInt = 10, method: Literal["leiden", "random"] = "leiden", seed: NonNegativeInt = 0
) -> FederationSpec:
    """Subgraphs of the Debian package graph whose nodes are to be clustered, without labels."""
    return _clustering("debtopics13", method, n_clients, 4, seed)


def graph_cora_clustering(
    n_clients: PositiveInt = 10, method: Literal["leiden", "random"] = "leiden", seed: NonNegativeInt = 0
) -> FederationSpec:
    """Subgraphs of Cora whose nodes are to be clustered, without labels; n_clients=1 is training in one place."""
    return _clustering("cora", method, n_clients, 4, seed)


def _clustering(source: str, method: str, n_clients: int, smoothing: int, seed: int) -> FederationSpec:
    rule = {"method": method, "clustering": {"smoothing": smoothing}}
    return FederationSpec(source=source, n_clients=n_clients, partition=Nodes.model_validate(rule), seed=seed)


def _graph(source: str, method: str, n_clients: int, concepts: int, seed: int) -> FederationSpec:
    if concepts > len(_CONCEPTS):
        raise InputError(f"concepts = {concepts}; a graph scenario has 1..{len(_CONCEPTS)} label maps")
    return FederationSpec(
        source=source, n_clients=n_clients, partition=Nodes.model_validate({"method": method}),
        concept=ConceptShift(maps=_CONCEPTS[:concepts]), unseen=HeldBack(clients=concepts), seed=seed,
    )


def _turned(*degrees: float) -> tuple[Corruption, ...]:
    return tuple(Corruption(kind="rotate", amount=d) if d else Corruption() for d in degrees)


@dataclass(frozen=True)
class _Scenario:
    build: Callable[..., FederationSpec]
    source: str

    def options(self) -> dict[str, Any]:
        return {name: p.default for name, p in inspect.signature(self.build).parameters.items()}


_FEDRC = "setting of Guo et al. 2024 (arXiv 2301.12379) on small digits"
_FEDCOLLAB = "Bao et al. 2023 (arXiv 2306.06508)"
_SUBGRAPHS = "Zhang et al. 2021 (arXiv 2106.13430)"
_SCGC = "loss of Kulatilleke et al. 2022 (arXiv 2204.12656)"
_SCENARIOS = {
    "digits-3shift": _Scenario(digits_3shift, _FEDRC),
    "digits-one-concept": _Scenario(digits_one_concept, _FEDRC),
    "digits-concept-shift": _Scenario(digits_concept_shift, f"{_FEDCOLLAB}, its CIFAR-100 layout on digits"),
    "digits-label-shift": _Scenario(digits_label_shift, f"{_FEDCOLLAB}, its Fashion-MNIST layout on digits"),
    "digits-rotated": _Scenario(digits_rotated, "Ghosh et al. 2020 (arXiv 2006.04088), rotated MNIST, on digits"),
    "fmnist-label-shift": _Scenario(fmnist_label_shift, f"{_FEDCOLLAB}, label shift"),
    "fmnist-rotated": _Scenario(fmnist_rotated, f"{_FEDCOLLAB}, its rotated CIFAR-10 layout"),
    "minority-groups": _Scenario(minority_groups, "group sizes of DisCo-CFL's public experiments"),
    "quantity-skew": _Scenario(quantity_skew, "Li et al. 2022 (arXiv 2102.02079), quantity skew, with two concepts"),
    "digits-vs-mnist": _Scenario(digits_vs_mnist, "optdigits (UCI) against MNIST (LeCun et al. 1998)"),
    "graph-sbm": _Scenario(graph_sbm, f"Deshpande et al. 2018 (arXiv 1807.09596); {_SUBGRAPHS}"),
    "graph-debtopics13": _Scenario(graph_debtopics13, f"Debian's package index; {_SUBGRAPHS}"),
    "graph-cora": _Scenario(graph_cora, f"Sen et al. 2008; {_SUBGRAPHS}"),
    "graph-sbm-clustering": _Scenario(graph_sbm_clustering, f"Deshpande et al. 2018 (arXiv 1807.09596); {_SCGC}"),
    "graph-debtopics13-clustering": _Scenario(graph_debtopics13_clustering, f"Debian's package index; {_SCGC}"),
    "graph-cora-clustering": _Scenario(graph_cora_clustering, f"Sen et al. 2008; {_SCGC}"),
}


def scenario_names() -> list[str]:
    """The scenarios' names."""
    return list(_SCENARIOS)


def describe_scenarios() -> list[dict[str, Any]]:
    """One row a scenario: ``name``, ``summary``, ``options`` with their defaults, ``source``."""
    return [
        {"name": name, "summary": (inspect.getdoc(s.build) or "").splitlines()[0],
         "options": ", ".join(f"{k}={v if isinstance(v, str) else f'{v:.4g}'}" for k, v in s.options().items()),
         "source": s.source}
        for name, s in _SCENARIOS.items()
    ]


def scenario(name: str, **overrides: Any) -> FederationSpec:
    """The federation of that name.

    Parameters
    ----------
    overrides : its options, see :func:`describe_scenarios`

    Raises
    ------
    InputError
        Unknown name or option, with the nearest one; a value that the option cannot have.
    """
    if name not in _SCENARIOS:
        if "/" in name:
            raise InputError(f"scenario {name!r}: there is no such folder; give that of a saved federation, one with a "
                             "file for each client, a federation's YAML, or a name of fedclust list scenarios")
        near = difflib.get_close_matches(name, _SCENARIOS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise InputError(f"unknown scenario {name!r}{hint} Known: {', '.join(_SCENARIOS)}")
    found = _SCENARIOS[name]
    check_params(f"scenario {name}", overrides, list(found.options()))
    try:
        return validate_call(found.build)(**overrides)
    except ValidationError as e:
        raise InputError(f"scenario {name}: {problems(e)}") from e
