"""What a search tells of how its fits were trained."""

import sys
from dataclasses import dataclass, field

from sktune.engine.curves import Curves


@dataclass
class Sharing:
    """What was not trained twice.

    Attributes
    ----------
    n_trained_epochs : int
        The epochs that were trained, of all fits in groups.
    n_shared_fits, n_shared_epochs : int
        The fits that others were trained for as well, as they differ from these in `max_epochs` at
        most; and the epochs that were not trained therefore.
    n_known_fits, n_known_epochs : int
        The fits whose training, or the beginning of it, was known from before; and the epochs that
        were not trained therefore.
    reasons : dict of str to int
        Why fits that might have been one training were not, and how many fits these are.
    """

    n_trained_epochs: int = 0
    n_shared_fits: int = 0
    n_shared_epochs: int = 0
    n_known_fits: int = 0
    n_known_epochs: int = 0
    reasons: dict = field(default_factory=dict)

    def note_reason(self, reason, n_fits=1):
        """Take note of why fits were not one training with others."""
        self.reasons[reason] = self.reasons.get(reason, 0) + n_fits

    def note_known(self, n_epochs):
        """Take note of a fit of which some epochs were known."""
        self.n_known_fits += 1
        self.n_known_epochs += n_epochs

    def note_shared(self, n_epochs):
        """Take note of a fit for which some epochs were not trained, as another had them."""
        self.n_shared_fits += 1
        self.n_shared_epochs += n_epochs

    def describe(self):
        """Return lines of text; none if there is nothing to tell."""
        lines = []
        for n_fits, n_epochs, how in (
            (self.n_shared_fits, self.n_shared_epochs, "were trained for other fits as well"),
            (self.n_known_fits, self.n_known_epochs, "were known from before"),
        ):
            if n_fits:
                lines.append(f"{n_epochs} epochs of {n_fits} fits {how}")
        lines += [f"{n} fits not shared: {reason}" for reason, n in self.reasons.items()]
        return lines


@dataclass
class Racing:
    """What a race of the candidates has spared; all is 0 where there was none.

    Attributes
    ----------
    n_fits : int
        The fits of all candidates on all splits.
    n_spared_fits : int
        Those of them that were not run.
    dropped : list of dict
        Of each candidate that has left the race: ``candidate``; ``n_splits``, on how many splits it
        was fitted; its ``mean_score`` on these; and the ``line``, the worst score of the best
        candidate until then, which it was below.
    """

    n_fits: int = 0
    n_spared_fits: int = 0
    dropped: list = field(default_factory=list)

    def describe(self):
        """Return lines of text; none if there was no race."""
        if not self.n_fits:
            return []
        return [
            f"{self.n_spared_fits} of {self.n_fits} fits spared by racing, "
            f"{len(self.dropped)} candidates have left the race"
        ]


@dataclass
class FusionReport:
    """How the fits of a search were trained; ``print`` it for a summary.

    Attributes
    ----------
    groups : list of dict
        Of each group of fits that were trained together: ``lanes`` (how many), ``seconds``,
        ``device``, ``worker`` (machine and process; empty for this process), ``steps`` (how its
        steps were taken: ``"compiled"``, ``"launched"``, ``"recorded"`` or ``"stacked"``),
        ``blockers`` (why they were not taken in other ways, by the ways' names), and ``compiled``,
        a bool.
    alone : list of dict
        Of each fit that was trained by itself: ``candidate``, ``split`` and ``reason``.
    curves : Curves
        Of each epoch of each fit in a group: candidate, split, epoch, losses and learning rate.
    seconds : float
        The wall time in which the groups were trained.
    stopped : list of dict
        Of each fit that a listener has ended early: ``candidate``, ``split`` and ``reason``.
    sharing : Sharing
        Which epochs were not trained twice, and why others were.
    racing : Racing
        Which fits were not run, as their candidates could not win.
    is_interrupted : bool
        Whether the user has interrupted the search.
    left_out : list of int
        The candidates that were not complete then.
    n_earlier : int
        The candidates of earlier rounds: a search in rounds numbers its candidates from there.
    """

    groups: list = field(default_factory=list)
    alone: list = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)
    seconds: float = 0.0
    stopped: list = field(default_factory=list)
    sharing: Sharing = field(default_factory=Sharing)
    racing: Racing = field(default_factory=Racing)
    is_interrupted: bool = False
    left_out: list = field(default_factory=list)
    n_earlier: int = 0

    def add(self, fit):
        """Take note of a fit that is over."""
        candidate, split = fit.place
        if candidate is not None:
            candidate += self.n_earlier
        if fit.result is None:
            # Equal reasons are one text, which a pickle holds once.
            reason = sys.intern(str(fit.reason))
            self.alone.append({"candidate": candidate, "split": split, "reason": reason})
            self._leave_group(fit)
        else:
            self.curves.add(candidate, split, fit.result.curve)
            self._note_stop(candidate, split, fit)

    def _note_stop(self, candidate, split, fit):
        """Take note of a fit that a listener has ended before its last epoch."""
        reason = fit.result.stop_reason
        if reason and fit.result.error is None and fit.result.state.epoch < fit.spec.n_epochs:
            reason = sys.intern(reason)
            self.stopped.append({"candidate": candidate, "split": split, "reason": reason})

    def _leave_group(self, fit):
        """Count a fit no longer among those of its group, where its training was in vain."""
        group = fit.group
        fit.group = None
        if group is None:
            return
        group["lanes"] -= 1
        if not group["lanes"]:
            self.groups = [other for other in self.groups if other is not group]

    def __str__(self):
        n_lanes = sum(group["lanes"] for group in self.groups)
        n_compiled = sum(group["compiled"] for group in self.groups)
        how = f", {n_compiled} of them by compiled steps" if n_compiled else ""
        lines = [f"{n_lanes} fits fused in {len(self.groups)} groups{how}, {self.seconds:.1f} s"]
        if self.alone:
            lines.append(f"{len(self.alone)} fits one at a time")
        reasons = [fit["reason"] for fit in self.alone]
        for reason in dict.fromkeys(reasons):
            lines.append(f"  {reasons.count(reason)}: {reason}")
        return "\n".join([*lines, *self.sharing.describe(), *self.racing.describe()])
