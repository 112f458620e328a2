"""Whether an estimator has the parameters that a space names."""

from sklearn.base import clone

from sktune.runtime.names import did_you_mean


def check_settable(what, estimator, params):
    """Raise a ValueError unless parameters of a candidate can be set.

    Parameters
    ----------
    what : str
        What names the parameters, as the error calls it.
    estimator : estimator object
    params : dict
    """
    try:
        clone(estimator).set_params(**clone(params, safe=False))
    except (ValueError, TypeError, AttributeError) as error:
        known = estimator.get_params()
        unknown = [name for name in params if name not in known]
        hint = did_you_mean(unknown[0], known) if unknown else ""
        names = ", ".join(map(repr, unknown or params))
        raise ValueError(
            f"{what} must name parameters of the estimator, got {names}{hint} ({error})"
        ) from error
