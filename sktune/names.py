"""What to say about a name that nobody knows."""

from difflib import get_close_matches


def check_name(what, name, known):
    """Raise a ValueError that shows the nearest known name unless `name` is among `known`."""
    if name not in known:
        raise ValueError(f"{what} must be one of {sorted(known)}, got {name!r}{did_you_mean(name, known)}")


def did_you_mean(name, known):
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or nothing."""
    near = get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
