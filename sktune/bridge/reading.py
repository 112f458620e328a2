"""Reading an initialized net, or one that begins like it, into the spec of its fit."""

from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from numbers import Integral

import numpy as np
import torch
from skorch import NeuralNet
from skorch.regressor import NeuralNetRegressor
from torch import nn
from torch.utils.data import Subset

from sktune.bridge.fits import make_twin
from sktune.bridge.watching.served import list_given
from sktune.checks.advice import notice_outputs
from sktune.checks.hyperparameters import check_hyperparameters, check_ranges
from sktune.checks.inputs import check_rows
from sktune.engine.sampling import SeededSampling
from sktune.engine.specs import FitSpec, InitialModule, LossSpec, OptimizerSpec
from sktune.estimators.base import NetworkEstimator
from sktune.estimators.classifier import NeuralNetClassifier
from sktune.estimators.overrides import find_clips, list_own_clips
from sktune.estimators.regressor import NeuralNetRegressor as OurRegressor
from sktune.modules.dropout import dropout_layers
from sktune.modules.mlp import MLP
from sktune.modules.reading import find_sequence, has_other_forward
from sktune.modules.structure import as_text
from sktune.runtime.devices import name_device
from sktune.runtime.threads import limited_threads
from sktune.training.optimizers import list_free_options
from sktune.training.rows import rows_of
from sktune.training.stopping import BestEpoch

# Criteria with which a training step fails only if the module is at fault.
_PROVEN_CRITERIA = (nn.CrossEntropyLoss, nn.MSELoss)

# How many rows the module is tried on before the training.
_N_TRIAL_ROWS = 16

# Parameters in which fits that begin alike may differ: the initialized net does not depend on them.
_FREE = {
    "lr",
    "l1",
    "l2",
    "clip_grad_norm",
    "clip_grad_value",
    "max_epochs",
    "batch_size",
    "tol",
    "n_iter_no_change",
}


def read_spec(net, dataset, planned, tables):
    """Read an initialized net of sktune into a :class:`FitSpec`.

    Parameters
    ----------
    net : NetworkEstimator
        It was stopped where its training would begin.
    dataset : Rows
        The argument of its training loop.
    planned : PlannedFit
        It has the numbers of the training rows and of those that will be predicted.
    tables : Tables
        The table of the dataset is added to these.
    """
    rows, _ = rows_of(dataset)
    table_name, positions = tables.add(rows, planned.train)
    train, valid = net.get_split_datasets(dataset, rows.y)
    evaluation = find_valid_batches(net, valid)
    if positions is not None:
        evaluation |= _find_test_rows(net, planned, tables.by_name[table_name])
    row_set = tables.find_row_set(table_name, positions, train, valid, **evaluation)
    return FitSpec(
        module=InitialModule(net.module_, _find_recipe(net)),
        dropout=tuple(layer.p for layer in dropout_layers(net.module_)),
        loss=LossSpec(net.criterion_, net._match_rule, net._known_classes()),
        optimizer=read_optimizer(net.optimizer_),
        schedule=net._schedule(),
        l1=float(net.l1),
        l2=float(net.l2),
        sampling=SeededSampling(find_batch_size(net, len(train)), bool(net.shuffle)),
        rows=row_set,
        n_epochs=int(net.max_epochs),
        seed=net.seed_,
        stopping=BestEpoch.of(net, valid is not None),
        narrow_to=vars(net).get("_narrow_to"),
        is_regressor=isinstance(net, NeuralNetRegressor),
        runs_user_code=not _is_proven(net),
        n_outputs=getattr(net, "n_outputs_", None),
        device=name_device(net.device, rows.X.device),
        is_auto=isinstance(net.device, str) and net.device == "auto",
        augmentation=net._read_augmentation(rows, net.criterion_),
        clips=find_clips(net),
    )


