"""Writing objects as the Python code that makes them."""

import ast
import dataclasses
import inspect
import math
import sys

import numpy as np


class CodeWriter:
    """Turns values into expressions, and remembers what these need.

    Attributes
    ----------
    unknown : list of str
        The texts of values that no code was found for; ``...`` stands in their place.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sktune.inspection.report.code_writer import CodeWriter
    >>> writer = CodeWriter()
    >>> writer.write({"lr": loguniform(1e-4, 0.1)})
    "{'lr': loguniform(0.0001, 0.1)}"
    >>> writer.list_imports()
    ['from scipy.stats import loguniform']
    """

    def __init__(self):
        self.unknown = []
        # (module, name in the module) by the name in the code
        self._imported = {}
        # lines that must run before the imports
        self._enabled = []

    def write(self, value):
        """Return an expression that makes a value equal to the given one."""
        for write in (
            _write_constant,
            _write_container,
            _write_array,
            _write_named,
            _write_distribution,
            _write_dataclass,
            _write_estimator,
            _write_by_repr,
        ):
            code = write(self, value)
            if code is not None:
                return code
        self.unknown.append(f"{type(value).__name__}: {' '.join(repr(value).split())}")
        return "..."

    def write_call(self, name, arguments, n_positional=0):
        """Return a call; one that is too long for a line has an argument on each.

        Parameters
        ----------
        name : str
        arguments : dict of str to str
            Expressions by the arguments' names.
        n_positional : int, default=0
            How many of the first ones are given without their names.
        """
        names = list(arguments)
        parts = [arguments[key] for key in names[:n_positional]]
        # names that are none in Python go as a dictionary
        odd = [key for key in names[n_positional:] if not key.isidentifier()]
        parts += [f"{key}={arguments[key]}" for key in names[n_positional:] if key not in odd]
        if odd:
            parts.append("**{" + ", ".join(f"{key!r}: {arguments[key]}" for key in odd) + "}")
        return _join(f"{name}(", parts, ")")

    def name_of(self, thing):
        """Return the name under which a class or function is imported; None if it cannot be."""
        name = getattr(thing, "__qualname__", "")
        module = _find_public_module(thing, name)
        if module is None:
            return None
        if module == "builtins":
            return name
        if module == "sklearn.model_selection" and name.startswith("Halving"):
            line = "from sklearn.experimental import enable_halving_search_cv  # noqa: F401"
            self._enabled = [line]
        alias = name
        while self._imported.setdefault(alias, (module, name)) != (module, name):
            alias += "_"
        return alias

    def list_imports(self):
        """Return the lines that import what the code has named."""
        modules = {}
        for alias, (module, name) in self._imported.items():
            text = name if alias == name else f"{name} as {alias}"
            modules.setdefault(module, []).append(text)
        lines = [f"from {module} import {', '.join(sorted(modules[module]))}" for module in modules]
        return [*self._enabled, *sorted(lines)]


def _join(start, parts, end):
    """Join the parts of a call or a container on one line, or with a line for each."""
    line = start + ", ".join(parts) + end
    if len(line) <= 80 and "\n" not in line:
        return line
    inner = "".join("    " + part.replace("\n", "\n    ") + ",\n" for part in parts)
    return f"{start}\n{inner}{end}"


def _write_constant(writer, value):
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str | bytes):
        return repr(value) if type(value).__module__ == "builtins" else None
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else f"float('{value}')"
    return None


def _write_container(writer, value):
    if type(value) is dict:
        parts = [f"{writer.write(key)}: {writer.write(item)}" for key, item in value.items()]
        return _join("{", parts, "}")
    if type(value) is list:
        return _join("[", [writer.write(item) for item in value], "]")
    if type(value) is tuple:
        parts = [writer.write(item) for item in value]
        return f"({parts[0]},)" if len(parts) == 1 else _join("(", parts, ")")
    if type(value) is set and value:
        return _join("{", [writer.write(item) for item in sorted(value, key=repr)], "}")
    return None


def _write_array(writer, value):
    # a large array is data, not a setting
    is_small = isinstance(value, np.ndarray) and value.size <= 200
    if not is_small or value.dtype.kind not in "biufU":
        return None
    items = writer.write(value.tolist())
    return f"{writer.name_of(np.array)}({items}, dtype={value.dtype.name!r})"


def _write_named(writer, value):
    """Write a class or a function by its name."""
    if isinstance(value, type) or inspect.isroutine(value):
        return writer.name_of(value)
    return None


def _write_distribution(writer, value):
    """Write a frozen distribution of scipy's, whose own repr does not tell its arguments."""
    dist = getattr(value, "dist", None)
    module = sys.modules.get("scipy.stats")
    if dist is None or not hasattr(value, "args") or not hasattr(module, dist.name):
        return None
    alias = dist.name
    while writer._imported.setdefault(alias, ("scipy.stats", dist.name))[0] != "scipy.stats":
        alias += "_"
    arguments = [writer.write(argument) for argument in value.args]
    arguments += [f"{name}={writer.write(given)}" for name, given in value.kwds.items()]
    return f"{alias}({', '.join(arguments)})"


def _write_dataclass(writer, value):
    if not dataclasses.is_dataclass(value):
        return None
    name = writer.name_of(type(value))
    if name is None:
        return None
    given = {
        field.name: writer.write(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if field.init and not _is_equal(getattr(value, field.name), field.default)
    }
    return writer.write_call(name, given)


def _write_estimator(writer, value):
    """Write an estimator with the parameters that are not its defaults."""
    if isinstance(value, type) or not hasattr(value, "get_params"):
        return None
    name = writer.name_of(type(value))
    if name is None:
        return None
    defaults = inspect.signature(type(value).__init__).parameters
    given = {}
    params = value.get_params(deep=False)
    # in the order of the signature, what is not in it at last
    for key in sorted(params, key=lambda key: _position(key, defaults)):
        setting = params[key]
        default = defaults[key].default if key in defaults else inspect.Parameter.empty
        if not _is_equal(setting, default):
            given[key] = writer.write(setting)
    return writer.write_call(name, given)


def _position(key, parameters):
    """Return where a parameter stands in a signature."""
    names = list(parameters)
    return names.index(key) if key in parameters else len(names)


def _write_by_repr(writer, value):
    """Write an object whose repr is a call of its class, such as a splitter's."""
    text = repr(value)
    try:
        call = ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
    is_call = isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    if not is_call or call.func.id != type(value).__name__ or _has_other_names(call):
        return None
    name = writer.name_of(type(value))
    return None if name is None else name + text.removeprefix(call.func.id)


def _has_other_names(call):
    """Tell whether the arguments of a call need names that are not imported."""
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return any(isinstance(node, ast.Name) for value in values for node in ast.walk(value))


def _is_equal(value, default):
    """Tell whether a setting is its default; what cannot be compared is not."""
    if value is default:
        return True
    if type(value) is not type(default):
        return False
    if isinstance(value, float) and math.isnan(value):
        return math.isnan(default)
    return isinstance(value, bool | int | float | str | tuple) and value == default


def _find_public_module(thing, name):
    """Return the shortest module path that has a thing under its name; None if none has.

    ``sklearn.model_selection._split`` is not for users; ``sklearn.model_selection`` is.
    """
    parts = (getattr(thing, "__module__", None) or "").split(".")
    if not name.isidentifier() or parts == ["__main__"]:
        return None
    for length in range(1, len(parts) + 1):
        path = ".".join(parts[:length])
        if getattr(sys.modules.get(path), name, None) is thing:
            return path
    return None
