"""Names that the user gives, and the nearest known name where one is unknown."""

from difflib import get_close_matches


def check_name(what, name, known):
    """Check that a name is known.

    Parameters
    ----------
    what : str
        What is named, as the error calls it.
    name : object
        What the user gave.
    known : collection of str

    Raises
    ------
    ValueError
        If `name` is not among `known`; it shows the nearest of them.
    """
    if name not in known:
        raise ValueError(
            f"{what} must be one of {sorted(known)}, got {name!r}{did_you_mean(name, known)}"
        )


def did_you_mean(name, known):
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or ``""`` if none is near."""
    near = get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def class_name(component):
    """Return the name of a component's class; the component may be the class itself."""
    return getattr(component, "__name__", type(component).__name__)
