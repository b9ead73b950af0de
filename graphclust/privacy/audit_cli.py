"""The command ``graphclust audit``."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from graphclust.graph import InputError
from graphclust.options import Json, Set, emit, params, print_rows


def audit(
    method: Annotated[str, typer.Argument(help="A private method: dp_sdp, dp_rr or dp_gaussian.")],
    n: Annotated[int, typer.Option("-n", "--nodes", min=8, help="Number of nodes of the audit's graphs.")] = 60,
    k: Annotated[int, typer.Option("-k", "--n-clusters", min=1, help="Number of clusters.")] = 2,
    epsilon: Annotated[float, typer.Option(help="The claim.")] = 1.0,
    delta: Annotated[float, typer.Option(
        help="The claim, of dp_sdp and dp_gaussian. The canaries see little unless it is far below 1 / canaries.",
    )] = 1e-9,
    set_: Set = None,
    pairs: Annotated[int, typer.Option(min=1, help="Flipped edges of the sensitivity.")] = 90,
    trials: Annotated[int, typer.Option(min=100, help="Releases of each side in a likelihood ratio.")] = 2000,
    fits: Annotated[int, typer.Option(min=1, help="Fits with about n / 2 canaries each.")] = 20,
    confidence: Annotated[float, typer.Option(
        help="Of all rows together: a private method is called violated by chance with at most the rest.",
    )] = 0.999999,
    seed: Annotated[int, typer.Option(min=0, help="Of graphs and coins; the noise is the operating system's.")] = 0,
    as_json: Json = False,
) -> None:
    """Try to refute what a private method claims; exit code 1 when it is refuted.

    A pass is no proof: it says that these attacks, at this size, showed nothing beyond the claim.
    """
    from graphclust.console import FitBar, bars
    from graphclust.privacy.audit import audit as run_audit

    model = private_model(method, {"n_clusters": k, "epsilon": epsilon, "delta": delta, **params(set_)})
    with bars() as progress:
        found = run_audit(model, n, pairs=pairs, trials=trials, fits=fits, confidence=confidence, seed=seed,
                          monitor=FitBar(progress, method))
    violated = any(f.violation for f in found)

    def show() -> None:
        columns = ["audit", "claim", "shown", "trials", "verdict", "detail"]
        print_rows(columns, [[f.audit, f"{f.claim:.4g}", "" if f.lower_bound is None else f"{f.lower_bound:.4g}",
                              str(f.trials), f.verdict, f.detail] for f in found])
        typer.echo(f"{method}, n = {n}: " + (
            "VIOLATION: the claim is refuted" if violated else "no attack showed more than the claim (which proves "
            "nothing beyond these attacks)") + f"; wrong alarms by chance: at most {1 - confidence:.1g}")

    document = {"method": method, "n": n, "parameters": model.get_params(), "confidence": confidence, "seed": seed,
                "violation": violated, "findings": [f.as_dict() for f in found]}
    emit(document, as_json, show)
    if violated:
        raise typer.Exit(1)


def private_model(method: str, values: dict[str, Any]) -> Any:
    """The private method of this name with those of the ``values`` that it takes (delta: not every one does).

    Raises
    ------
    InputError
        The method is unknown or not private, it does not know a parameter, or a value is outside its rule.
    """
    from graphclust.methods import get_method, method_names

    cls = get_method(method)
    if not cls.private:
        names = ", ".join(name for name in method_names() if get_method(name).private)
        raise InputError(f"{method} claims no privacy, so there is nothing to audit; the private methods are {names}")
    known = inspect.signature(cls).parameters
    values = {name: value for name, value in values.items() if name in known or name != "delta"}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(f"{method} has no parameter {', '.join(unknown)}; it takes {', '.join(known)}")
    return cls(**values)
