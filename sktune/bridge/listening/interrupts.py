"""What becomes of the tasks of a call when the user interrupts it."""

import warnings

_INTERRUPTED = "the search was interrupted"


def warn_of_interrupt(n_kept, n_candidates):
    """Warn that a search ends with those of its last candidates that are complete."""
    warnings.warn(
        f"the search was interrupted, {n_kept} of its last {n_candidates} candidates are complete: "
        "it ends with the best that there is; interrupt it again to leave it",
        UserWarning,
        stacklevel=3,
    )


class Turns:
    """Runs the jobs of a call in turn; after an interrupt, those of complete candidates only.

    In the place of each other job there is a copy of a result, for the search to leave out.

    Parameters
    ----------
    jobs : list of Job
    report : FusionReport
        It takes note of the candidates that are left out.
    can_end_early : bool
        Whether the search can do without some of its candidates; otherwise an interrupt is raised.
    warns : bool, default=True
        Whether the user is told of candidates that are left out.
    """

    def __init__(self, jobs, report, can_end_early, *, warns=True):
        self.jobs = jobs
        self.report = report
        self.can_end_early = can_end_early
        self.warns = warns
        self.left_out = set()
        self.results = {}
        self.done = set()
        self.sample = None

    def run(self, job):
        """Return the result of a job, or of another one in its place."""
        if id(job) in self.results:
            return self.results.pop(id(job))
        if id(job) in self.left_out:
            return dict(self.sample)
        try:
            result = job.run()
        except KeyboardInterrupt as error:
            self.end(error, lambda other: id(other) in self.done)
            return dict(self.sample)
        self.done.add(id(job))
        if self.can_end_early:
            self.sample = dict(result)
        return result

    def end(self, error, is_complete):
        """Leave out the candidates of which some job is not complete; raise the error if all are.

        Parameters
        ----------
        error : KeyboardInterrupt
        is_complete : callable
            Tells of a job whether it is complete.
        """
        self.report.is_interrupted = True
        by_candidate = {}
        for job in self.jobs:
            by_candidate.setdefault(job.task.place[0], []).append(job)
        kept = [jobs for jobs in by_candidate.values() if all(map(is_complete, jobs))]
        if not self.can_end_early or None in by_candidate or not kept:
            for fit in (fit for job in self.jobs for fit in job.fits or ()):
                fit.reason = fit.reason or _INTERRUPTED
            raise error
        if self.warns:
            warn_of_interrupt(len(kept), len(by_candidate))
        are_kept = {id(job) for jobs in kept for job in jobs}
        self.left_out = {id(job) for job in self.jobs} - are_kept
        for candidate, jobs in by_candidate.items():
            if id(jobs[0]) in self.left_out:
                self.report.left_out.append(self.report.n_earlier + candidate)
        for job in self.jobs:
            if id(job) in self.left_out:
                _leave_out(job)
        if self.sample is None:
            first = kept[0][0]
            self.results[id(first)] = self.run(first)


def _leave_out(job):
    """Have the report say of a job's fits that they are left out."""
    if job.fits is None:
        job.fits = [job.make_unprepared_fit()]
    for fit in job.fits:
        fit.result = None
        fit.reason = _INTERRUPTED
