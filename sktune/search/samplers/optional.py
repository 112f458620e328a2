"""Optuna, which is not always installed."""

from contextlib import contextmanager


def import_optuna():
    """Return the optuna package; an ImportError that says how to install it if it is missing."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            'BayesSearchCV must have Optuna, which is not installed: pip install "sktune[bayes]"'
        ) from error
    return optuna


@contextmanager
def quiet_optuna():
    """Let Optuna print nothing of studies that are made or opened."""
    logging = import_optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)
