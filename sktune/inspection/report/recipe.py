"""The Python code that repeats a search."""

from collections.abc import Mapping

from sklearn.pipeline import Pipeline

from sktune.inspection.report.code_writer import CodeWriter

# What searches call their space.
SPACES = ("param_distributions", "param_grid", "search_spaces", "stages")


def write_recipe(search):
    """Return the code that makes a search again and fits it.

    Parameters
    ----------
    search : estimator object or dict
        As it was given to the report.

    Returns
    -------
    code : str
        ``""`` for results without their search.
    """
    if isinstance(search, Mapping) or not hasattr(search, "get_params"):
        return ""
    writer = _NamingWriter()
    core = find_unfitted(search)
    lines = []
    estimator = getattr(core, "estimator", None)
    lines.append(f"estimator = {writer.write(estimator)}")
    writer.give_name(estimator, "estimator")
    space = next((getattr(core, name) for name in SPACES if hasattr(core, name)), None)
    if space is not None:
        lines.append(f"space = {writer.write(space)}")
        writer.give_name(space, "space")
    lines.append(f"search = {writer.write(core)}")
    last = "search"
    if core is not search:
        writer.give_name(core, "search")
        lines.append(f"tuned = {writer.write(search)}")
        last = "tuned"
    lines.append(f"{last}.fit(X, y)")
    remarks = _list_remarks(writer.unknown)
    return "\n".join([*writer.list_imports(), "", *remarks, *lines])


def find_unfitted(search):
    """Return the search that a HoldoutSearch or a Pipeline was made with."""
    while True:
        if isinstance(search, Pipeline):
            search = search.steps[-1][1]
        elif hasattr(search, "search") and hasattr(search, "test_size"):
            # a HoldoutSearch fits a clone
            search = search.search
        else:
            return search


class _NamingWriter(CodeWriter):
    """Writes the names of things that were written before."""

    def __init__(self):
        super().__init__()
        self._names = {}

    def give_name(self, thing, name):
        self._names[id(thing)] = name

    def write(self, value):
        return self._names.get(id(value)) or super().write(value)


def _list_remarks(unknown):
    if not unknown:
        return []
    texts = [f"#   {text[:200]}" for text in dict.fromkeys(unknown)]
    return ["# `...` stands for what cannot be written as code:", *texts]
