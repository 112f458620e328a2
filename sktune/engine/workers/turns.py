"""Groups on GPUs: one thread of this process trains them in turn."""

from collections import deque
from dataclasses import replace
from time import perf_counter

from sktune.engine.steps.base import Stopped
from sktune.engine.workers.jobs import GroupResult
from sktune.runtime.devices import list_devices
from sktune.runtime.gpu.streams import OwnStream
from sktune.runtime.threads import flushed_denormals

# The most groups that are under way on a device: each has a stream, of which torch has 32, and its
# memory.
_MOST_AT_ONCE = 8


class Turns:
    """Trains groups on GPUs, several at once, each on a stream of its own.

    One thread launches what all devices compute: several would wait for Python's lock. While a
    device computes an epoch of one group, the thread launches those of others.

    Parameters
    ----------
    n_at_once : int
        How many groups are under way on each device at most.
    """

    def __init__(self, n_at_once):
        self.n_at_once = max(1, min(n_at_once, _MOST_AT_ONCE))

    def run(self, begin, plans):
        """Yield pairs of a plan and what came of it, as they come.

        In place of what a group returns there is the Exception that it raises, and None if it was
        told to stop. Whatever ends the iteration early ends the groups, too.

        Parameters
        ----------
        begin : callable
            ``begin(plan, device)`` returns a generator. It pauses where it would wait for the
            device, and returns what came of the group.
        plans : list of GroupPlan
            One whose device has no number is trained on any of them.
        """
        waiting = deque(plans)
        under_way = deque()
        try:
            while waiting or under_way:
                self._begin(begin, waiting, under_way)
                group = under_way[0]
                if group.go_on():
                    under_way.popleft()
                    yield group.plan, group.outcome
                else:
                    under_way.rotate(-1)
        finally:
            for group in under_way:
                group.end()

    def _begin(self, begin, waiting, under_way):
        """Begin with the groups for which there is a place."""
        for _ in range(len(waiting)):
            plan = waiting.popleft()
            device = self._find_place(plan, under_way)
            if device is None:
                waiting.append(plan)
            else:
                under_way.append(_UnderWay(plan, device, begin))

    def _find_place(self, plan, under_way):
        """Return the device that is to train a group, the least busy one; None if all are busy."""
        n_groups = dict.fromkeys(list_devices(plan.device), 0)
        for group in under_way:
            if group.device in n_groups:
                n_groups[group.device] += 1
        device = min(n_groups, key=n_groups.get)
        return device if n_groups[device] < self.n_at_once else None


class _UnderWay:
    """A group that is being trained."""

    def __init__(self, plan, device, begin):
        self.plan = plan
        self.device = device
        self.begin = begin
        self.turns = None
        self.stream = None
        self.outcome = None
        self.seconds = 0.0

    def go_on(self):
        """Let the group take its turn; return whether it is over."""
        began = perf_counter()
        is_over = True
        try:
            if self.turns is None:
                self.turns = self.begin(self.plan, self.device)
                # its work comes after the copies that this has made
                self.stream = OwnStream(self.device)
            with flushed_denormals(), self.stream.current():
                next(self.turns)
            is_over = False
        except StopIteration as end:
            self.outcome = end.value
        except Stopped:
            pass
        except Exception as error:
            # the traceback would keep the tensors of the group
            self.outcome = error.with_traceback(None)
        self.seconds += perf_counter() - began
        if is_over:
            self._conclude()
        return is_over

    def _conclude(self):
        """Note how long the turns of the group took; a device that has failed is told here."""
        if isinstance(self.outcome, GroupResult):
            self.outcome = replace(self.outcome, seconds=self.seconds)
        try:
            self.end()
        except RuntimeError as error:
            if not isinstance(self.outcome, Exception):
                self.outcome = error

    def end(self):
        """End the group, whether it is complete or not."""
        turns, stream = self.turns, self.stream
        self.turns = self.stream = None
        try:
            if turns is not None:
                turns.close()
        finally:
            if stream is not None:
                stream.give_back()
