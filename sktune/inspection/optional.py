"""Libraries that only some need: imported when they are, with a word on what is missing."""


def import_pyplot(what):
    """Return ``matplotlib.pyplot``.

    Parameters
    ----------
    what : str
        Who needs it, as the error calls it.

    Raises
    ------
    ImportError
        If matplotlib is not installed; it names the extra.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f"{what} needs matplotlib: pip install 'sktune[plot]'") from error
    return plt


def import_pandas(what):
    """Return ``pandas``.

    Parameters
    ----------
    what : str
        Who needs it, as the error calls it.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(f"{what} needs pandas: pip install pandas") from error
    return pd


def import_jinja(what):
    """Return ``jinja2``.

    Parameters
    ----------
    what : str
        Who needs it, as the error calls it.

    Raises
    ------
    ImportError
        If Jinja is not installed; it names the extra.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(f"{what} needs Jinja: pip install 'sktune[report]'") from error
    return jinja2
