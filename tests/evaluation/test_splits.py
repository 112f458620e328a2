"""Splits in a search that name rows are restricted or refused."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_selection import RFECV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, PredefinedSplit, check_cv
from sklearn.pipeline import Pipeline, make_pipeline
from skorch.dataset import ValidSplit

from sktune import HoldoutSearch, NeuralNetClassifier
from sktune.evaluation.splits import check_splits

N_ROWS = 60
rng = np.random.default_rng(0)
X = rng.normal(size=(N_ROWS, 3))
y = (X[:, 0] + rng.normal(size=N_ROWS) > 0).astype(int)
FOLD = np.arange(N_ROWS) % 4 - 1  # every fourth row is trained on always
PAIRS = [(np.arange(30), np.arange(30, 50)), (np.arange(20, 50), np.arange(20))]
FEW = [(np.arange(8), np.arange(8, 12))]


class Fitted(LogisticRegression):
    """Records the first column of the tables that it is fitted to."""

    seen = []

    def fit(self, X, y):
        self.seen.append(sorted(X[:, 0]))
        return super().fit(X, y)


class NeverFitted(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        raise AssertionError("splits must be checked before anything is fitted")


def search(splits, estimator=None, **grid):
    return GridSearchCV(estimator or Fitted(), grid or {"C": [0.1, 1.0]}, cv=splits)


def holdout(inner, **settings):
    return HoldoutSearch(inner, **{"random_state": 0, "n_resamples": 5} | settings)


@pytest.mark.parametrize(
    "wrap", [lambda search: search, make_pipeline, lambda s: Pipeline([("a", make_pipeline(s))])]
)
def test_a_predefined_split_names_the_same_rows_after_sealing(wrap):
    Fitted.seen.clear()
    inner = wrap(search(PredefinedSplit(FOLD)))

    tuned = holdout(inner).fit(X, y)

    is_left = np.isin(np.arange(N_ROWS), tuned.dev_indices_)
    expected = [sorted(X[is_left & (fold != FOLD), 0]) for fold in range(3)]
    assert Fitted.seen[:6] == expected * 2
    assert Fitted.seen[6] == sorted(X[is_left, 0])
    assert Fitted.seen[7:] == expected  # of the baseline
    assert tuned.n_splits_ == 3


def test_the_search_given_keeps_its_split():
    inner = search(PredefinedSplit(FOLD))

    holdout(inner).fit(X, y)

    assert len(inner.cv.test_fold) == N_ROWS


def test_a_predefined_split_of_a_step_before_the_search_is_restricted():
    model = make_pipeline(
        RFECV(LogisticRegression(), cv=PredefinedSplit(FOLD)), search(PredefinedSplit(FOLD))
    )

    tuned = holdout(model).fit(X, y)

    assert tuned.search_[0].cv.test_fold.tolist() == FOLD[tuned.dev_indices_].tolist()


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        (
            np.where(np.arange(N_ROWS) == 7, 0, FOLD + 1),
            "cv must keep rows .* but all of fold 0 are sealed",
        ),
        (
            np.where(np.arange(N_ROWS) == 7, -1, 0),
            "cv must keep rows to train on, but all .* are of fold 0",
        ),
        (
            FOLD[1:],
            "cv must have a fold for each of the 60 rows of X, got a PredefinedSplit of 59 rows",
        ),
    ],
)
def test_a_predefined_split_that_cannot_be_restricted_is_named(fold, message):
    fold = np.array(fold)
    if len(fold) == N_ROWS and fold.min() == 0:
        fold[fold == 0] = 1
        fold[7] = 0
    sealed = PredefinedSplit(np.where(np.arange(N_ROWS) % 10 == 7, 0, -1))
    Fitted.seen.clear()

    with pytest.raises(ValueError, match=message):
        holdout(search(PredefinedSplit(fold)), splitter=sealed).fit(X, y)
    assert not Fitted.seen


class OwnIndices:
    """A user-defined splitter that holds splits."""

    def __init__(self, splits):
        self.splits = splits

    def split(self, X, y=None, groups=None):
        yield from self.splits

    def get_n_splits(self, X=None, y=None, groups=None):
        return len(self.splits)


class OwnColumn(OwnIndices):
    """A user-defined splitter that holds a number for each row."""

    def __init__(self, years):
        self.years = years

    def split(self, X, y=None, groups=None):
        yield np.flatnonzero(self.years == 0), np.flatnonzero(self.years)


class Wrapping(OwnIndices):
    def __init__(self, inner):
        self.inner = inner


def fixed_rows(train, test):
    """Return a splitter with rows in none of its attributes."""

    class Fixed(OwnIndices):
        def __init__(self):
            pass

        def split(self, X, y=None, groups=None):
            yield train, test

        def get_n_splits(self, X=None, y=None, groups=None):
            return 1

    return Fixed()


class CountsRows(OwnIndices):
    def __init__(self):
        pass

    def split(self, X, y=None, groups=None):
        if len(X) != N_ROWS:
            raise RuntimeError(f"expected {N_ROWS} rows")
        yield from PAIRS


class Halves(OwnIndices):
    """A user-defined splitter that divides the rows it gets, by its own random state."""

    def __init__(self):
        self.rng, self.fractions = np.random.default_rng(0), [0.5, 0.5]

    def split(self, X, y=None, groups=None):
        order = self.rng.permutation(len(X))
        yield order[: len(X) // 2], order[len(X) // 2 :]

    def get_n_splits(self, X=None, y=None, groups=None):
        return 1


NAMING = {
    "list": lambda: PAIRS,
    "lists of ints": lambda: [(list(range(30)), list(range(30, 48)))],
    "tuple": lambda: tuple(PAIRS),
    "ranges": lambda: [(range(30), range(30, 40))],
    "generator": lambda: (pair for pair in PAIRS),
    "of scikit-learn": lambda: KFold(3).split(X),
    "wrapped": lambda: check_cv(PAIRS),
    "indices": lambda: OwnIndices(PAIRS),
    "column": lambda: OwnColumn(np.arange(N_ROWS) % 2),
    "list of years": lambda: OwnColumn([0, 1] * 30),
    "wrapping": lambda: Wrapping(PredefinedSplit(FOLD)),
    "wrapping twice": lambda: Wrapping(Wrapping(check_cv(PAIRS))),
    "subclass": lambda: type("Own", (PredefinedSplit,), {})(FOLD),
    "fixed": lambda: fixed_rows(np.arange(10), np.arange(10, 15)),
    "fixed, and many": lambda: fixed_rows(np.arange(30), np.arange(30, 40)),
    "fixed, and too many": lambda: fixed_rows(np.arange(30), np.arange(30, 60)),
    "counts": CountsRows,
}


@pytest.mark.parametrize("kind", NAMING)
def test_splits_that_name_rows_are_refused_before_anything_is_fitted(kind):
    cv = NAMING[kind]()
    Fitted.seen.clear()

    with pytest.raises(ValueError, match="cv"):
        holdout(search(cv)).fit(X, y)
    assert not Fitted.seen
    if kind not in ("counts",):  # which nothing but the table that it gets tells
        with pytest.raises(ValueError, match="cv"):
            holdout(make_pipeline(NeverFitted(), search(cv))).fit(X, y)
    if kind == "generator":
        assert len(list(cv)) == 2


def test_generators_are_named_and_not_used_up():
    cv = KFold(3).split(X)

    with pytest.raises(
        ValueError, match="gridsearchcv__cv must not name rows, .* got splits in a generator: use"
    ):
        holdout(make_pipeline(search(cv))).fit(X, y)
    assert len(list(cv)) == 3


@pytest.mark.parametrize(
    ("inner", "name"),
    [
        (lambda: search(3, search(FEW), estimator__C=[1.0]), "estimator__cv"),
        (lambda: search(3, search(PredefinedSplit(FOLD)), estimator__C=[1.0]), "estimator__cv"),
        (lambda: search(3, search(KFold(2).split(X)), estimator__C=[1.0]), "estimator__cv"),
        (
            lambda: search(3, make_pipeline(search(FEW)), gridsearchcv__refit=[True]),
            "estimator__gridsearchcv__cv",
        ),
        (
            lambda: search(
                3, CalibratedClassifierCV(LogisticRegression(), cv=FEW), method=["sigmoid"]
            ),
            "estimator__cv",
        ),
        (lambda: search(3, search(2), cv=[2, FEW]), "cv"),
        (
            lambda: search(3, NeuralNetClassifier(train_split=ValidSplit(FEW)), lr=[0.1]),
            "estimator__train_split",
        ),
    ],
)
def test_splits_of_parts_of_the_rows_are_refused(inner, name):
    with pytest.raises(ValueError, match=f"^{name} must not name rows"):
        holdout(inner()).fit(X, y)


class Noise(LogisticRegression):
    """An estimator whose parameter `cv` is not about splits."""

    def __init__(self, C=1.0, cv=(0.1, 0.2)):
        super().__init__(C=C)
        self.cv = cv


@pytest.mark.parametrize(
    "inner",
    [
        lambda: search(3),
        lambda: search(None),
        lambda: search(KFold(3, shuffle=True)),
        lambda: search(3, search(2), estimator__C=[1.0]),
        lambda: search(3, search(2), cv=[2, KFold(3)]),
        lambda: search(3, Noise()),
        lambda: search(Halves()),
    ],
)
def test_what_names_no_rows_goes_through(inner):
    assert holdout(inner()).fit(X, y).test_score_ >= 0


def test_a_validation_split_by_number_names_no_rows():
    check_splits(search(3, NeuralNetClassifier(train_split=ValidSplit(3)), lr=[0.1]), N_ROWS)


def test_a_trial_of_a_splitter_draws_nothing_from_it():
    cv = Halves()
    expected = next(Halves().split(np.zeros(48)))[0]
    Fitted.seen.clear()

    tuned = holdout(search(cv)).fit(X, y)

    assert Fitted.seen[0] == sorted(X[tuned.dev_indices_[expected], 0])
