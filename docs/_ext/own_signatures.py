"""Give functions their own signatures back, once autodoc has written them.

``autodoc_preserve_defaults`` replaces the defaults in the signature of a documented function by
texts of their source. Pictures of later pages call these functions, and read the defaults.
"""


def restore_signature(app, what, name, obj, options, args, returns):
    """Drop the signature that autodoc has set on a function, or on the constructor of a class."""
    function = obj.__init__ if isinstance(obj, type) else obj
    function = getattr(function, "__func__", function)
    known = vars(function) if hasattr(function, "__dict__") else {}
    defaults = [p.default for p in getattr(known.get("__signature__"), "parameters", {}).values()]
    if any(type(default).__module__.startswith("sphinx.") for default in defaults):
        del function.__signature__


def setup(app):
    """Tell Sphinx to call `restore_signature` after its own work on a signature."""
    app.connect("autodoc-process-signature", restore_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
