"""The network within an estimator, and its parameters as the estimator calls them."""

from sklearn.pipeline import Pipeline
from skorch import NeuralNet


def find_net(estimator):
    """Return the network that an estimator is or ends in, and the prefix of its parameters.

    Parameters
    ----------
    estimator : skorch net, or Pipeline that ends in one

    Returns
    -------
    net : skorch net
    prefix : str
        Such as ``"mlp__"``, or ``""`` for a net.

    Raises
    ------
    TypeError
        If there is no network.
    """
    net = estimator
    prefix = ""
    while isinstance(net, Pipeline) and net.steps:
        name, net = net.steps[-1]
        prefix += f"{name}__"
    if not isinstance(net, NeuralNet):
        raise TypeError(
            "estimator must be a network, as NeuralNetClassifier, or a Pipeline that ends in one, "
            f"got {type(net).__name__}"
        )
    return net, prefix


def transform_rows(estimator, X):
    """Return the rows as the network at the end of a fitted Pipeline gets them."""
    while isinstance(estimator, Pipeline):
        if len(estimator.steps) > 1:
            X = estimator[:-1].transform(X)
        estimator = estimator.steps[-1][1]
    return X
