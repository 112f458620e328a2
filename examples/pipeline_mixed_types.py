"""A table of mixed types
======================

Tune a Pipeline on a table of numbers and categories with missing values.

All steps that learn from the rows are in the Pipeline, and are tuned with it. The table is
generated: customers of a made-up gym, some of whom left within the year.
"""

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sktune import HoldoutSearch, NeuralNetClassifier, RandomizedSearchCV, default_space

NUMBERS = ["age", "visits_per_week", "monthly_fee"]
CATEGORIES = ["plan", "city"]


def make_table(n_rows, seed):
    """Return random customers, with some values missing, and whether they stayed."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "age": rng.integers(16, 80, n_rows).astype(float),
            "visits_per_week": rng.gamma(2.0, 0.8, n_rows),
            "monthly_fee": rng.normal(40, 12, n_rows),
            "plan": rng.choice(["day", "month", "year"], n_rows, p=[0.2, 0.5, 0.3]),
            "city": rng.choice(["Aachen", "Bonn", "Celle", "Dresden"], n_rows),
        }
    )
    pull = (
        1.2 * table["visits_per_week"]
        - 0.06 * (table["monthly_fee"] - 30)
        - 1.5 * (table["plan"] == "day")
    )
    # The young and the old leave.
    pull -= 0.0015 * (table["age"] - 45) ** 2
    stays = pull + rng.logistic(scale=0.5, size=n_rows) > 0.5
    for name in NUMBERS + CATEGORIES:
        table.loc[rng.random(n_rows) < 0.08, name] = None
    return table, np.where(stays, "stays", "leaves")


def main():
    X, y = make_table(n_rows=600, seed=0)
    print(X.head(3).to_string())
    incomplete = X.isna().any(axis=1).mean()
    leaving = np.mean(y == "leaves")
    print(f"{len(X)} rows, {incomplete:.0%} of them with a missing value; {leaving:.0%} leave.\n")

    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    categories = make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    )
    columns = make_column_transformer((numbers, NUMBERS), (categories, CATEGORIES))
    net = NeuralNetClassifier(
        max_epochs=15, module__hidden=(32,), class_weight="balanced", random_state=0
    )
    model = make_pipeline(columns, net)

    # The names have the prefixes of the Pipeline's steps. The preparation of the columns can be
    # searched, too.
    space = default_space(model)
    space["columntransformer__pipeline-1__simpleimputer__strategy"] = ["mean", "median"]
    search = RandomizedSearchCV(
        model, space, n_iter=15, cv=3, scoring="roc_auc", random_state=0, verbose=1
    )
    tuned = HoldoutSearch(search, test_size=0.25, random_state=0).fit(X, y)

    print()
    print(tuned.summary())
    # A city that is not in the table.
    stranger = pd.DataFrame([[30, 0.5, np.nan, "day", "Erfurt"]], columns=X.columns)
    label = tuned.predict(stranger)[0]
    probability = tuned.predict_proba(stranger).max()
    print(f"\nA customer of 30 from a city never seen, fee unknown: {label} ({probability:.0%})")


if __name__ == "__main__":
    main()
