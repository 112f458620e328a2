"""What the data tell, next to the search."""

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_classifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.model_selection import check_cv, cross_val_score
from sklearn.pipeline import Pipeline

from sktune.inspection.advice.context import least_significant
from sktune.inspection.advice.finding import Finding
from sktune.inspection.records import read_scorer

# LeCun et al. (1998), section 4.3: inputs should have means near 0 and spreads near 1.
# A tenfold difference is far beyond what scaled features show.
LARGEST_MAGNITUDE = 10
SMALLEST_MAGNITUDE = 0.01
# Rows that are enough to see the magnitudes.
MOST_ROWS = 10_000
# From here on, accuracy hides classes: whoever always answers the largest class scores this much.
MAJORITY = 0.8
# Modules of scikit-learn whose estimators depend on the scale of features.
SCALE_DEPENDENT = ("sklearn.svm", "sklearn.neighbors", "sklearn.neural_network")


def find_unscaled(context):
    """Look for features of very different or large magnitude before a network."""
    estimator = context.estimator
    containers = (context.outer, getattr(context.outer, "search_", None), estimator)
    if any(_scales(container) for container in containers) or not _depends_on_scale(context):
        return None
    X = read_numbers(context.X)
    if X is None or X.size == 0:
        return None
    with np.errstate(all="ignore"):
        magnitudes = np.sqrt(np.nanmean(X.astype(float) ** 2, axis=0))
    magnitudes = magnitudes[np.isfinite(magnitudes) & (magnitudes > 0)]
    if len(magnitudes) == 0:
        return None
    low, high = float(magnitudes.min()), float(magnitudes.max())
    if high <= LARGEST_MAGNITUDE and high >= SMALLEST_MAGNITUDE:
        return None
    return Finding(
        code="unscaled",
        severity="warning",
        title="Features are not scaled",
        text=f"The magnitudes of the features reach from {low:.3g} to {high:.3g}, and nothing "
        "before the model scales them.",
        action="Search over make_pipeline(StandardScaler(), model).",
        reference="LeCun et al. 1998, Efficient backprop, section 4.3",
        numbers={"smallest": low, "largest": high},
    )


def _scales(estimator):
    """Tell whether a Pipeline has a step that scales, or one of which this is not known."""
    return isinstance(estimator, Pipeline) and any(
        step not in (None, "passthrough") for _, step in estimator.steps[:-1]
    )


def _depends_on_scale(context):
    """Tell whether the model is a network or another whose results depend on the scale."""
    model = context.estimator
    while isinstance(model, Pipeline):
        model = model.steps[-1][1]
    return context.net is not None or type(model).__module__.startswith(SCALE_DEPENDENT)


def read_numbers(X):
    """Return the numeric columns of some rows of X as an array; None if there are none."""
    if issparse(X):
        return None
    if hasattr(X, "select_dtypes"):
        X = X.select_dtypes("number")
    X = np.asarray(X)[:MOST_ROWS]
    return X if X.ndim == 2 and np.issubdtype(X.dtype, np.number) else None


def find_unbalanced(context):
    """Look for accuracy where one class has nearly all rows."""
    y = np.asarray(context.y)
    if context.record.scorer != "accuracy" or y.ndim != 1 or len(y) == 0:
        return None
    classes, counts = np.unique(y, return_counts=True)
    share = counts.max() / len(y)
    if len(classes) < 2 or share < MAJORITY:
        return None
    return Finding(
        code="unbalanced",
        severity="warning",
        title="Classes are unbalanced under accuracy",
        text=f"{share:.0%} of the rows are of class {classes[counts.argmax()]}, so that accuracy "
        "hardly depends on the others.",
        action="Use scoring='balanced_accuracy' or 'roc_auc', and maybe class_weight='balanced'.",
        reference="He and Garcia 2009, Learning from imbalanced data",
        numbers={"share": float(share)},
    )


def find_full_batches(context):
    """Look for a batch size that takes all training rows at once."""
    batch_size = context.value_of("batch_size")
    n_rows = _count_training_rows(context)
    if not isinstance(batch_size, int) or n_rows is None or 0 < batch_size < n_rows:
        return None
    max_epochs = context.value_of("max_epochs")
    return Finding(
        code="full-batches",
        severity="note",
        title="An epoch is a single step",
        text=f"With batch_size={batch_size}, the {n_rows} training rows of a fit are one batch, so "
        f"that max_epochs={max_epochs} are as many steps.",
        action="Try smaller batches, which take more steps and whose noise helps to generalize.",
        reference="Keskar et al. 2017, On large-batch training for deep learning",
        numbers={"batch_size": batch_size, "n_rows": n_rows, "max_epochs": max_epochs},
    )


def _count_training_rows(context):
    """Return how many rows a fit is trained on; None if it is not known."""
    X = context.X
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    if context.record is not None:
        cv = getattr(context.record.search, "cv", None)
        if not (cv is None or isinstance(cv, int)) or context.record.n_splits < 2:
            # a splitter of the user's own may take any share of the rows
            return None
        n_rows -= -(-n_rows // context.record.n_splits)
    if context.value_of("early_stopping") is True:
        n_rows -= int(np.ceil(context.value_of("validation_fraction", 0.0) * n_rows))
    return n_rows


def find_boosting_better(context):
    """Train gradient boosting on the same folds and see whether it is clearly better."""
    record, search = context.record, context.record.search
    is_class = is_classifier(search.estimator)
    kind = HistGradientBoostingClassifier if is_class else HistGradientBoostingRegressor
    scorer = read_scorer(search, record.metric)
    model = kind(random_state=0)
    cv = check_cv(search.cv, context.y, classifier=is_class)
    scores = cross_val_score(model, context.X, context.y, cv=cv, scoring=scorer)
    score, best = float(scores.mean()), float(record.mean_scores[context.best])
    pair = np.vstack([record.scores[context.best], scores])
    least = float(least_significant(pair, 0, np.array([1]))[0])
    if not score - best > least:
        return None
    return Finding(
        code="boosting-better",
        severity="warning",
        title="Gradient boosting is better",
        text=f"Untuned, it has {record.scoring} {score:.4g} on the same folds; the best candidate "
        f"has {best:.4g}.",
        action="Use it, or see what the network lacks: features, scaling, epochs.",
        reference="Grinsztajn et al. 2022, Why do tree-based models still outperform",
        numbers={"boosting": score, "best": best, "least_significant": least},
    )


def has_same_folds(context):
    """Tell whether the folds of the search can be made again, and X and y suit boosting."""
    search = context.record.search
    if not all(hasattr(search, name) for name in ("estimator", "cv", "scorer_")):
        return False
    if context.X is None or context.y is None or read_numbers(context.X) is None:
        return False
    try:
        n_splits = check_cv(search.cv, context.y).get_n_splits(context.X, context.y)
    except (TypeError, ValueError):
        # a splitter that needs groups
        return False
    is_whole = np.asarray(context.X).shape[1] == read_numbers(context.X).shape[1]
    return is_whole and np.asarray(context.y).ndim == 1 and n_splits == context.record.n_splits
