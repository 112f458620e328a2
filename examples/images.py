"""Images and augmentation
=======================

Tune a small convolution network with and without augmentation.

Rotation, shift and scale are hyperparameters like the learning rate: the search finds how strong
they should be. Both searches try as many candidates, of as many epochs, on the same folds.
"""

import numpy as np
from scipy.ndimage import rotate
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import nn

from sktune import NeuralNetClassifier, RandomizedSearchCV

digits = load_digits()
images = (digits.images / 16).astype(np.float32)[:, np.newaxis]  # (n, 1, 8, 8)
# Few images to learn from: the rest tells how good the networks are.
X_train, X_test, y_train, y_test = train_test_split(
    images, digits.target, train_size=300, stratify=digits.target, random_state=0
)


class Convolutional(nn.Module):
    """Two convolutions, and a linear layer."""

    def __init__(self, n_outputs, channels=16):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * channels, n_outputs),
        )

    def forward(self, X):
        """Return the logits of images (n, 1, 8, 8)."""
        return self.layers(X)


# %%
# Two searches of equal budget
# ----------------------------
# An image is changed anew in each epoch; a strength of 0 is off. The images of validation and test
# stay as they are.

net = NeuralNetClassifier(Convolutional, max_epochs=40, batch_size=32, random_state=0)
rates = {"lr": loguniform(1e-3, 1e-2), "optimizer__weight_decay": loguniform(1e-4, 1e-1)}
strengths = {
    "augment__degrees": uniform(0, 20),
    "augment__shift": uniform(0, 0.2),
    "augment__scale": uniform(0, 0.2),
}


def tune(net, space):
    """Return a finished search."""
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    search = RandomizedSearchCV(net, space, n_iter=10, cv=folds, random_state=0)
    return search.fit(X_train, y_train)


plain = tune(net, rates)
augmented = tune(net.set_params(augment="images"), {**rates, **strengths})

# %%
# What was found
# --------------
# The scores of the test images were not looked at before. Both networks are also asked for the same
# images, each turned by up to 20 degrees: what a network has not been shown it may not know.

angles = np.random.default_rng(0).uniform(-20, 20, len(X_test))
turned = [
    rotate(X, angle, axes=(1, 2), reshape=False, order=1)
    for X, angle in zip(X_test, angles, strict=True)
]
X_turned = np.stack(turned)

for name, search in {"without": plain, "with": augmented}.items():
    print(f"{name} augmentation:")
    print(f"  accuracy in cross-validation {search.best_score_:.4f}")
    print(f"  accuracy on {len(y_test)} test images {search.score(X_test, y_test):.4f}")
    print(f"  accuracy on the same, turned {search.score(X_turned, y_test):.4f}")
    for parameter, value in search.best_params_.items():
        print(f"  {parameter}: {value:.4g}")
print(augmented.fusion_)
