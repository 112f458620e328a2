"""Fits that are one training: they begin alike, and differ in their numbers of epochs only."""

import warnings
from dataclasses import dataclass, field, replace

from sktune.engine.report import Sharing
from sktune.engine.specs import FitResult
from sktune.engine.store.base import Record, copy_error, training_key

# Why the training of a fit is not shared with another one.
LISTENED_TO = "a callback of scikit-learn's listens to it"
NO_DIGEST = "a part of it cannot be pickled, and cannot be told from other parts by its contents"
DRAWS = "skorch's own nets draw from torch's generator, in which no two begin alike"
WATCHED = "a callback of skorch's looks at its epochs"
LOOKS_AHEAD = "its schedule looks at max_epochs"


@dataclass
class Training:
    """Fits that are trained as one.

    Parameters
    ----------
    fits : list of objects with `spec`, `group_key`, `reason` and `result`
        Those with most epochs first.
    key : str or None
        The key of the training in a store; None if it has none.
    start : Record or None
        Where it goes on.
    device_type : str or None
        Where it is expected to be trained, such as ``"cuda"``; None is the device of its spec.

    Attributes
    ----------
    reason : str
        Why it cannot be trained together with others.
    kept : dict of int to FitResult
        What it has come to by the epochs at which fits end, with the curves of all epochs.
    ended : FitResult or None
        The same for its end, if that came early.
    """

    fits: list
    key: str | None = None
    start: Record | None = None
    device_type: str | None = None
    reason: str = ""
    kept: dict = field(default_factory=dict)
    ended: FitResult | None = None

    @property
    def lead(self):
        """The fit that is trained."""
        return self.fits[0]

    @property
    def spec(self):
        """The spec of the fit that is trained."""
        return self.lead.spec

    @property
    def first_epoch(self):
        """The epochs that are known."""
        return 0 if self.start is None else self.start.epoch

    @property
    def group_key(self):
        """What it has in common with those that it is trained with: they go on from one epoch."""
        if self.start is None:
            return self.lead.group_key
        return (self.lead.group_key, self.first_epoch)

    @property
    def n_epochs_wanted(self):
        """The numbers of epochs at which fits end, as a set."""
        return {fit.spec.n_epochs for fit in self.fits}

    def settle(self, device_type, precision=None):
        """Take note of where it was trained, on which its key depends.

        What went on elsewhere from where it had begun is the training of no single device, and is
        not kept in a store.
        """
        if self.key is None or self.device_type in (None, device_type):
            return
        self.device_type = device_type
        self.key = None
        if self.start is None:
            self.key = training_key(self.spec, precision, device_type)

    def join(self, result):
        """Return a result with the curve of all epochs."""
        if self.start is None:
            return result
        before = self.start.curve
        curve = {name: [*before.get(name, ()), *column] for name, column in result.curve.items()}
        return replace(result, curve=curve)

    def result_of(self, fit, result):
        """Return what a fit has come to, of the result of the fit that is trained."""
        kept = self.kept.get(fit.spec.n_epochs)
        if kept is None:
            # the training has ended before this epoch
            kept = replace(result, error=copy_error(result.error))
        if kept.state is not None:
            kept = replace(kept, state=kept.state.end())
        if kept.outputs is not None:
            has_same_rows = fit.spec.rows.test_digest == self.spec.rows.test_digest
            outputs = list(kept.outputs) if has_same_rows and fit.spec.keeps_outputs else None
            kept = replace(kept, outputs=outputs)
        return kept


def find_trainings(fits, store=None, precision=None, sharing=None, find_type=None):
    """Return the trainings that are left to do; give fits whose training is known their results.

    Parameters
    ----------
    fits : list of objects with `spec`, `group_key`, `reason` and `result`
    store : Store or None
        What was trained before.
    precision : str or None
        The precision of products, on which results depend.
    sharing : Sharing or None
        It takes note of what was known, and of why fits are not shared.
    find_type : callable or None
        ``find_type(spec)`` is the type of the device on which a fit will be trained; None is that
        of its own.

    Returns
    -------
    trainings : list of Training
    """
    sharing = Sharing() if sharing is None else sharing
    trainings = []
    for members in _may_be_alike(fits):
        if store is None and len(members) == 1:
            trainings.append(Training(members))
            continue
        known = []
        alike = {}
        for fit in members:
            device_type = None if find_type is None else find_type(fit.spec)
            key, reason = _find_key(fit, precision, device_type)
            if reason:
                sharing.note_reason(reason)
                trainings.append(Training([fit]))
                continue
            known.append(fit)
            record = _find_record(fit, key, store)
            if record is not None and record.answers(fit.spec.n_epochs):
                fit.reason = ""
                fit.result = record.result_for(fit.spec)
                sharing.note_known(record.epoch)
                continue
            start = 0 if record is None else record.epoch
            training = alike.setdefault((key, start), Training([], key, record, device_type))
            training.fits.append(fit)
        _explain(known, sharing)
        trainings += alike.values()
    for training in trainings:
        training.fits.sort(key=lambda fit: fit.spec.n_epochs, reverse=True)
    return trainings


def _find_record(fit, key, store):
    """Return what a store knows of the training of a fit; None if there is nothing."""
    record = None if store is None else store.find(key, fit.spec.n_epochs)
    if record is None:
        return None
    if not record.suits(fit.spec):
        warnings.warn(
            "what the store has of a fit does not go with its module or optimizer, "
            "and is trained again",
            UserWarning,
            stacklevel=2,
        )
        return None
    return record.on(fit.spec.device)


def _explain(fits, sharing):
    """Take note of why fits are not one training that seem to differ in their epochs only."""
    looking = {}
    drawing = {}
    for fit in fits:
        if fit.spec.schedule.looks_at_max_epochs:
            looking.setdefault(fit.spec.open_digest, []).append(fit)
        elif not fit.spec.sampling.has_seeded_masks:
            drawing.setdefault(fit.spec.open_digest, []).append(fit)
    for members in looking.values():
        _note_apart(members, LOOKS_AHEAD, sharing)
    _note_apart([one[0] for one in drawing.values() if len(one) == 1], DRAWS, sharing)


def _note_apart(fits, reason, sharing):
    """Take note of a reason if the fits have various numbers of epochs."""
    if len({fit.spec.n_epochs for fit in fits}) > 1:
        sharing.note_reason(reason, len(fits))


def _may_be_alike(fits):
    """Return lists of fits, of which those in different lists surely differ in more than epochs.

    It takes less time than digests, which few searches need therefore.
    """
    found = {}
    for fit in fits:
        spec = fit.spec
        options = sorted((name, repr(value)) for name, value in spec.optimizer.options.items())
        numbers = (spec.l1, spec.l2, spec.seed, spec.dropout, spec.sampling.batch_size)
        key = (spec.rows.table, spec.rows.n_train, numbers, tuple(options))
        found.setdefault(key, []).append(fit)
    return list(found.values())


def _find_key(fit, precision, device_type):
    """Return the key of a fit's training, or None and the reason why there is none."""
    if getattr(fit, "telling", None) is not None:
        return None, LISTENED_TO
    if fit.spec.watcher is not None:
        return None, WATCHED
    try:
        return training_key(fit.spec, precision, device_type), ""
    except Exception:
        # code of the user's takes part in a pickle
        return None, NO_DIGEST
