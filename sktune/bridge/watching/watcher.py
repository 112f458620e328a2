"""skorch's own callbacks, told of the epochs of a fit that is trained together with others.

They are the callbacks themselves: they score, stop the fit, change the learning rate and print as
they do alone. In place of the net in training they are given a stand-in, which has a history, an
optimizer of one number, and predictions for the validation rows.
"""

from contextlib import contextmanager
from copy import copy, deepcopy

import numpy as np
import torch
from skorch.callbacks import (
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    GradientNormClipping,
    LRScheduler,
)
from skorch.dataset import Dataset, unpack_data
from skorch.history import History
from torch import nn

from sktune.bridge.fits import make_twin
from sktune.bridge.watching.served import (
    is_default,
    list_given,
    list_settings,
    needs_watching,
)
from sktune.engine.digest import digest
from sktune.engine.events import EpochWatcher

# What the engine computes itself, of the scores that skorch's default callbacks record.
_ACCURACY = "valid_acc"


def make_follower(template, net):
    """Return an initialized net with the callbacks of another one, which have heard nothing yet.

    Parameters
    ----------
    template : NeuralNet
        The initialized net.
    net : NeuralNet
        It is not initialized.
    """
    twin = make_twin(template)
    for name in list_settings(template):
        vars(twin).pop(name)
    vars(twin)["callbacks"] = net.callbacks
    vars(twin).update({name: vars(net)[name] for name in list_settings(net)})
    for name in ("clip_grad_norm", "clip_grad_value"):
        vars(twin)[name] = vars(net)[name]
    twin.initialize_callbacks()
    if not needs_watching(twin):
        # as those of a template
        for _, callback in twin.callbacks_:
            callback.on_train_begin(twin, X=None, y=None)
    return twin


def make_watcher(net, spec, valid):
    """Return what tells the callbacks of an initialized net of its epochs.

    Parameters
    ----------
    net : NeuralNet
        It was stopped where its training would begin; its callbacks have not heard of that.
    spec : FitSpec
        What is known of its fit.
    valid : Dataset or None
        The validation set.
    """
    stand_in = make_twin(net)
    state = vars(stand_in)
    state.pop("_hook", None)
    state["history_"] = History()
    state["module_"] = nn.Module()
    state["optimizer_"] = _make_optimizer(spec.optimizer)
    state["callbacks_"] = deepcopy(net.callbacks_)
    n_valid = None if valid is None else len(valid)
    datasets = {
        "dataset_train": _make_empty(spec.rows.n_train),
        "dataset_valid": _make_empty(n_valid),
    }
    return CallbackWatcher(stand_in, datasets, _list_known(net), _read_targets(net, valid))


@contextmanager
def muted(net):
    """Return a context in which the callbacks of a net that has some of its own hear nothing."""
    if not any(_hears_epochs(callback) for _, callback in list_given(net)):
        yield
        return
    vars(net)["notify"] = lambda method_name, **arguments: None
    try:
        yield
    finally:
        vars(net).pop("notify", None)


def _hears_epochs(callback):
    kind = callback if isinstance(callback, type) else type(callback)
    return kind is not GradientNormClipping


def _make_optimizer(spec):
    """Return an optimizer of one number, of the class and with the options of an OptimizerSpec."""
    options = spec.options
    made = spec.type([nn.Parameter(torch.zeros(1))], lr=float(options["lr"]))
    made.param_groups[0].update(options)
    made.defaults.update({name: options[name] for name in made.defaults})
    return made


def _make_empty(n_rows):
    """Return a dataset of rows of nothing: callbacks that are served read none of them."""
    return None if n_rows is None else Dataset(np.zeros((n_rows, 1), np.float32))


def _list_known(net):
    """Return the names of the callbacks whose work is done without them."""
    return {
        name
        for name, callback in net.callbacks_
        if name in (_ACCURACY, "print_log") and is_default(net, name, callback)
    }


def _read_targets(net, valid):
    """Return the targets of the validation rows as callbacks are given them, batch by batch.

    Return None where no callback asks for them.
    """
    asks = any(
        isinstance(callback, EpochScoring) and not is_default(net, name, callback)
        for name, callback in net.callbacks_
    )
    if valid is None or not asks:
        return None
    # to go through a DataLoader draws a number
    with torch.random.fork_rng(devices=[]):
        batches = list(net.get_iterator(valid, training=False))
    public = getattr(net, "_public_batch", lambda batch: batch)
    return [unpack_data(public(batch))[1] for batch in batches]


