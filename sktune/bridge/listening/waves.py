"""The tasks of a search whose candidates race: split by split, without those that are behind."""

from sktune.bridge.listening.interrupts import warn_of_interrupt
from sktune.bridge.listening.progress import note_result
from sktune.bridge.seam import Task, is_skipped, make_lost_result, make_skipped_result


class Waves:
    """Runs the tasks of a call in waves, and leaves out those of candidates that cannot win.

    All candidates are fitted on the first split, and the best of them on all splits, unless the
    race knows what to compare with already. Each further wave is a split, with the candidates that
    are not behind.

    Parameters
    ----------
    items : list of tuple
        The tasks as joblib holds them, all splits of the first candidate first. It is emptied.
    owner : FusingBackend
        It has the race, the report and the deadline.
    compute : callable
        Returns the results of a list of tasks.
    """

    def __init__(self, items, owner, compute):
        self.owner = owner
        self.race = owner.race
        self.report = owner.report
        self.compute = compute
        _, split = Task(items[0]).progress
        self.n_splits = 1 if split is None else split[1]
        # of each candidate the tasks that are left, and what those that were run have returned
        self.tasks = []
        self.rows = []
        for start in range(0, len(items), self.n_splits):
            self.tasks.append(dict(enumerate(items[start : start + self.n_splits])))
            self.rows.append({})
        items.clear()
        # why candidates have left the race, by their numbers
        self.lost = {}

    @property
    def is_over(self):
        """Whether the time of the search is over: nothing is decided by what it has cut short."""
        return self.owner.deadline is not None and self.owner.deadline.is_over

    def run(self, progress):
        """Return the results of all tasks, in their order, and tell a progress bar the scores."""
        try:
            self._race()
        except KeyboardInterrupt:
            self._end_early()
        self._report()
        self._note_scores(progress)
        return [row for candidate in range(len(self.rows)) for row in self._list_rows(candidate)]

    def _race(self):
        candidates = list(range(len(self.rows)))
        if self.n_splits < 2:
            raise ValueError(f"racing=True must have at least 2 splits, got {self.n_splits}")
        self._run([(candidate, 0) for candidate in candidates])
        self._find_leader(candidates)
        for split in range(1, self.n_splits):
            if self.race.line is None or self.is_over:
                break
            candidates = [candidate for candidate in candidates if not self._leaves(candidate)]
            self._run([(candidate, split) for candidate in candidates])
        # without anything to compare with, or without time, there is no race
        self._run_all(candidates)
        if not self.is_over:
            for candidate in candidates:
                self.race.take(self._list_rows(candidate))

    def _find_leader(self, candidates):
        """Run the best on the first split to its end, or the next one where that has failed."""
        firsts = {candidate: self.rows[candidate][0] for candidate in candidates}
        for leader in self.race.order(firsts):
            if self.race.line is not None or self.is_over:
                return
            self._run_all([leader])
            if not self.is_over:
                self.race.take(self._list_rows(leader))

    def _leaves(self, candidate):
        """Tell whether a candidate is behind, and take note of it."""
        if not self.tasks[candidate]:
            return False
        rows = [self.rows[candidate][split] for split in sorted(self.rows[candidate])]
        if any(map(is_skipped, rows)) or not self.race.is_behind(rows):
            return False
        self.lost[candidate] = {
            "n_splits": len(rows),
            "mean_score": self.race.mean(rows),
            "line": self.race.line,
        }
        return True

    def _run_all(self, candidates):
        pairs = [(candidate, split) for candidate in candidates for split in range(self.n_splits)]
        self._run(pairs)

    def _run(self, pairs):
        """Run tasks, told by candidate and split, that have not been run yet."""
        pairs = [(candidate, split) for candidate, split in pairs if split in self.tasks[candidate]]
        if not pairs:
            return
        # nothing here holds a task while it runs
        items = [self.tasks[candidate].pop(split) for candidate, split in pairs]
        left_out = self.report.left_out
        n_before = len(left_out)
        results = self.compute(items)
        # after an interrupt, those that are left out have no results of their own
        unfinished = {number - self.report.n_earlier for number in left_out[n_before:]}
        del left_out[n_before:]
        for (candidate, split), result in zip(pairs, results, strict=True):
            if candidate not in unfinished:
                self.rows[candidate][split] = result
        if self.report.is_interrupted:
            raise KeyboardInterrupt

    def _list_rows(self, candidate):
        """Return the results of a candidate, in the order of the splits."""
        rows = self.rows[candidate]
        for split in range(self.n_splits):
            if split in rows:
                continue
            if candidate in self.lost:
                rows[split] = make_lost_result(self.race.sample)
            else:
                # after an interrupt; the first split of the first candidate has been run then
                rows[split] = make_skipped_result(row=self.race.sample or self.rows[0][0])
        return [rows[split] for split in range(self.n_splits)]

    def _end_early(self):
        """Leave out the candidates that are not complete; raise the error if all are."""
        self.report.is_interrupted = True
        numbers = range(len(self.rows))
        kept = [number for number in numbers if len(self.rows[number]) == self.n_splits]
        if not self.owner.can_end_early or not kept:
            raise
        warn_of_interrupt(len(kept), len(self.rows))
        for number in numbers:
            if number not in kept and number not in self.lost:
                self.report.left_out.append(self.report.n_earlier + number)

    def _report(self):
        """Tell how many fits were spared, and who has left the race."""
        racing = self.report.racing
        racing.n_fits += len(self.rows) * self.n_splits
        for candidate, why in sorted(self.lost.items()):
            racing.n_spared_fits += self.n_splits - why["n_splits"]
            racing.dropped.append({"candidate": self.report.n_earlier + candidate, **why})

    def _note_scores(self, progress):
        scores = {}
        for candidate, rows in enumerate(self.rows):
            if len(rows) == self.n_splits and candidate not in self.lost:
                for row in rows.values():
                    note_result(progress, scores, ((candidate, None), (0, self.n_splits)), row)
