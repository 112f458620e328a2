"""A forest that predicts the score of parameters, and the shares of its variance."""

import numpy as np
from scipy.stats import qmc
from sklearn.ensemble import ExtraTreesRegressor

# Where an unset value and the zero of a logarithmic scale are, of numbers between 0 and 1.
_UNSET = -1.0
_ZERO = -0.5


def encode(parameter):
    """Return a parameter as numbers for trees: ndarray of shape (n_candidates, n_columns).

    Numbers are put between 0 and 1 on their own scale; categories have a column each.
    """
    if not parameter.is_number:
        # candidates that do not set it have the code -1, which no column has
        codes = parameter.codes[:, np.newaxis]
        return (codes == np.arange(len(parameter.categories))).astype(np.float32)
    numbers = parameter.numbers
    is_placed = np.isfinite(numbers)
    encoded = np.full(len(numbers), _UNSET)
    is_log = parameter.scale == "log" and (numbers[is_placed] >= 0).all()
    if is_log:
        encoded[numbers == 0] = _ZERO
        is_placed = is_placed & (numbers > 0)
    scaled = np.log(numbers[is_placed]) if is_log else numbers[is_placed]
    if len(scaled) > 0:
        width = np.ptp(scaled)
        encoded[is_placed] = (scaled - scaled.min()) / (width if width > 0 else 1.0)
    return encoded[:, np.newaxis].astype(np.float32)


def fit_forest(columns, scores, n_trees, random_state):
    """Fit the forest, and predict each candidate by the trees that have not seen it.

    Trees with random thresholds (Geurts et al. 2006) find interactions without main effects too.

    Returns
    -------
    forest : ExtraTreesRegressor
    predictions : ndarray of shape (n_candidates,)
    """
    forest = ExtraTreesRegressor(
        n_trees,
        min_samples_leaf=2,
        bootstrap=True,
        oob_score=True,
        random_state=random_state,
    )
    forest.fit(np.hstack(columns), scores)
    return forest, forest.oob_prediction_


def decompose(forest, columns, subsets, n_samples, random_state):
    """Return the shares of the forest's variance by parameter and by pair of parameters.

    The functional analysis of variance (Hutter et al. 2014) with the values that each parameter
    had, taken as independent. ``V_u = Cov(f(A), f(A_u, B_-u))`` over quasi-random samples A and
    B (Sobol' 2001, eq. 8); of a pair, ``V_ij - V_i - V_j``, divided by ``V = Var(f)``.

    Parameters
    ----------
    forest : ExtraTreesRegressor
    columns : list of ndarray of shape (n_candidates, n_columns)
        By parameter.
    subsets : list of tuple of int
        All parameters, and then the pairs.
    n_samples, random_state : int

    Returns
    -------
    shares : dict of tuple of int to (float, float)
        The share of the forest, and the standard deviation of the shares of its trees.
    """
    n_parameters = len(columns)
    sampler = qmc.Sobol(2 * n_parameters, seed=random_state)
    rows = (sampler.random(n_samples) * len(columns[0])).astype(int)
    own, other = rows[:, :n_parameters], rows[:, n_parameters:]
    designs = [own, other]
    for subset in subsets:
        mixed = other.copy()
        mixed[:, subset] = own[:, subset]
        designs.append(mixed)
    rows = np.concatenate(designs)
    table = np.hstack([column[rows[:, i]] for i, column in enumerate(columns)])
    # tree by tree, as the values of all at once may be large
    total = np.zeros((len(designs), n_samples))
    by_tree = []
    for tree in forest.estimators_:
        values = tree.predict(table).reshape(len(designs), n_samples)
        total += values
        by_tree.append(_shares(values, subsets))
    of_forest = _shares(total / len(by_tree), subsets)
    deviations = np.std(by_tree, axis=0)
    return {s: (of_forest[i], deviations[i]) for i, s in enumerate(subsets)}


def _shares(values, subsets):
    """Return the share of each subset: ndarray of shape (n_subsets,).

    `values` has the shape (n_designs, n_samples); the first two designs are the samples A and B.
    """
    first, mixed = values[0], values[2:]
    # both samples together make the mean more exact (Janon et al. 2014)
    mean = (first + mixed).mean(axis=1, keepdims=True) / 2
    closed = ((first - mean) * (mixed - mean)).mean(axis=1)
    total = values[:2].var()
    if total == 0:
        return np.zeros(len(subsets))
    shares = closed / total
    position = {subset: number for number, subset in enumerate(subsets)}
    for subset in subsets:
        if len(subset) == 2:
            own = closed[position[subset[:1]]] + closed[position[subset[1:]]]
            shares[position[subset]] -= own / total
    # an estimate of a variance may fall a little below 0
    return np.clip(shares, 0.0, 1.0)
