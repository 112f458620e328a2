"""Whether a group is trained by launches or by recorded steps: what is faster where it is trained.

Both give the same results. A group whose like was not measured yet trains some epochs in each way.
What is found holds for the process.
"""

import os
from dataclasses import dataclass

# "1": every group that the kernel can train is trained by it; "0": none; else the faster way.
mode = {"0": "0", "1": "1"}.get(os.environ.get("SKTUNE_LAUNCHED"), "auto")
# The seconds that it takes to compile a kernel at most: less training is not worth trying.
_COMPILATION = 10.0

# What was measured, by what a group is.
_verdicts = {}
# The seconds that the first epoch of a kernel took, by what it is compiled for.
_compiled = {}


class Failures:
    """What kept this process from launching: after one failure it does not try again."""

    def __init__(self):
        self.reason = ""

    def note(self, error):
        """Keep the first line of what an error says."""
        lines = str(error).splitlines() or [type(error).__name__]
        self.reason = f"a launch has failed: {lines[0]}"


FAILURES = Failures()


@dataclass(frozen=True)
class Verdict:
    """The seconds that an epoch of a group took in each way, and the first one of the kernel."""

    recorded: float
    launched: float
    compilation: float

    @property
    def prefers_launches(self):
        """Whether launches are faster."""
        return self.launched < self.recorded

    def __str__(self):
        ways = f"{1000 * self.recorded:.2f} ms recorded, {1000 * self.launched:.2f} ms launched"
        return f"an epoch took {ways}; the first launch, {self.compilation:.1f} s"


class Choice:
    """The way that a group is trained: of each of its epochs.

    Parameters
    ----------
    group : tuple
        What the seconds of an epoch depend on.
    kernel : tuple
        What the kernel is compiled for.
    """

    def __init__(self, group, kernel):
        self.group = group
        self.kernel = kernel
        # of each way, the seconds of the epochs that this group has trained so
        self.seconds = {"recorded": [], "launched": []}

    @property
    def verdict(self):
        """What was measured in groups like this one, or None."""
        return _verdicts.get(self.group)

    def launches(self, n_epochs):
        """Tell whether the next epoch is to be a launch, where so many are left to train."""
        if FAILURES.reason or mode != "auto":
            return mode == "1" and not FAILURES.reason
        if self.verdict is not None:
            return self.verdict.prefers_launches
        # the first epoch of a way sets it up
        if len(self.seconds["recorded"]) < 2:
            return False
        left = n_epochs * self.seconds["recorded"][-1]
        return bool(self.seconds["launched"]) or left > self._expect_compilation()

    def _expect_compilation(self):
        return 0.0 if self.kernel in _compiled else _COMPILATION

    def measures(self, way):
        """Tell whether the seconds of an epoch in a way are to be noted: the first two are."""
        return mode == "auto" and self.verdict is None and len(self.seconds[way]) < 2

    def note(self, way, seconds):
        """Take note of the seconds that an epoch took in a way."""
        self.seconds[way].append(seconds)
        if way == "launched":
            _compiled.setdefault(self.kernel, seconds)
        if self.verdict is None and min(map(len, self.seconds.values())) > 1:
            recorded, launched = (min(found[1:]) for found in self.seconds.values())
            _verdicts[self.group] = Verdict(recorded, launched, _compiled[self.kernel])

    def explain(self):
        """Return why launches were not taken, or why they were."""
        if FAILURES.reason:
            return FAILURES.reason
        if mode != "auto":
            return f"SKTUNE_LAUNCHED is {mode}"
        if self.verdict is None:
            return "its training was too short to find out whether launches are faster"
        return str(self.verdict)
