"""What to say where torch's or skorch's own message does not tell what to do."""

import sys
import warnings
from contextlib import contextmanager

from skorch.exceptions import SkorchException
from torch import nn

_OURS = ("sktune", "skorch")
_HUGE = 100.0
_FEW_ROWS = 30
_OF_DISTANCES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
_FEWEST_ROWS = 4


def warn_user(message):
    """Warn at the line that calls sktune."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level - 1)


@contextmanager
def naming_validation_rows(are_missing):
    """Say what gives a callback its validation scores, where there are no validation rows."""
    try:
        yield
    except (KeyError, ValueError, SkorchException) as error:
        if not are_missing or "valid" not in str(error):
            raise
        raise ValueError(
            "callbacks that look at validation scores must come with rows to validate on, got none "
            f"({error}): pass train_split=ValidSplit(5) or early_stopping=True, or monitor 'train_loss'"
        ) from error


@contextmanager
def naming_held_out_rows(net, n_rows):
    """Say which parameters ask for a split that cannot be made."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"early_stopping=True must hold validation_fraction={net.validation_fraction} of the rows out, which "
            f"{n_rows} rows do not allow ({error}): change validation_fraction, or pass early_stopping='train_loss'"
        ) from error


@contextmanager
def naming_embeddings(module):
    """Say what an embedding takes, where it gets numbers that are no integers."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        is_asked = "'indices'" in text and "scalar types" in text
        if not is_asked or not any(isinstance(part, nn.Embedding | nn.EmbeddingBag) for part in module.modules()):
            raise
        raise ValueError(
            f"the Embedding in the module must get integers, got X of another type ({text.splitlines()[0]}): "
            "encode categories by OrdinalEncoder(dtype=int), and let all columns be integers, "
            "or call X.long() in the module's forward"
        ) from error