def follow_spec(spec, net, tables):
    """Return the spec of a fit that begins as another one does.

    Parameters
    ----------
    spec : FitSpec
        That of the other fit.
    net : NetworkEstimator
        It is not initialized. It may differ from the net of the other fit in the settings that
        :func:`find_fixed_settings` leaves out, except for `batch_size`.
    tables : Tables
    """
    dropout = spec.dropout
    if net.module is MLP:
        dropout = (float(getattr(net, "module__dropout", 0.0)),) * len(dropout)
    schedule = net._schedule()
    return replace(
        spec,
        dropout=dropout,
        optimizer=_follow_optimizer(spec.optimizer, net, is_scheduled=not schedule.is_constant),
        schedule=schedule,
        l1=float(net.l1),
        l2=float(net.l2),
        n_epochs=int(net.max_epochs),
        stopping=BestEpoch.of(net, spec.rows.valid is not None),
        augmentation=net._read_augmentation(tables.by_name[spec.rows.table], spec.loss.criterion),
        clips=tuple(list_own_clips(net)),
    )


def follow_batch_size(spec, net, template, tables):
    """Return a spec with the batch size of another net.

    Parameters
    ----------
    spec : FitSpec
    net : NetworkEstimator
        It differs from `template` in `batch_size`.
    template : NetworkEstimator
        The initialized net that `spec` was read from.
    tables : Tables
    """
    twin = make_twin(template)
    vars(twin)["batch_size"] = net.batch_size
    rows = spec.rows
    table = tables.by_name[rows.table]
    evaluation = {}
    if rows.valid is not None:
        evaluation = find_valid_batches(twin, Subset(table, rows.valid))
    if rows.test is not None:
        evaluation["test_batch_size"] = _find_test_batch_size(twin, table, rows.test)
    batch_size = find_batch_size(net, rows.n_train)
    return replace(
        spec,
        sampling=replace(spec.sampling, batch_size=batch_size),
        rows=replace(rows, **evaluation),
    )


def check_follower(net, first):
    """Check the hyperparameters in which a net may differ from the `first`, a checked one."""
    has_same_names = vars(net).keys() == vars(first).keys()
    if has_same_names and net.lr_schedule == first.lr_schedule == "constant":
        check_ranges(net)
    else:
        check_hyperparameters(net)


def find_fixed_settings(net):
    """Return all settings of a net except those in which fits that begin alike may differ.

    If the seed is not given, the return value is an object that is equal to nothing else.
    """
    if not isinstance(getattr(net, "random_state", None), Integral):
        return object()
    # the user's own methods may use any parameter to build the module
    builders = (type(net).initialize_module, type(net).initialize_criterion)
    is_usual = builders == (NetworkEstimator.initialize_module, NeuralNet.initialize_criterion)
    settings = vars(net).items()
    if is_usual:
        settings = [(name, value) for name, value in settings if not _is_free(name, net)]
        # the names and the classes of callbacks tell in what batches rows are evaluated
        settings.append(("callbacks", [net.callbacks == "disable", *_list_kinds(net)]))
    return (type(net), frozenset((name, as_text(value)) for name, value in settings))


def _list_kinds(net):
    """Return the names and the classes of the callbacks that a net was given."""
    return [
        (name, callback if isinstance(callback, type) else type(callback))
        for name, callback in list_given(net)
    ]


def _is_free(name, net):
    """Tell whether fits that begin alike may differ in a parameter."""
    if name.startswith("optimizer__"):
        return name.removeprefix("optimizer__") in list_free_options()
    is_dropout = name == "module__dropout" and net.module is MLP
    is_callback = name == "callbacks" or name.startswith("callbacks__")
    is_free = name in _FREE or name.startswith(("lr_schedule", "augment"))
    return is_free or is_callback or is_dropout


def read_optimizer(optimizer):
    """Return the class of an optimizer, and the options of its one group of parameters."""
    group = optimizer.param_groups[0]
    options = {name: value for name, value in group.items() if name != "params"}
    return OptimizerSpec(type(optimizer), options)


