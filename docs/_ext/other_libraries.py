"""Resolve references to names of other libraries by the addresses of their pages.

Sphinx's own way (intersphinx) downloads an inventory of each library; these pages are built
without the network.
"""

from docutils import nodes

SKLEARN = "https://scikit-learn.org/stable"
TORCH = "https://docs.pytorch.org/docs/stable"
SKORCH = "https://skorch.readthedocs.io/en/stable"
SCIPY = "https://docs.scipy.org/doc/scipy/reference"
OPTUNA = "https://optuna.readthedocs.io/en/stable/reference"

# Modules have a page under a name of their own.
MODULES = {
    "sklearn.metrics": f"{SKLEARN}/api/sklearn.metrics.html",
    "sklearn.model_selection": f"{SKLEARN}/api/sklearn.model_selection.html",
    "scipy.stats": f"{SCIPY}/stats.html",
    "torch.optim": f"{TORCH}/optim.html",
    "torch.nn": f"{TORCH}/nn.html",
    "torch.nn.init.calculate_gain": f"{TORCH}/nn.init.html#torch.nn.init.calculate_gain",
    "optuna.distributions": f"{OPTUNA}/distributions.html",
    "optuna.visualization": f"{OPTUNA}/visualization/index.html",
    "save_params": f"{SKORCH}/net.html#skorch.net.NeuralNet.save_params",
    "skorch.NeuralNet": f"{SKORCH}/net.html#skorch.net.NeuralNet",
    "skorch.NeuralNetClassifier": f"{SKORCH}/classifier.html#skorch.classifier.NeuralNetClassifier",
    "skorch.NeuralNetRegressor": f"{SKORCH}/regressor.html#skorch.regressor.NeuralNetRegressor",
}
# Classes and functions have a page each, by the first part of their name.
PAGES = {
    "sklearn": SKLEARN + "/modules/generated/{name}.html",
    "torch": TORCH + "/generated/{name}.html",
    "scipy": SCIPY + "/generated/{name}.html",
}


def find_address(name):
    """Return the address of the page of a name, or None if it is of no library known here."""
    if name in MODULES:
        return MODULES[name]
    page = PAGES.get(name.partition(".")[0])
    return None if page is None else page.format(name=name)


def resolve(app, env, node, contnode):
    """Return a link for a reference that Sphinx could not resolve, or None."""
    if node.get("refdomain") != "py":
        return None
    address = find_address(node["reftarget"])
    if address is None:
        return None
    return nodes.reference("", "", contnode, internal=False, refuri=address)


def setup(app):
    """Tell Sphinx to call `resolve`."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
