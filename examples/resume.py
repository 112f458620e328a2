"""A search that is killed and resumed
======================================

A search records each fit in a folder. The process is killed; the same search goes on later.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# %%
# The search, as it would stand in a script of its own. ``cache`` is a folder.

SEARCH = """
import json, sys
from sklearn.datasets import load_digits
from sktune import GridSearchCV, NeuralNetClassifier

X, y = load_digits(return_X_y=True)
net = NeuralNetClassifier(module__hidden=(128,), batch_size=32, random_state=0)
search = GridSearchCV(
    net, {"lr": [3e-4, 1e-3, 3e-3], "max_epochs": [10, 20, 40]}, cv=3, refit=False,
    cache=sys.argv[1], checkpoint_interval=0.05,
)
search.fit(X / 16, y)
print(search.fusion_, file=sys.stderr)
print(json.dumps(search.cv_results_["mean_test_score"].tolist()))
"""


def begin(cache):
    """Begin the search in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# %%
# The first process is killed as soon as something is recorded, as by a power cut: it has no time to
# tidy up. The second one runs the same search with the same folder.

with tempfile.TemporaryDirectory() as folder:
    cache = Path(folder) / "cache"
    killed = begin(cache)
    while killed.poll() is None and not list(cache.glob("*.safetensors")):
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    print(f"Killed with exit code {killed.returncode}.")

    scores, report = begin(cache).communicate()
    print("The second process has trained what was missing:")
    print(report)

    whole, _ = begin(Path(folder) / "another").communicate()

# %%
# The scores are those of a search that nobody has killed, to the last digit.

assert json.loads(scores) == json.loads(whole)
print("Best score:", max(json.loads(scores)))