def _follow_optimizer(other, net, *, is_scheduled):
    """Return the optimizer of a net that is not initialized.

    The option ``fused``, which depends on the device, is taken from that of an `other` net.
    """
    parameter = nn.Parameter(torch.zeros(1))
    arguments, options = net.get_params_for_optimizer("optimizer", [("parameter", parameter)])
    if "fused" in other.options and "fused" not in options:
        options["fused"] = other.options["fused"]
    built = net.optimizer(*arguments, **options)
    spec = read_optimizer(built)
    if is_scheduled:
        spec.options.setdefault("initial_lr", spec.options["lr"])
    return spec


def _find_recipe(net):
    """Return class, arguments and seed of a module of sktune; None for a user's module."""
    if type(net.module_) is not MLP or net.module is not MLP:
        return None
    arguments = net.get_params_for("module")
    for name in ("n_features", "n_outputs"):
        arguments.setdefault(name, net._sizes.get(name))
    return (MLP, arguments, net.seed_)


def _is_proven(net):
    """Tell whether a training step of a net runs no code of the user."""
    is_ours = type(net) in (NeuralNetClassifier, OurRegressor)
    is_known = is_ours and net.module is MLP and net.criterion in _PROVEN_CRITERIA
    # a number of outputs that the user has set may not go with the data
    is_sized = "module__n_outputs" not in vars(net)
    parts = (*net.module_.modules(), net.criterion_)
    return is_known and is_sized and not any(map(has_other_forward, parts))


def find_batch_size(net, n_train):
    """Return how many rows a net takes at once in training; -1 means all of them."""
    if net.batch_size == -1:
        return n_train
    return int(net.batch_size)


def find_valid_batches(net, valid):
    """Return how many batches a plain fit evaluates its validation rows in, for a `RowSet`.

    Return nothing without validation rows. The engine may evaluate in batches of another size; the
    history records the number of these.
    """
    if valid is None:
        return {}
    # a net chooses other sizes where its callbacks hear of its batches
    twin = make_twin(net)
    vars(twin)["_is_fitting"] = True
    batches = twin.get_iterator(valid, training=False)
    size = batches.sizes[0] if hasattr(batches, "sizes") else batches.batch_size
    return {"n_valid_batches": len(batches), "valid_batch_size": size}


def _find_test_rows(net, planned, rows):
    """Return the rows of a table that will be predicted, and their batch size, for a `RowSet`.

    Return nothing where they are unknown, or where the user's own methods evaluate the net.
    """
    evaluation = (type(net).forward_iter, type(net).evaluation_step)
    is_usual = evaluation == (NeuralNet.forward_iter, NetworkEstimator.evaluation_step)
    is_known = planned.test is not None and len(planned.test) > 0
    if not (is_usual and is_known and type(planned.whole) is np.ndarray):
        return {}
    # rows that are not valid raise the error again when they are predicted
    with suppress(ValueError):
        check_rows(net, planned.whole[planned.test], reset=False)
        test = torch.as_tensor(planned.test)
        return {"test": test, "test_batch_size": _find_test_batch_size(net, rows, test)}
    return {}


def _find_test_batch_size(net, rows, test):
    """Return in batches of how many rows a net predicts the test rows."""
    return net.get_iterator(Subset(rows, test)).sizes[0]


def notice_first_outputs(net, spec, tables):
    """Warn of the outputs of a net that will be fused, as the first batch of a plain fit does."""
    is_judged = isinstance(net._find_criterion(), nn.CrossEntropyLoss | nn.NLLLoss)
    if not is_judged or find_sequence(net.module_) is not None:
        return
    trial = torch.arange(min(_N_TRIAL_ROWS, spec.batch_sizes[0]))
    if spec.rows.train is not None:
        trial = spec.rows.train[trial]
    X, *_ = tables.by_name[spec.rows.table].take(trial)
    outputs = None
    # An error of the module is raised later, by the engine or by a plain fit.
    # One thread: a process that has started torch's threads cannot be forked any more.
    ignored = suppress(Exception)
    with ignored, limited_threads(1), torch.no_grad(), torch.random.fork_rng(devices=[]):
        outputs = deepcopy(net.module_).eval()(X)
    notice_outputs(net, outputs)
