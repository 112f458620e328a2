"""What a search tells of how its fits were trained."""

import sys
from dataclasses import dataclass, field

from sktune.engine.curves import Curves


@dataclass
class FusionReport:
    """How the fits of a search were trained; ``print`` it for a summary.

    Attributes
    ----------
    groups : list of dict
        Of each group of fits that were trained together: ``lanes`` (how many), ``seconds``,
        ``device``, ``steps`` (how its steps were taken: ``"compiled"``, ``"recorded"`` or
        ``"stacked"``), ``blockers`` (why they were not taken in other ways, by the ways' names),
        and ``compiled``, a bool.
    alone : list of dict
        Of each fit that was trained by itself: ``candidate``, ``split`` and ``reason``.
    curves : Curves
        Of each epoch of each fit in a group: candidate, split, epoch, losses and learning rate.
    seconds : float
        The wall time in which the groups were trained.
    """

    groups: list = field(default_factory=list)
    alone: list = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)
    seconds: float = 0.0

    def add(self, fit):
        """Take note of a fit that is over."""
        candidate, split = fit.place
        if fit.result is None:
            # Equal reasons are one text, which a pickle holds once.
            reason = sys.intern(str(fit.reason))
            self.alone.append({"candidate": candidate, "split": split, "reason": reason})
            self._leave_group(fit)
        else:
            self.curves.add(candidate, split, fit.result.curve)

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
        return "\n".join(lines)
