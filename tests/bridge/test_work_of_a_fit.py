"""What a fit costs beside its training: the same for few candidates and for many."""

import sys
from collections import Counter

import pytest
import skorch
from parity import RAGGED, X, search, y
from sklearn.base import clone

from sktune import NeuralNetClassifier
from sktune.bridge.reading import follow_spec, read_spec
from sktune.estimators.components import Components
from sktune.modules.mlp import MLP
from sktune.training.rows import convert_table

NET = NeuralNetClassifier(module__hidden=(4,), max_epochs=1, random_state=0)
WATCHED = {
    function.__code__: name
    for name, function in {
        "nets initialized": Components.initialize,
        "nets read": read_spec,
        "nets that follow": follow_spec,
        "modules built": MLP.__init__,
        "tables converted": convert_table,
        "outputs computed": skorch.NeuralNet.forward_iter,
    }.items()
}


def count(net, n_candidates):
    """Return how often some functions are called in a search."""
    calls = Counter()

    def note(frame, event, _):
        if event == "call" and frame.f_code in WATCHED:
            calls[WATCHED[frame.f_code]] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        search(net, [{"lr": 0.001 * (1 + n)} for n in range(n_candidates)], X, y)
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}])
def test_candidates_begin_as_the_first_one_and_are_scored_without_a_net(options):
    net = clone(NET).set_params(**options)
    few, many = count(net, 3), count(net, 12)
    n_folds = len(RAGGED)

    assert many.pop("nets that follow") == few.pop("nets that follow") + 9 * n_folds
    assert many == few
    assert few == {
        "nets initialized": n_folds,
        "nets read": n_folds,
        "modules built": n_folds,
        "tables converted": 1,
    }
