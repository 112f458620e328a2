"""Libraries that only some need: imported when they are, with a word on what is missing."""

from importlib import import_module


def import_pyplot(what):
    """Return ``matplotlib.pyplot``; see :func:`import_optional`."""
    return import_optional("matplotlib.pyplot", what, "matplotlib", "'sktune[plot]'")


def import_pandas(what):
    """Return ``pandas``; see :func:`import_optional`."""
    return import_optional("pandas", what, "pandas", "pandas")


def import_jinja(what):
    """Return ``jinja2``; see :func:`import_optional`."""
    return import_optional("jinja2", what, "Jinja", "'sktune[report]'")


def import_optuna(what):
    """Return ``optuna``; see :func:`import_optional`."""
    return import_optional("optuna", what, "Optuna", "'sktune[bayes]'")


def import_optional(module, what, name, requirement):
    """Return a module of a library that may not be installed.

    Parameters
    ----------
    module : str
    what : str
        Who needs it, as the error calls it.
    name : str
        How the error calls the library.
    requirement : str
        What pip installs.

    Raises
    ------
    ImportError
        If it is not installed; it names the requirement.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} needs {name}: pip install {requirement}") from error
