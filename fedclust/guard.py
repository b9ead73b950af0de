"""The last thing that happens to a client's reply before it leaves; see :mod:`fedclust.wire_privacy`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from safetensors import safe_open
from safetensors.torch import save

from fedclust.algorithms.base import Delivery, Report, together
from fedclust.noising import noised, with_noised_counts
from fedclust.participant import Participant
from fedclust.privacy import HISTOGRAMS
from fedclust.task import stream
from fedclust.wire_privacy import VALUES, multiplier_of, releases
from graphclust.atomic import write_atomic
from graphclust.graph import InputError
from graphclust.privacy.sampling import Uniform, os_uniform, seeded_uniform

FEDERATIONS = 10
"""Federations whose last noised reply is kept."""
NO_EVIDENCE = ("privacy: the noise covers rounds, and what a newcomer is asked for is outside them; it sends nothing, "
               "and is assigned where it is with fedclust assign")


class Guard:
    """What one client lets out.

    A real client draws its noise from the operating system's entropy, a simulated one from the run's seed, its id and
    the round. A real client that is asked for a round again (the server had been killed) sends the same reply again:
    new noise on the same data would be spent twice.

    Parameters
    ----------
    client : whose replies they are
    """

    def __init__(self, client: Participant) -> None:
        self._client, self._privacy = client, client.config.privacy

    @property
    def noises(self) -> bool:
        """True when everything that the client sends is noised."""
        return self._privacy.clip is not None

    @property
    def real(self) -> bool:
        """True for a client with a place of its own; False in a simulation, whose every noise is a dry run."""
        return self._client.home is not None

    @property
    def measures(self) -> bool:
        """True when accuracies and losses may leave; in a simulation they do, for nothing leaves the machine."""
        return not self.noises or not self.real or self._privacy.metrics == "sent"

    @property
    def n_train(self) -> int:
        """The number of samples; 1 where it is nobody's business, so that all clients weigh alike."""
        hidden = self.noises and (self.real or self._client.role == "train")
        return 1 if hidden else self._client.client.n_train

    def alters(self, report: Report) -> bool:
        """True when something else is sent than ``report``, one client's or a whole cohort's."""
        return self._hides_counts(report) or (self.noises and bool(report.models or report.arrays))

    def report(self, report: Report, delivery: Delivery, round: int, federation: str) -> Report:
        """What a training client sends in place of ``report``, a cohort of one's.

        Raises
        ------
        InputError
            Something that noise cannot cover; a round before the last one, or one more than the budget is for.
        """
        if not self.alters(report):
            return report
        config, home = self._client.config, self._client.home
        most, multiplier = releases(config), multiplier_of(config)
        # twice: which of the models was trained is as many numbers more as there are models
        size = 2 * sum(t.numel() for t in (*delivery.models.values(), *report.arrays.values()))
        if most * size > VALUES:
            raise InputError(f"{most} rounds of {size} numbers: noise covers at most {VALUES} in all; take fewer "
                             "rounds or a smaller model")

        def make() -> Report:
            uniform = self._uniform(round)
            if self.noises:
                return noised(report, delivery, self._privacy.clip or 0, multiplier, uniform)
            return with_noised_counts(report, multiplier, uniform)

        if home is None:
            return make()
        return _once(home / "noised" / f"{quote(federation, safe='')}.safetensors", round, most, make)

    def evidence(self, report: Report, trial: int) -> Report:
        """What a newcomer sends in place of ``report`` in one of its trials.

        Raises
        ------
        InputError
            Noise is asked for: a real client's evidence has no budget.
        """
        self.no_newcomers()
        if not self._hides_counts(report):
            return report
        if self.real:
            raise InputError(NO_EVIDENCE)
        return with_noised_counts(report, multiplier_of(self._client.config), self._uniform(f"trial {trial}"))

    def no_newcomers(self) -> None:
        """InputError for a real client when everything is noised: what newcomers are asked for is not."""
        if self.real and self.noises:
            raise InputError(NO_EVIDENCE)

    def _hides_counts(self, report: Report) -> bool:
        counts = {*report.arrays} & {*HISTOGRAMS}
        if counts and self._privacy.label_histogram == "dropped":
            raise InputError(f"privacy.label_histogram = 'dropped': the server asks for {counts.pop()}; the client "
                             "does not send it")
        return self._privacy.label_histogram == "noised" and bool(counts)

    def _uniform(self, key: object) -> Uniform:
        if self.real:
            return os_uniform
        seed = stream(self._client.config.seed, "noise", self._client.client.id, key).initial_seed()
        return seeded_uniform(np.random.default_rng(seed))


def guarded(
    participants: Sequence[Participant], report: Report, delivery: Delivery, round: int, federation: str
) -> Report:
    """What the clients of a cohort send in place of ``report``: ``report`` itself unless there is noise.

    Parameters
    ----------
    participants : (B,) all of one federation, in the order of the cohort
    """
    if not Guard(participants[0]).alters(report):
        return report
    return together([Guard(p).report(report.of(i), delivery.of(i), round, federation)
                     for i, p in enumerate(participants)])


def guarded_evidence(participants: Sequence[Participant], report: Report, trial: int) -> Report:
    """What a cohort of newcomers sends in place of ``report`` in one of its trials; see :meth:`Guard.evidence`."""
    first = Guard(participants[0])
    first.no_newcomers()
    if not first.alters(report):
        return report
    return together([Guard(p).evidence(report.of(i), trial) for i, p in enumerate(participants)])


def _once(file: Path, round: int, most: int, make: Callable[[], Report]) -> Report:
    """The reply of this round: the one that was made before, if there is one; at most ``most`` are made."""
    done = 0
    if file.exists():
        with safe_open(file, framework="pt") as f:
            last, done = (int(f.metadata()[name]) for name in ("round", "done"))
            held = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
        if round == last:
            return Report(*({key.removeprefix(kind): t for key, t in held.items() if key.startswith(kind)}
                            for kind in ("model/", "array/")))
        if round < last or done >= most:
            raise InputError(f"round {round} was asked for after round {last} and {done} noisy replies of at most "
                             f"{most}: another would spend more than the budget; start the federation anew")
    report = make()
    tensors = {**{f"model/{name}": t for name, t in report.models.items()},
               **{f"array/{name}": t for name, t in report.arrays.items()}}
    about = {"round": str(round), "done": str(done + 1)}
    write_atomic(file, save({name: t.contiguous() for name, t in tensors.items()}, about))
    for old in sorted(file.parent.glob("*.safetensors"), key=lambda p: p.stat().st_mtime)[:-FEDERATIONS]:
        old.unlink(missing_ok=True)
    return report
