"""Progress bars."""

from tqdm.auto import tqdm


class NoBar:
    """Stands for a bar that is not wanted: tqdm starts a thread even for one that it hides."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self, n=1):
        """Do nothing."""

    def set_postfix(self, **numbers):
        """Do nothing."""

    def close(self):
        """Do nothing."""


def make_bar(total, unit, is_shown):
    """Return a progress bar of a search, or what stands for it where none is to be shown."""
    return tqdm(total=total, unit=unit, desc="search") if is_shown else NoBar()