class CallbackWatcher(EpochWatcher):
    """Tells skorch's callbacks of the epochs of one fit.

    Parameters
    ----------
    net : NeuralNet
        The stand-in, with the callbacks.
    datasets : dict of Dataset
        What callbacks are given at the beginning and the end of an epoch.
    known : set of str
        The names of callbacks whose work is done without them.
    targets : list of Tensor or ndarray, or None
        The targets of the validation rows, batch by batch, where a callback scores predictions.
    """

    def __init__(self, net, datasets, known, targets):
        self.net = net
        self.datasets = datasets
        self.known = known
        self.targets = targets
        self.has_begun = False
        self.is_stopped = False

    @property
    def callbacks(self):
        """The callbacks, as pairs of a name and a callback."""
        return self.net.callbacks_

    @property
    def needs_outputs(self):
        """Whether the outputs for the validation rows are asked for."""
        return self.targets is not None

    @property
    def sets_rates(self):
        """Whether a callback sets the learning rates."""
        return any(isinstance(callback, LRScheduler) for _, callback in self.callbacks)

    @property
    def options(self):
        """The options of the optimizer's one group, as callbacks have left them."""
        (group,) = self.net.optimizer_.param_groups
        return {name: value for name, value in group.items() if name != "params"}

    def __getstate__(self):
        # not as a net pickles itself: its optimizer would become another one than its callbacks'
        return {**vars(self), "net": (type(self.net), vars(self.net))}

    def __setstate__(self, state):
        kind, attributes = state.pop("net")
        vars(self).update(state)
        self.net = object.__new__(kind)
        vars(self.net).update(attributes)

    def __deepcopy__(self, memo):
        twin = copy(self)
        twin.net = make_twin(self.net)
        memo[id(self.net)] = twin.net
        state = vars(twin.net)
        # the callbacks refer to the optimizer: both are copied at once
        for name in ("optimizer_", "callbacks_", "history_"):
            state[name] = deepcopy(state[name], memo)
        return twin

    def __digest__(self):
        settings = [(name, type(c), c.get_params()) for name, c in self.callbacks]
        return digest((settings, self.net.optimizer_.param_groups[0]["lr"]))

    def begin(self):
        """Tell that the training begins, unless that is done."""
        if self.has_begun:
            return
        self.has_begun = True
        for _, callback in self.callbacks:
            callback.on_train_begin(self.net, X=None, y=None)

    def begin_epoch(self, n_steps):
        """Tell that an epoch begins; return the learning rates of its steps, or None."""
        self.net.on_epoch_begin(self.net, **self.datasets)
        for _, callback in self.callbacks:
            callback.on_epoch_begin(self.net, **self.datasets)
        if not self.sets_rates:
            return None
        before = self.options
        rates = []
        for _ in range(n_steps):
            rates.append(self.options["lr"])
            self._step_schedulers()
        self._check_options(before)
        return rates

    def _step_schedulers(self):
        """Tell schedulers that go by batches that a training step is over."""
        for _, callback in self.callbacks:
            if isinstance(callback, LRScheduler) and callback.step_every == "batch":
                self.net.history.new_batch()
                self._take_empty_step()
                callback.on_batch_end(self.net, training=True)

    def _take_empty_step(self):
        """Let the optimizer count a step, without which torch warns of a scheduler's step."""
        self.net.optimizer_.step()

    def _check_options(self, before):
        """Raise if a callback has changed an option that is not the learning rate."""
        after = self.options
        changed = [name for name in after if name != "lr" and after[name] != before.get(name)]
        if changed:
            raise RuntimeError(f"a scheduler has changed {changed[0]} of the optimizer")

    def end_epoch(self, record, outputs):
        """Tell that an epoch is over.

        Parameters
        ----------
        record : dict of float
            What the epoch came to, and the numbers of its batches.
        outputs : Tensor or None
            The module's outputs for the validation rows, if they are asked for.

        Returns
        -------
        is_best, is_due : bool
            Whether a callback keeps the weights of the epoch, and whether one ends the fit.
        """
        history = self.net.history
        # the means that callbacks take over the batches are those of one batch
        history[-1]["batches"] = [_make_batch(record)]
        for name in ("train_batch_count", "valid_batch_count"):
            if name in record:
                history.record(name, record[name])
        if outputs is not None:
            self._tell_outputs(outputs)
        before = self.options
        try:
            for name, callback in self.callbacks:
                self._tell_epoch(name, callback, record)
        except KeyboardInterrupt:
            # so callbacks of skorch end a fit
            self.is_stopped = True
        self._check_options(before)
        history[-1]["batches"] = []
        return self._keeps_weights(), self.is_stopped

    def _tell_outputs(self, outputs):
        """Hand the validation batches to the callbacks that score predictions."""
        start = 0
        for target in self.targets:
            batch = (None, target)
            y_pred = outputs[start : start + len(target)]
            start += len(target)
            for name, callback in self.callbacks:
                if isinstance(callback, EpochScoring) and name not in self.known:
                    callback.on_batch_end(self.net, batch=batch, y_pred=y_pred, training=False)

    def _tell_epoch(self, name, callback, record):
        history = self.net.history
        if isinstance(callback, EpochTimer):
            # the fit's share of the time of its group
            history.record("dur", record["dur"])
        elif name in self.known:
            if name == _ACCURACY and _ACCURACY in record:
                _record_score(history, callback, record[_ACCURACY])
        else:
            if isinstance(callback, LRScheduler):
                self._take_empty_step()
            callback.on_epoch_end(self.net, **self.datasets)

    def _keeps_weights(self):
        """Tell whether a callback would keep the weights of the epoch."""
        return any(
            isinstance(callback, EarlyStopping)
            and callback.load_best
            and callback.best_epoch_ == len(self.net.history)
            for _, callback in self.callbacks
        )

    def end(self):
        """Tell that the training is over."""
        for _, callback in self.callbacks:
            callback.on_train_end(self.net, X=None, y=None)


def _make_batch(record):
    """Return one batch of the history whose losses are those of the epoch."""
    batch = {}
    for kind in ("train", "valid"):
        if f"{kind}_loss" in record:
            batch[f"{kind}_loss"] = record[f"{kind}_loss"]
            batch[f"{kind}_batch_size"] = 1
    return batch


def _record_score(history, callback, score):
    """Record a score that was computed elsewhere, as skorch's callback does."""
    history.record(callback.name_, score)
    is_best = score > callback.best_score_
    history.record(f"{callback.name_}_best", bool(is_best))
    if is_best:
        callback.best_score_ = score
