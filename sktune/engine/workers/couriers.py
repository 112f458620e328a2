"""Groups on their way to the workers of an engine, and what comes of them."""

import warnings
from dataclasses import replace

from sktune.engine.store.recording import Recorder
from sktune.engine.workers.checkpoints import SharedFolder
from sktune.engine.workers.jobs import GroupJob, GroupResult, JobFit, PackedJob
from sktune.engine.workers.replay import Relay


class Courier:
    """Sends the groups of one call to workers.

    Parameters
    ----------
    engine : Engine
    listeners : list of objects with ``on_epoch`` or ``begin_group``
        Those with the attribute ``goes_along`` are sent to the workers with each group.
    store : Store or None
    precision : str or None
        See :class:`sktune.bridge.backend.FusingBackend`.
    """

    def __init__(self, engine, listeners, store=None, precision=None):
        self.engine = engine
        self.along = [one for one in listeners if getattr(one, "goes_along", False)]
        self.staying = [one for one in listeners if one not in self.along]
        self.store = store
        self.precision = precision
        self.cache = SharedFolder.of(store)

    def pack(self, plans):
        """Return pairs of a plan and its PackedJob, and the plans that cannot be sent."""
        jobs = []
        here = []
        for plan in plans:
            try:
                if any(training.lead.telling is not None for training in plan.fits):
                    raise TypeError("callbacks of scikit-learn hear of the epochs in this process")
                jobs.append((plan, self._pack(plan)))
            except Exception as error:
                # what cannot be pickled can be trained
                reason = f"the fits cannot be sent to workers: {error}"
                here.append(replace(plan, blockers={**plan.blockers, "workers": reason}))
        self.engine.packer.forget()
        return jobs, here

    def _pack(self, plan):
        """Return a group as the bytes and the arrays that a worker needs."""
        tables = {}
        arrays = {}
        for name in dict.fromkeys(spec.rows.table for spec in plan.specs):
            tables[name], parts = self.engine.packer.pack(plan.tables[name])
            arrays |= {array.name: array for array in parts}
        job = GroupJob(
            [_strip(training) for training in plan.fits],
            tables,
            n_threads=plan.options.n_threads,
            product_dtype=plan.options.product_dtype,
            allows_tf32=plan.options.allows_tf32,
            listeners=self.along,
            cache=self.cache,
        )
        wants_gpu = plan.device.type == "cuda" or plan.specs[0].is_auto
        return PackedJob(job.pack(), list(arrays.values()), wants_gpu)

    def run(self, jobs):
        """Yield pairs of a plan and what came of it, a GroupResult or an Exception.

        The listeners hear of the epochs of a group when it is done; those that only count them do
        so while it trains, if the engine has a way.
        """
        relays = [Relay(self.staying, [one.lead for one in plan.fits]) for plan, _ in jobs]
        hear = None
        if any(relay.counting for relay in relays):

            def hear(number, epochs):
                relays[number].hear(epochs)

        for number, outcome in self.engine.run([job for _, job in jobs], hear):
            plan, _ = jobs[number]
            if isinstance(outcome, GroupResult):
                self._keep(plan, outcome)
                relays[number].conclude(outcome.results)
            else:
                relays[number].fail(outcome)
            yield plan, outcome

    def _keep(self, plan, outcome):
        """Keep what a group came to: for fits that share a training, and in the store."""
        for message in outcome.messages:
            warnings.warn(f"{message} (on {outcome.worker})", UserWarning, stacklevel=2)
        device_type = outcome.device.partition(":")[0]
        for training in plan.fits:
            training.settle(device_type, self.precision)
        if outcome.is_stored:
            self.store.look_again()
        recorder = Recorder(plan.fits, None if outcome.is_stored else self.store)
        for position, result in outcome.kept:
            recorder.keep(position, result)
        recorder.flush(is_last=True)


def _strip(training):
    """Return a training of fits that a worker can know, one for each number of epochs."""
    lead = training.spec
    fits = [JobFit(lead)]
    for n_epochs in sorted(training.n_epochs_wanted - {lead.n_epochs}, reverse=True):
        fits.append(JobFit(replace(lead, n_epochs=n_epochs)))
    return replace(training, fits=fits, kept={}, ended=None)
