"""Other libraries' names of hyperparameters."""

from sktune.runtime.names import did_you_mean

# What MLPClassifier, Keras and others call a hyperparameter, and its names here.
SYNONYMS = {
    "learning_rate": ("lr", "lr_schedule"),
    "learning_rate_init": ("lr",),
    "eta": ("lr",),
    "eta0": ("lr",),
    "max_iter": ("max_epochs",),
    "epochs": ("max_epochs",),
    "n_epochs": ("max_epochs",),
    "num_epochs": ("max_epochs",),
    "nb_epoch": ("max_epochs",),
    "hidden_layer_sizes": ("module__hidden",),
    "hidden": ("module__hidden",),
    "hidden_sizes": ("module__hidden",),
    "hidden_units": ("module__hidden",),
    "hidden_dims": ("module__hidden",),
    "n_hidden": ("module__hidden",),
    "units": ("module__hidden",),
    "layers": ("module__hidden",),
    "activation": ("module__activation",),
    "dropout": ("module__dropout",),
    "dropout_rate": ("module__dropout",),
    "batch_norm": ("module__batch_norm",),
    "batch_normalization": ("module__batch_norm",),
    "init": ("module__init",),
    "kernel_initializer": ("module__init",),
    "dtype": ("module__dtype",),
    "model": ("module",),
    "net": ("module",),
    "loss": ("criterion",),
    "loss_fn": ("criterion",),
    "loss_function": ("criterion",),
    "solver": ("optimizer",),
    "optim": ("optimizer",),
    "alpha": ("optimizer__weight_decay", "l2"),
    "weight_decay": ("optimizer__weight_decay",),
    "decay": ("optimizer__weight_decay",),
    "kernel_regularizer": ("l2", "l1"),
    "momentum": ("optimizer__momentum",),
    "nesterovs_momentum": ("optimizer__nesterov",),
    "nesterov": ("optimizer__nesterov",),
    "beta_1": ("optimizer__betas",),
    "beta_2": ("optimizer__betas",),
    "betas": ("optimizer__betas",),
    "epsilon": ("optimizer__eps",),
    "eps": ("optimizer__eps",),
    "validation_split": ("validation_fraction",),
    "validation_data": ("train_split",),
    "patience": ("n_iter_no_change",),
    "min_delta": ("tol",),
    "class_weights": ("class_weight",),
    "clipnorm": ("clip_grad_norm",),
    "global_clipnorm": ("clip_grad_norm",),
    "max_grad_norm": ("clip_grad_norm",),
    "grad_clip": ("clip_grad_norm", "clip_grad_value"),
    "gradient_clip_val": ("clip_grad_norm", "clip_grad_value"),
    "gradient_clip_value": ("clip_grad_norm",),
    "clipvalue": ("clip_grad_value",),
    "seed": ("random_state",),
    "random_seed": ("random_state",),
    "scheduler": ("lr_schedule",),
    "lr_scheduler": ("lr_schedule",),
}


def suggest(name, known, takes=lambda name: True):
    """Return the hint of an error about an unknown hyperparameter.

    Parameters
    ----------
    name : str
        The unknown name, such as ``"learning_rate"`` or ``"module__units"``.
    known : collection of str
        The names to choose the nearest from, where `name` is no other library's word.
    takes : callable, default=always True
        ``takes(other)`` tells whether the net at hand has the hyperparameter `other`.

    Returns
    -------
    hint : str
        Such as ``"; did you mean 'lr'?"``, or ``""`` if no name comes near.
    """
    prefix, _, argument = name.rpartition("__")
    meant = [other for other in SYNONYMS.get(argument, ()) if other != name and takes(other)]
    if prefix:
        # A name of the module's may mean another one of the module's, or a parameter of the net,
        # but not an argument of the optimizer.
        meant = [other for other in meant if other.startswith(prefix + "__") or "__" not in other]
    if not meant:
        return did_you_mean(name, known)
    return f"; did you mean {' or '.join(map(repr, meant))}?"
