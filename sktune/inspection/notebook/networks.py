"""The summary of a fitted network."""

import numpy as np

from sktune.inspection.advice import diagnose
from sktune.inspection.notebook.summary import Picture, Summary, choose_findings
from sktune.inspection.report.drawing import draw_history
from sktune.inspection.report.results import format_score

_LOSSES = {"train_loss": "Training loss", "valid_loss": "Validation loss"}
_CLASSES = {"train_loss": "top", "valid_loss": "best"}


def describe_net(net):
    """Return the Summary of a network that has been trained for at least one epoch."""
    columns = {name: _read_column(net, name) for name in _LOSSES}
    findings, n_more = choose_findings(diagnose(net))
    return Summary(
        title=type(net).__name__,
        facts=list(_list_facts(net, columns)),
        parameters=[],
        picture=_draw(columns),
        findings=findings,
        n_more=n_more,
    )


def _draw(columns):
    """Return the Picture of the losses; None where no two of them are finite."""
    shown = {name: losses for name, losses in columns.items() if np.isfinite(losses).sum() > 1}
    if not shown:
        return None
    svg, notes = draw_history({_CLASSES[name]: losses for name, losses in shown.items()})
    key = [(_CLASSES[name], _LOSSES[name].lower()) for name in shown]
    return Picture(svg, "Loss by epoch", key, notes)


def _read_column(net, name):
    """Return what the history has of each epoch: ndarray of shape (n_epochs,), nan for none."""
    values = [row.get(name) for row in net.history_]
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _list_facts(net, columns):
    """Yield label and text of what is known of the training."""
    n_epochs = len(net.history_)
    yield "Epochs", f"{n_epochs} (max_epochs={net.max_epochs})"
    for name, label in _LOSSES.items():
        losses = columns[name]
        if not np.isfinite(losses).any():
            continue
        lowest = int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))
        text = f"{format_score(losses[-1])} at the end"
        if lowest != n_epochs - 1:
            text += f", lowest {format_score(losses[lowest])} in epoch {lowest + 1}"
        yield label, text
    module = getattr(net, "module_", None)
    if module is not None:
        n_weights = sum(weights.numel() for weights in module.parameters())
        device = getattr(net, "device_", net.device)
        yield "Module", f"{type(module).__name__}, {n_weights:,} weights, on {device}"
    seconds = np.nansum(_read_column(net, "dur"))
    if seconds > 0:
        yield "Time of the epochs", f"{seconds:.2f} s"
