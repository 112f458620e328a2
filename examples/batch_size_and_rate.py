"""Batch size and learning rate
============================

What fits into memory, and a learning rate that follows the batch size.

A few seconds.
"""

from sklearn.datasets import load_digits

from sktune import GridSearchCV, NeuralNetClassifier, find_max_batch_size, powers_of_two

X, y = load_digits(return_X_y=True)
X = X / 16
net = NeuralNetClassifier(max_epochs=15, random_state=0)

# %%
# The largest batch that memory has room for: here all rows. A large module on a GPU gets fewer.

print(f"A batch may have {find_max_batch_size(net, X, y)} of {len(X)} rows")

# %%
# The same rate for all batch sizes, and a rate that follows the batch size by its square root, as
# is usual under AdamW. `lr` is then that of a batch of 64 rows. Large batches take few steps in
# the same epochs: with larger rates they lose less by it.

sizes = powers_of_two(32, 512)
grid = {"batch_size": sizes, "lr_scaling": [None, "sqrt"]}
search = GridSearchCV(net, grid, cv=3, refit=False).fit(X, y)
results = search.cv_results_
scores = {
    (params["batch_size"], params["lr_scaling"]): score
    for params, score in zip(results["params"], results["mean_test_score"], strict=True)
}
print("\nrows in a batch   same rate   scaled")
for size in sizes:
    print(f"{size:15d}   {scores[size, None]:9.3f}   {scores[size, 'sqrt']:6.3f}")
