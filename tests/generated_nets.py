"""Nets that hypothesis draws: module, optimizer, criterion, and candidates that fit to them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from generated_modules import N_CATEGORIES, N_FEATURES, Generated, Plan, plans
from hypothesis import strategies as st
from parity import search
from sklearn.base import clone
from torch import nn

from sktune import NeuralNetClassifier, NeuralNetRegressor

N_ROWS = 110
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N_ROWS, N_FEATURES))
X[:, 0] = RNG.integers(0, N_CATEGORIES, N_ROWS)
WEIGHTS = RNG.uniform(0, 3, N_ROWS)
WEIGHTS[:9] = 0
LABELS = (X[:, 1] > 0).astype(int) + (X[:, 2] > 1) * 1
NUMBERS = np.c_[X[:, 1] * X[:, 2], np.sin(X[:, 3]) + X[:, 0]]
OF_CLASSES = torch.tensor([1.0, 3.0, 0.3], dtype=torch.float64)
# Where the last batch has one row or two, normalization over a batch fails or is noise.
BATCHES, NORMALIZED_BATCHES = [16, 24, 36, 72, 100], [16, 20, 31, 100]

NUMBER = {"weight_decay": st.sampled_from([0.0, 0.01, 0.3])}
BETAS = {"betas": st.sampled_from([(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)])}
EPS = {"eps": st.sampled_from([1e-6, 1e-3])}
ADAMS = {**NUMBER, **BETAS, **EPS}
OPTIMIZERS = {
    torch.optim.SGD: {**NUMBER, "momentum": st.sampled_from([0.0, 0.9])},
    torch.optim.Adam: ADAMS,
    torch.optim.AdamW: ADAMS,
    torch.optim.NAdam: ADAMS,
    torch.optim.RAdam: ADAMS,
    torch.optim.Adamax: ADAMS,
    torch.optim.RMSprop: {**NUMBER, **EPS, "momentum": st.sampled_from([0.0, 0.5])},
    torch.optim.Adagrad: {**NUMBER, **EPS, "lr_decay": st.sampled_from([0.0, 0.1])},
    torch.optim.Adadelta: {**NUMBER, **EPS, "rho": st.sampled_from([0.9, 0.5])},
}
# Options that all lanes have in common.
SHARED = {
    torch.optim.SGD: [{}, {"nesterov": True, "momentum": 0.9}, {"maximize": True}],
    torch.optim.Adam: [{}, {"amsgrad": True}, {"decoupled_weight_decay": True}],
    torch.optim.AdamW: [{}, {"amsgrad": True}],
    torch.optim.NAdam: [{}, {"decoupled_weight_decay": True}],
    torch.optim.RMSprop: [{}, {"centered": True}],
}
SUM = {"criterion__reduction": "sum"}
CLASSIFICATIONS = [
    {},
    SUM,
    {"criterion__label_smoothing": 0.2},
    {"criterion__weight": OF_CLASSES},
    {"criterion__weight": OF_CLASSES, "criterion__label_smoothing": 0.1, **SUM},
    {"class_weight": "balanced"},
]
REGRESSIONS = [
    {},
    SUM,
    {"criterion": nn.L1Loss},
    {"criterion": nn.HuberLoss, "criterion__delta": 0.5},
    {"criterion": nn.SmoothL1Loss, "criterion__beta": 0.3, **SUM},
]
BINARY = {"criterion": nn.BCEWithLogitsLoss}
BINARIES = [BINARY, {**BINARY, "criterion__pos_weight": torch.tensor([2.5], dtype=torch.float64)}]
SCHEDULES = [
    {},
    {},
    {"lr_schedule": "exponential"},
    {"lr_schedule": "cosine", "lr_schedule__warmup": 1},
    {"lr_schedule": "one_cycle"},
]
STOPPING = [
    {},
    {},
    {"early_stopping": True, "n_iter_no_change": 1},
    {"early_stopping": "train_loss"},
]


@dataclass(frozen=True)
class Case:
    """A net, its candidates, and what it is fitted on."""

    plan: Plan
    net: object
    candidates: tuple
    y: object
    fit_params: dict

    @property
    def X(self):
        return X if self.plan.is_wide else X.astype(np.float32)

    def search(self, candidates=None, **options):
        """Return what ``parity.search`` does for these candidates."""
        candidates = self.candidates if candidates is None else candidates
        return search(self.net, candidates, self.X, self.y, fit_params=self.fit_params, **options)

    def fit(self, candidate, rows):
        """Return a net of a candidate, fitted by itself on some rows."""
        weights = {name: value[rows] for name, value in self.fit_params.items()}
        return clone(self.net).set_params(**candidate).fit(self.X[rows], self.y[rows], **weights)


@st.composite
def lanes(draw, options):
    """Draw what a candidate has of its own."""
    numbers = {
        "lr": st.sampled_from([0.001, 0.003, 0.01]),
        "l1": st.sampled_from([0.001, 0.01]),
        "l2": st.sampled_from([0.01, 0.1]),
        "clip_grad_norm": st.sampled_from([None, 0.5, 0.1]),
        "clip_grad_value": st.sampled_from([None, 0.1, 0.01]),
        **{f"optimizer__{name}": values for name, values in options.items()},
    }
    # The small eps of torch's defaults enlarges gradients that are rounding noise.
    always = [name for name in ("lr", "optimizer__eps") if name in numbers]
    others = sorted(numbers.keys() - set(always))
    chosen = draw(st.sets(st.sampled_from(others), max_size=4))
    return {name: draw(numbers[name]) for name in [*always, *sorted(chosen)]}


@st.composite
def cases(draw, is_simple=False):
    """Draw a case; a simple one has no dropout, shuffling, schedule, early stopping or weights."""
    plan = draw(plans())
    if is_simple and plan.has("batch norm"):
        # Gradients of what a normalization takes away are rounding noise, which Adam enlarges.
        plan = replace(plan, is_wide=True)
    task = draw(st.sampled_from(["classes", "classes", "numbers", "binary"]))
    if task in ("numbers", "binary"):
        plan = replace(plan, ending="none")
    kind = draw(st.sampled_from(list(OPTIMIZERS)))
    shared = draw(st.sampled_from(SHARED.get(kind, [{}])))
    sizes = NORMALIZED_BATCHES if plan.has("batch norm") else BATCHES
    options = {
        "module__plan": plan,
        "module__dropout": 0.0 if is_simple else draw(st.sampled_from([0.0, 0.3])),
        "optimizer": kind,
        "max_epochs": draw(st.integers(1, 3)),
        "batch_size": draw(st.sampled_from(sizes)),
        "shuffle": not is_simple and draw(st.booleans()),
        "random_state": draw(st.integers(0, 3)),
        **{f"optimizer__{name}": value for name, value in shared.items()},
    }
    fit_params = {}
    if not is_simple:
        options |= draw(st.sampled_from(SCHEDULES)) | draw(st.sampled_from(STOPPING))
        fit_params = draw(st.sampled_from([{}, {}, {"sample_weight": WEIGHTS}]))
    if options.get("early_stopping") is True and plan.has("batch norm"):
        options["early_stopping"] = "train_loss"
    options |= draw(criteria(task, plan))
    own = {name: v for name, v in OPTIMIZERS[kind].items() if name not in shared}
    if is_simple:
        options.pop("class_weight", None)
    candidates = tuple(draw(st.lists(lanes(own), min_size=2, max_size=3)))
    net, y = make_net(task, options)
    return Case(plan, net, candidates, y, fit_params)


def criteria(task, plan):
    """Draw options of a criterion that fits a task and the ending of a module."""
    if task == "numbers":
        return st.sampled_from(REGRESSIONS)
    if task == "binary":
        return st.sampled_from(BINARIES)
    if plan.ending == "softmax":
        return st.sampled_from([{"criterion": nn.NLLLoss}, {"criterion": nn.NLLLoss, **SUM}])
    return st.sampled_from(CLASSIFICATIONS)


def make_net(task, options):
    """Return a net, and the targets that it is fitted on."""
    options = {
        name: value.float() if torch.is_tensor(value) and not options["module__plan"].is_wide
        else value
        for name, value in options.items()
    }  # fmt: skip
    if task == "numbers":
        y = NUMBERS if options["module__plan"].is_wide else NUMBERS.astype(np.float32)
        return NeuralNetRegressor(Generated, module__n_outputs=2, **options), y
    if task == "binary":
        return NeuralNetClassifier(Generated, module__n_outputs=1, **options), LABELS.clip(max=1)
    return NeuralNetClassifier(Generated, module__n_outputs=3, **options), LABELS
