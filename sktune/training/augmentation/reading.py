"""From the parameter `augment` of a net to its augmentation."""

from sktune.training.augmentation.base import Augmentation
from sktune.training.augmentation.callables import CallableAugmentation
from sktune.training.augmentation.images import ImageAugmentation
from sktune.training.augmentation.table import TableAugmentation

# The names that `augment` may have.
AUGMENTATIONS = {"images": ImageAugmentation, "table": TableAugmentation}


def find_augmentation_class(augment):
    """Return the class of an augmentation that is given by name, class or instance; else None.

    A class of the user's is none: what it does cannot be told from its parameters.
    """
    if isinstance(augment, str):
        return AUGMENTATIONS.get(augment)
    kind = augment if isinstance(augment, type) else type(augment)
    return kind if kind in AUGMENTATIONS.values() else None


def find_function(augment):
    """Return the name of an augmentation that is a function of the user's; else ``""``."""
    if find_augmentation_class(augment) is not None or not callable(augment):
        return ""
    return CallableAugmentation(augment).name


def read_augmentation(augment, params):
    """Return the augmentation that a net is trained with, its parameters checked.

    Parameters
    ----------
    augment : None, str, Augmentation class or instance, or callable
        The net's parameter.
    params : dict
        The net's parameters ``augment__x`` by the names ``x``. They go before those of an instance,
        which stays as it is.

    Returns
    -------
    augmentation : Augmentation, CallableAugmentation or None

    Raises
    ------
    ValueError
        If `augment` is something else, or if a parameter is out of its range.
    """
    kind = find_augmentation_class(augment)
    if kind is not None:
        known = augment.get_params(deep=False) if isinstance(augment, Augmentation) else {}
        augmentation = kind(**{**known, **params})
        augmentation.check()
        return augmentation
    is_callable = callable(augment) and not isinstance(augment, type)
    if augment is not None and not is_callable:
        raise ValueError(
            "augment must be 'images', 'table', an ImageAugmentation, a TableAugmentation or a "
            f"function of a batch, got augment={augment!r}"
        )
    if params:
        names = ", ".join(f"augment__{name}" for name in sorted(params))
        given = "a function" if is_callable else "None"
        raise ValueError(
            f"{names} must come with augment='images' or augment='table', got augment={given}"
        )
    return CallableAugmentation(augment) if is_callable else None
