"""Each rule has a search that it fires on and one that it does not; odd searches are no error."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import loguniform, uniform
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingRandomSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sktune import HoldoutSearch, NeuralNetClassifier, StagedSearch
from sktune.inspection import Finding, Findings, diagnose, list_important
from sktune.inspection.advice import curve_rules, data_rules, score_rules, space_rules
from sktune.inspection.advice.context import Context, make_context
from sktune.inspection.advice.rules import RULES
from sktune.inspection.records import CurveTable
from sktune.inspection.records.parameters import make_parameter

X, Y = make_classification(60, 4, random_state=0)
EPOCHS = np.arange(40)
FALL = np.exp(-EPOCHS / 4)


def results_of(params, scores, train=None):
    """Return a cv_results_ of scores of shape (n_candidates, n_splits)."""
    scores = np.asarray(scores, dtype=float)
    results = {"params": params, "mean_test_score": scores.mean(axis=1)}
    for split, column in enumerate(scores.T):
        results[f"split{split}_test_score"] = column
    if train is not None:
        results["mean_train_score"] = np.mean(train, axis=1)
        for split, column in enumerate(np.asarray(train, dtype=float).T):
            results[f"split{split}_train_score"] = column
    return results


def context_of(params, scores, *, train=None, scoring="accuracy", spaces=None, net=None, **given):
    """Return the Context of results, with a scoring, spaces and a network."""
    context = make_context(results_of(params, scores, train))
    record = replace(context.record, scoring=scoring, scorer=scoring)
    for name, space in (spaces or {}).items():
        values = [candidate[name] for candidate in params]
        record.parameters[name] = make_parameter(name, values, [True] * len(values), space)
    return replace(context, record=record, net=net, estimator=net, **given)


def curve_context(train, valid=None, **params):
    """Return the Context of a network with one curve."""
    train = np.asarray(train, dtype=float)
    given = {"max_epochs": len(train), **params}
    net = NeuralNetClassifier(**given)
    valid = np.full(len(train), np.nan) if valid is None else np.asarray(valid, dtype=float)
    lr = np.full(len(train), net.lr)
    shaped = [values.reshape(1, 1, -1) for values in (train, valid, lr)]
    curves = CurveTable(*shaped, n_epochs=np.array([[len(train)]]))
    return Context(None, curves, 0, net, net, net)


SWINGING = np.where(EPOCHS % 2, 0.3, 0.8) - EPOCHS / 100

CURVES = {
    "lr-too-small": (curve_rules.find_lr_too_small, (2 - EPOCHS / 100,), (FALL,)),
    "still-improving": (curve_rules.find_still_improving, (np.exp(-EPOCHS / 18),), (FALL,)),
    "swings": (curve_rules.find_lr_too_large, (SWINGING,), (FALL,)),
    "rises": (curve_rules.find_lr_too_large, (FALL + (EPOCHS / 40) ** 4,), (FALL,)),
    "nan": (curve_rules.find_diverged, (np.where(EPOCHS < 30, FALL, np.nan),), (FALL,)),
    "grows": (curve_rules.find_diverged, (1 + EPOCHS,), (SWINGING,)),
    "late": (curve_rules.find_rising_validation_loss, (FALL, FALL + EPOCHS / 40), (FALL, FALL)),
}


@pytest.mark.parametrize(("rule", "bad", "good"), CURVES.values(), ids=CURVES)
def test_curve_rule(rule, bad, good):
    assert isinstance(rule(curve_context(*bad)), Finding)
    assert rule(curve_context(*good)) is None


def test_stopped_early_compares_with_max_epochs():
    assert curve_rules.find_stopped_early(curve_context(FALL, max_epochs=200)) is not None
    assert curve_rules.find_stopped_early(curve_context(FALL, max_epochs=50)) is None


def test_noisy_batches_needs_small_batches():
    noisy = FALL + 0.2 * (EPOCHS % 2)

    assert curve_rules.find_noisy_batches(curve_context(noisy, batch_size=4)) is not None
    assert curve_rules.find_noisy_batches(curve_context(noisy, batch_size=64)) is None
    assert curve_rules.find_noisy_batches(curve_context(FALL, batch_size=4)) is None


def test_loss_gap():
    gap = curve_rules.find_loss_gap(curve_context(FALL, 4 * FALL))

    assert gap.numbers["times"] == pytest.approx(4)
    assert curve_rules.find_loss_gap(curve_context(FALL, 2 * FALL)) is None
    # the best epoch counts, not the last
    late = curve_rules.find_loss_gap(curve_context(FALL, FALL + (EPOCHS / 40) ** 4))
    assert late is None


def test_full_batches():
    X = np.zeros((120, 2))
    net = NeuralNetClassifier(batch_size=80, early_stopping=False)
    params = [{"lr": rate} for rate in (0.1, 0.2)]

    # 80 of 120 rows train in each of three folds
    assert data_rules.find_full_batches(context_of(params, FLAT[:2], net=net, X=X)) is not None
    fewer = context_of(params, FLAT[:2], net=net, X=X[:100])
    assert data_rules.find_full_batches(fewer) is not None
    larger = context_of(params, FLAT[:2], net=net, X=np.zeros((123, 2)))
    assert data_rules.find_full_batches(larger) is None
    alone = Context(None, None, 0, net, net, net, X=X.tolist())
    assert data_rules.find_full_batches(alone) is None
    whole = replace(alone, net=NeuralNetClassifier(batch_size=-1))
    assert data_rules.find_full_batches(whole).numbers["n_rows"] == 120
    held_out = replace(alone, net=net.set_params(early_stopping=True, validation_fraction=0.4))
    assert data_rules.find_full_batches(held_out).numbers["n_rows"] == 72


def test_the_largest_batches_are_limited_by_memory():
    sizes = [{"batch_size": size} for size in (16, 32, 64)]
    scores = np.array([[0.5, 0.51, 0.52], [0.7, 0.71, 0.72], [0.9, 0.91, 0.92]])
    spaces = {"batch_size": [16, 32, 64]}

    found = space_rules.find_best_at_edge(context_of(sizes, scores, spaces=spaces))
    assert "find_max_batch_size" in found.action
    smaller = context_of(sizes, scores[::-1], spaces=spaces)
    assert "find_max_batch_size" not in space_rules.find_best_at_edge(smaller).action


def test_early_stopping_restores_the_best_epoch():
    context = curve_context(FALL, FALL + EPOCHS / 40, early_stopping=True)

    assert curve_rules.find_rising_validation_loss(context) is None


RATES = [{"lr": rate} for rate in np.geomspace(1e-4, 1e-1, 12)]
RISING = np.linspace(0.5, 0.9, 12)[:, None] + [0.0, 0.01, 0.02]
FLAT = 0.8 + np.random.default_rng(0).normal(0, 0.02, (12, 3))
SPACES = {"lr": loguniform(1e-4, 1e-1)}


def test_best_at_edge_is_beyond_noise():
    found = space_rules.find_best_at_edge(context_of(RATES, RISING, spaces=SPACES))

    assert "upper end" in found.text
    assert space_rules.find_best_at_edge(context_of(RATES, FLAT, spaces=SPACES)) is None
    inside = np.roll(RISING, 6, axis=0)
    assert space_rules.find_best_at_edge(context_of(RATES, inside, spaces=SPACES)) is None


def test_best_at_edge_of_a_list():
    params = [{"C": value} for value in (0.1, 1.0, 10.0)]
    scores = np.array([[0.9, 0.91, 0.92], [0.7, 0.71, 0.72], [0.5, 0.51, 0.52]])
    spaces = {"C": [0.1, 1.0, 10.0]}

    found = space_rules.find_best_at_edge(context_of(params, scores, spaces=spaces))
    assert "lower end" in found.text
    turned = context_of(params, scores[[1, 0, 2]], spaces=spaces)
    assert space_rules.find_best_at_edge(turned) is None


def test_zero_is_a_natural_end():
    params = [{"p": value} for value in np.linspace(0.01, 0.49, 12)]
    context = context_of(params, RISING[::-1], spaces={"p": uniform(0, 0.5)})

    assert space_rules.find_best_at_edge(context) is None


def test_fixed_parameters():
    net = NeuralNetClassifier()
    found = space_rules.find_fixed(
        context_of([{"batch_size": 8}, {"batch_size": 9}], FLAT[:2], net=net)
    )
    names = space_rules.WORTH_TUNING
    full = [dict.fromkeys(names, value) for value in (0.1, 0.2)]

    assert found.severity == "warning"
    assert "lr" in found.numbers["fixed"]
    assert space_rules.find_fixed(context_of(full, FLAT[:2], net=net)) is None


def test_tuned_apart():
    apart = [{"lr": 0.1}, {"lr": 0.2}, {"l2": 0.1}, {"l2": 0.2}]
    joint = [{"lr": a, "l2": b} for a in (0.1, 0.2) for b in (0.1, 0.2)]

    assert space_rules.find_tuned_apart(context_of(apart, FLAT[:4])) is not None
    assert space_rules.find_tuned_apart(context_of(joint, FLAT[:4])) is None


def test_batch_size_alone():
    sizes = [{"batch_size": size} for size in (8, 16, 32)]
    both = [{"batch_size": size, "lr": size / 1000} for size in (8, 16, 32)]
    net = NeuralNetClassifier()

    assert space_rules.find_batch_size_alone(context_of(sizes, FLAT[:3], net=net)) is not None
    assert space_rules.find_batch_size_alone(context_of(both, FLAT[:3], net=net)) is None


def test_failed_fits_say_where():
    scores = np.where(np.arange(12)[:, None] >= 10, np.nan, FLAT)
    found = score_rules.find_failed_fits(context_of(RATES, scores))

    assert found.numbers == {"n_failed": 6, "candidates": [10, 11]}
    assert "lr from" in found.text
    assert score_rules.find_failed_fits(context_of(RATES, FLAT)) is None


def test_few_candidates():
    few = context_of(RATES[:2], FLAT[:2], spaces=SPACES)

    assert score_rules.find_few_candidates(few).severity == "warning"
    assert score_rules.find_few_candidates(context_of(RATES[:2], FLAT[:2])) is None
    assert score_rules.find_few_candidates(context_of(RATES, FLAT)) is None


def test_fold_noise():
    assert score_rules.find_fold_noise(context_of(RATES, FLAT)) is not None
    assert score_rules.find_fold_noise(context_of(RATES, RISING)) is None


def test_rungs_of_few_resources_are_no_evidence():
    # the last rung has two candidates, far apart; in the first one, eight are alike
    params = [{"lr": rate} for rate in np.geomspace(1e-3, 1e-1, 8)]
    params += params[-2:]
    scores = np.vstack([np.full((8, 3), 0.5), [[0.6, 0.61, 0.62], [0.9, 0.91, 0.92]]])
    scores += np.random.default_rng(0).normal(0, 0.002, scores.shape)
    context = context_of(params, scores, spaces=SPACES)
    halving = replace(context, record=replace(context.record, rungs=np.repeat([0, 1], [8, 2])))

    assert space_rules.find_best_at_edge(context) is not None
    assert space_rules.find_best_at_edge(halving) is None
    assert score_rules.find_few_candidates(context) is None
    assert score_rules.find_few_candidates(halving).numbers["n_candidates"] == 8


def test_overfits():
    net = NeuralNetClassifier()
    bad = context_of(RATES, FLAT, train=FLAT + 0.2, net=net)

    assert score_rules.find_score_gap(bad).severity == "warning"
    assert score_rules.find_score_gap(context_of(RATES, FLAT, train=FLAT + 0.05)) is None


def test_underfits():
    y = np.repeat([0, 1], [80, 20])

    assert score_rules.find_underfit(context_of(RATES, FLAT - 0.05, y=y)) is not None
    assert score_rules.find_underfit(context_of(RATES, RISING, y=y)) is None


def test_optimism():
    test = {"test_score_": 0.8, "optimism_": 0.1}
    bad = SimpleNamespace(**test, test_interval_=(0.75, 0.85))
    good = SimpleNamespace(**test, test_interval_=(0.7, 0.95))

    assert score_rules.find_optimism(context_of(RATES, FLAT, outer=bad)) is not None
    assert score_rules.find_optimism(context_of(RATES, FLAT, outer=good)) is None


def test_unscaled():
    net = NeuralNetClassifier()
    scaled = make_pipeline(StandardScaler(), net)
    wide = X * [1, 1, 1, 1000]

    def find(X, estimator):
        context = Context(None, None, 0, estimator, net, estimator, X=X)
        return data_rules.find_unscaled(context)

    assert find(wide, net) is not None
    assert find(wide, scaled) is None
    assert find(X, net) is None


def test_unbalanced():
    skewed = np.repeat(["a", "b"], [95, 5])

    assert data_rules.find_unbalanced(context_of(RATES, FLAT, y=skewed)) is not None
    assert data_rules.find_unbalanced(context_of(RATES, FLAT, y=Y)) is None


def test_boosting_better_compares_on_the_same_folds():
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, (300, 2))
    labels = (rows[:, 0] * rows[:, 1] > 0).astype(int)
    linear = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3).fit(rows, labels)
    tree = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [8, 9]}, cv=3)

    found = {f.code for f in diagnose(linear, rows, labels, compare=True)}
    assert "boosting-better" in found
    assert "boosting-better" in diagnose(linear, rows, labels).skipped
    found = {f.code for f in diagnose(tree.fit(rows, labels), rows, labels, compare=True)}
    assert "boosting-better" not in found


ODD = {
    "one candidate": results_of([{"lr": 0.1}], [[0.5, 0.6]]),
    "one fold": results_of(RATES, FLAT[:, :1]),
    "all failed": results_of(RATES, np.full((12, 3), np.nan)),
    "some nan": results_of(RATES, np.where(np.arange(36).reshape(12, 3) % 5, FLAT, np.nan)),
    "nothing tuned": results_of([{}], [[0.5, 0.6]]),
    "equal scores": results_of(RATES, np.full((12, 3), 0.5)),
    "mixed": results_of([{"a": None}, {"a": "<b>"}, {"b": 0.0}], FLAT[:3], FLAT[:3]),
    "many": results_of([{"lr": 1 / (i + 1)} for i in range(1000)], np.tile(FLAT, (84, 1))[:1000]),
}


@pytest.mark.parametrize("results", ODD.values(), ids=ODD)
def test_odd_results_are_no_error(results):
    findings = diagnose(results, X, Y)

    failed = not np.isfinite(results["mean_test_score"]).all()
    assert ("failed-fits" in [found.code for found in findings]) == failed


def test_classical_searches_are_no_error():
    model = DecisionTreeClassifier(random_state=0)
    halving = HalvingRandomSearchCV(model, {"max_depth": range(1, 9)}, random_state=0, cv=3)
    grid = GridSearchCV(model, {"max_depth": [1, 2]}, refit=False, cv=3)

    for search in (halving.fit(X, Y), grid.fit(X, Y)):
        findings = diagnose(search, X, Y)
        assert findings.skipped["lr-too-small"].startswith("no curves")
        assert "unscaled" not in findings.skipped


def test_network_is_judged_by_its_history():
    net = NeuralNetClassifier(lr=1e-6, max_epochs=20, random_state=0)

    with pytest.raises(NotFittedError, match="not fitted"):
        diagnose(net)
    findings = diagnose(make_pipeline(StandardScaler(), net).fit(X, Y))
    assert "lr-too-small" in [found.code for found in findings]
    assert findings.skipped["failed-fits"] == "needs a search"


def test_findings_are_sorted_and_escaped():
    notes = [Finding(s, s, "<b>", "t", "a") for s in ("note", "problem", "warning")]
    findings = Findings(notes, {"x": "needs <X>"})

    assert [found.severity for found in findings] == ["problem", "warning", "note"]
    assert "<b>: <b>" not in findings._repr_html_()
    assert "&lt;b&gt;" in findings._repr_html_()
    assert "needs &lt;X&gt;" in findings._repr_html_()
    assert "Not checked: x (needs <X>)" in str(findings)
    assert list_important(findings, most=1) == ["problem: <b>. a"]
    with pytest.raises(ValueError, match="most must be at least 0, got most=-1"):
        list_important(findings, most=-1)


def test_findings_as_a_frame():
    pytest.importorskip("pandas")
    frame = diagnose(ODD["all failed"]).to_frame()

    assert "failed-fits" in frame["code"].tolist()


def test_codes_are_unique():
    codes = [rule.code for rule in RULES]
    assert len(set(codes)) == len(codes)


def test_pipeline_that_scales_before_the_search_is_fine():
    net = NeuralNetClassifier(max_epochs=5, random_state=0)
    search = GridSearchCV(net, {"lr": [0.01, 0.1]}, cv=2)
    wide = (X * [1, 1, 1, 1000]).astype(np.float32)
    model = make_pipeline(StandardScaler(), search).fit(wide, Y)

    assert "unscaled" not in [found.code for found in diagnose(model, wide, Y)]


def test_staged_search_within_a_holdout():
    net = NeuralNetClassifier(max_epochs=5, random_state=0)
    stages = [("rate", {"lr": [0.01, 0.1]}), ("penalty", {"l2": [1e-4, 1e-2]})]
    search = StagedSearch(net, stages, n_iter=2, cv=2, random_state=0)
    tuned = HoldoutSearch(search).fit(X.astype(np.float32), Y)

    findings = diagnose(tuned, X, Y)
    assert "tuned-apart" in [found.code for found in findings]
    assert "optimism" not in findings.skipped


@pytest.mark.parametrize("kind", ["array", "list"])
def test_sealed_rows_change_nothing(kind):
    search = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 5, 9]}, cv=3)
    tuned = HoldoutSearch(search, random_state=0).fit(X, Y)
    poisoned = X.copy()
    poisoned[tuned.test_indices_] = 1e9
    labels = Y.copy()
    labels[tuned.test_indices_] = 7
    if kind == "list":
        poisoned, labels = poisoned.tolist(), labels.tolist()
    expected = diagnose(tuned, X, Y, compare=True)
    found = diagnose(tuned, poisoned, labels, compare=True)
    assert [str(finding) for finding in found] == [str(finding) for finding in expected]
    assert found.skipped == expected.skipped
