"""The components of a net (module, criterion, optimizer, callbacks): how they are built and set."""

from contextlib import contextmanager
from copy import copy, deepcopy

import torch
from skorch import NeuralNet
from skorch.exceptions import NotInitializedError
from skorch.history import History

from sktune.checks.arguments import constructor_arguments, required_arguments
from sktune.checks.components import check_components
from sktune.checks.hyperparameters import check_hyperparameters, check_names, unchanged_on_error
from sktune.estimators.callbacks.tasks import NO_TASKS
from sktune.estimators.hook import NO_HOOK
from sktune.estimators.overrides import QuietLog
from sktune.modules.dropout import MaskStream, serve_dropout
from sktune.modules.mlp import MLP
from sktune.runtime.devices import resolve_device
from sktune.runtime.dtypes import floating_dtype, narrow
from sktune.runtime.seeds import INIT, draw_seed, mix, seeded
from sktune.training.optimizers import prefers_torch_fused

# Parameters that are read when they are needed: to set them changes no component.
_LOOKED_UP = ("lr_schedule", "augment", "iterator_train", "iterator_valid", "dataset")

# Parameters that skorch does not set in a net that is initialized.
_NOT_SET_BY_SKORCH = ("callbacks", "optimizer", "optimizer__param_groups")

# The attributes that a net of a fused search builds when they are first asked for.
BUILT = ("module_", "criterion_", "optimizer_", "callbacks_", "dropout_")


class _Uninitialized:
    """The value of ``initialized_`` before a net is initialized: False, or absent.

    It is absent until the constructor has run. By that skorch tells whether a module may be set
    as an attribute, which only a constructor may do.
    """

    def __get__(self, net, kind=None):
        if net is not None and "max_epochs" not in vars(net):
            raise AttributeError("initialized_")
        return False


class Components:
    """Build, change and restore the components of a net; a base class of :class:`Training`.

    skorch registers modules, criteria and optimizers when they are first set. The constructors of
    sktune's nets only assign their arguments; the class attributes below stand for all else that
    skorch's constructor sets.

    `_modules`, `_criteria`, `_optimizers`, `_initialize_*` and `_default_callbacks` are private
    names of skorch: ``tests/estimators/test_skorch_seams.py`` and
    ``tests/estimators/test_listeners.py`` fail when they move.
    """

    prefixes_ = [*_LOOKED_UP, "callbacks", "compile"]
    cuda_dependent_attributes_ = ["dropout_"]
    initialized_ = _Uninitialized()
    history_ = None
    virtual_params_ = {}
    _hook = NO_HOOK
    _sizes = {}

    @property
    def _default_callbacks(self):
        return [
            (name, QuietLog() if name == "print_log" else callback)
            for name, callback in super()._default_callbacks
        ]

    def initialize(self, **sizes):
        """Build module, criterion, optimizer and callbacks anew, and draw the seed of the fit.

        Parameters
        ----------
        **sizes : int
            What the data tell of the module, such as `n_features`. A module whose constructor
            takes arguments of these names is given them.
        """
        check_hyperparameters(self)
        vars(self).pop("_curve", None)
        self._plan_schedule(0, None)
        self.device_ = resolve_device(self.device)
        self.seed_ = draw_seed(self.random_state)
        self._sizes = {**sizes, "n_outputs": getattr(self, "n_outputs_", None)}
        vars(self).pop("_outdated", None)
        self._has_weights = False
        return super().initialize()

    def initialize_history(self):
        """Begin a new history; one that the user gave is emptied and filled, as in skorch."""
        last_made_here = vars(self).get("_own_history")
        if self.history_ is not None and self.history_ is not last_made_here:
            return super().initialize_history()
        # The user may have kept the history of an earlier fit: it is replaced, not emptied.
        self.history_ = self._own_history = History()
        return self

    def _fit_seed(self):
        """Return the seed of the fit, drawn here if components are initialized one by one."""
        if "seed_" not in vars(self):
            self.seed_ = draw_seed(self.random_state)
        return self.seed_

    def _initialize_module(self, reason=None):
        # The stream must exist even if a subclass's `initialize_module` does not make one.
        self.dropout_ = MaskStream(self._fit_seed())
        with self._resolved_device(), seeded(mix(self.seed_, INIT)):
            return super()._initialize_module(reason)

    def initialize_module(self):
        """Build the module; its dropout layers take their masks from a counter-based generator.

        A module that was given as an instance is copied.
        """
        arguments = self.get_params_for("module")
        is_instance = isinstance(self.module, torch.nn.Module)
        if is_instance and not arguments:
            self.module_ = deepcopy(self.module)
        else:
            kind = type(self.module) if is_instance else self.module
            self.module_ = kind(**self._module_arguments(kind, arguments))
        self.dropout_ = serve_dropout(self.module_, self._fit_seed())
        return self

    def _module_arguments(self, kind, given):
        """Return the arguments of a module's class: those given, and sizes found from the data."""
        accepted = constructor_arguments(kind, extra=False) or ()
        arguments = {
            name: value
            for name, value in self._sizes.items()
            if name in accepted and value is not None
        }
        arguments.update(given)
        self._check_sizes(kind, arguments)
        return arguments

    def _check_sizes(self, kind, known):
        """Raise if the module needs a size that neither the data nor the user has told."""
        needed = required_arguments(kind) - known.keys()
        missing = [f"module__{name}" for name in ("n_features", "n_outputs") if name in needed]
        if missing:
            arguments = ", ".join(f"{name}=..." for name in missing)
            raise ValueError(
                f"{' and '.join(missing)} must be known to build {kind.__name__}, got no table to "
                f"find it from: fit to an array first, or pass {arguments}"
            )

    def _whole_module(self):
        """Return ``module_``; of a subclass with several modules, a list of them as one module."""
        parts = [getattr(self, name + "_") for name in self._modules]
        modules = [part for part in parts if isinstance(part, torch.nn.Module)]
        return modules[0] if len(modules) == 1 else torch.nn.ModuleList(modules)

    def _components(self):
        """Return names and modules of everything that holds weights."""
        names = [name + "_" for name in self._modules + self._criteria]
        named = [(name, getattr(self, name)) for name in names]
        return [(name, part) for name, part in named if isinstance(part, torch.nn.Module)]

    def _initialize_criterion(self, reason=None):
        with self._resolved_device(), seeded(mix(self._fit_seed(), INIT, 1)):
            super()._initialize_criterion(reason)
        self._convert_criteria()
        return self

    def _convert_criteria(self):
        """Convert tensors of torch's criteria, such as class weights, to the module's dtype.

        A criterion that was given as an instance is the user's own: a copy replaces it.
        """
        dtype = floating_dtype(self._whole_module())
        for name in self._criteria:
            criterion = getattr(self, name + "_", None)
            if not type(criterion).__module__.startswith("torch.nn."):
                continue
            if any(b.is_floating_point() and b.dtype != dtype for b in criterion.buffers()):
                setattr(self, name + "_", deepcopy(criterion).to(dtype))

    @contextmanager
    def _resolved_device(self):
        """Let skorch see the device that ``"auto"`` stands for."""
        given = self.device
        self.device = str(getattr(self, "device_", None) or resolve_device(given))
        try:
            yield
        finally:
            self.device = given

    def _widen(self):
        """Convert components to float64, in which sums do not depend on the order of the rows.

        :meth:`_narrow` converts them back at the end of the fit.
        """
        self._narrow_to = floating_dtype(self.module_)
        for _, component in self._components():
            component.to(torch.float64)
        # Adagrad makes its sums when it is built: they have the dtype that the weights had then.
        for name in self._optimizers:
            for parameter, state in getattr(self, name + "_").state.items():
                for key, value in state.items():
                    if key != "step" and getattr(value, "dtype", None) == self._narrow_to:
                        state[key] = value.to(parameter.dtype)

    def _narrow(self):
        """Convert components and optimizers back to the dtype that they had before `_widen`."""
        dtype = vars(self).pop("_narrow_to", None)
        if dtype is None:
            return
        for _, component in self._components():
            component.to(dtype)
        for name in self._optimizers:
            for state in getattr(self, name + "_").state.values():
                state.update(narrow(state, dtype))

    def _copy_fitted(self):
        """Return the attributes that make a copy of the net one whose fit has ended here."""
        dtype = vars(self).get("_narrow_to")
        attributes = {"history_": copy(self.history_), "_narrow_to": None, "_tasks": NO_TASKS}
        for name, component in self._components():
            component = deepcopy(component)
            attributes[name] = component if dtype is None else component.to(dtype)
        return attributes

    def initialize_optimizer(self, triggered_directly=None):
        """Build the optimizer, in torch's fused implementation where there is one.

        The user may have asked for another implementation.
        """
        args, kwargs = self.get_params_for_optimizer("optimizer", self.get_all_learnable_params())
        has_sparse_gradients = any(
            getattr(layer, "sparse", False) for layer in self._whole_module().modules()
        )
        parameters = [p for group in args[0] for p in group["params"]]
        is_fused = prefers_torch_fused(
            self.optimizer, kwargs, parameters, has_sparse_gradients=has_sparse_gradients
        )
        if is_fused is not None:
            kwargs["fused"] = is_fused
        self.optimizer_ = self.optimizer(*args, **kwargs)
        self._keep_base_rates()
        return self

    def _keep_base_rates(self):
        """Let the optimizer remember the rates that a schedule of sktune's multiplies.

        Without such a schedule this is left to torch's schedulers, whose base rates may differ.
        """
        if self._lr_factors(0, 1) is not None:
            for group in self.optimizer_.param_groups:
                group.setdefault("initial_lr", group["lr"])

    def set_params(self, **params):
        """Set hyperparameters; an unknown name raises and shows the nearest known one.

        Parameters of the module or the criterion of a trained net take effect with the next
        ``fit`` or ``partial_fit``, which builds them anew; until then the net predicts as before.
        skorch builds them at once, untrained; so does a net here that has not been trained yet.
        The numbers of an optimizer are changed in place.
        """
        check_names(self, self._names_to_check(params))
        if self.initialized_:
            # The components of an initialized net may be built at once.
            check_components(params)
        later = self._set_later(params)
        by_skorch = {n: v for n, v in params.items() if n not in later and _is_set_by_skorch(n)}
        for name in self._find_plain(by_skorch):
            del by_skorch[name]
        with unchanged_on_error(self):
            for name, value in params.items():
                is_number_of_optimizer = (
                    name.startswith("optimizer__") and "param_groups__" not in name
                )
                if name not in by_skorch or is_number_of_optimizer:
                    setattr(self, name, value)
            if later:
                self._outdated = sorted({*later, *vars(self).get("_outdated", ())})
            if self.initialized_ and "callbacks" in params:
                self._initialize_callbacks()
            if self.initialized_ and {"optimizer", "optimizer__param_groups"} & params.keys():
                self._initialize_optimizer()
            self._set_by_skorch(by_skorch)
        return self

    def _find_plain(self, params):
        """Return the names of those parameters that skorch, too, would set as attributes only.

        They need not be passed to skorch, which would list the parameters of all nested objects to
        check the names.
        """
        has_own_check = getattr(self.get_params, "__func__", None) is not NeuralNet.get_params
        if self.initialized_ or has_own_check or self.virtual_params_:
            return []
        other_names = ("_", *self.prefixes_)
        return [
            name
            for name in params
            if name in vars(self)
            and "__" not in name
            and not name.endswith("_")
            and not name.startswith(other_names)
        ]

    def _names_to_check(self, params):
        """Return the parameters whose names may be wrong: all but the net's own attributes."""
        components = {"module", "criterion", "optimizer", *self.prefixes_}
        return {
            name: value
            for name, value in params.items()
            if "__" in name or name in components or name not in vars(self)
        }

    def _set_by_skorch(self, params):
        """Let skorch set parameters; a new learning rate is also what a schedule multiplies."""
        groups = self.optimizer_.param_groups if getattr(self, "optimizer_", None) else []
        rates = [group["lr"] for group in groups]
        super().set_params(**params)
        for group, rate in zip(groups, rates, strict=True):
            if group["lr"] != rate and "initial_lr" in group:
                group["initial_lr"] = group["lr"]

    def _set_later(self, params):
        """Return the names of parameters for which a trained component would be built anew."""
        has_weights = bool(self.history_) or vars(self).get("_has_weights", False)
        is_fitting = vars(self).get("_is_fitting", False)
        if not self.initialized_ or not has_weights or is_fitting:
            return set()
        parts = {*self._modules, "compile"}
        criteria = [getattr(self, name + "_") for name in self._criteria]
        if any(isinstance(part, torch.nn.Module) and [*part.parameters()] for part in criteria):
            # The weights of the criteria were trained, too.
            parts |= {*self._criteria}
        # Predictions may depend on which criterion it is, but not on its options.
        return {
            name for name in params if name.partition("__")[0] in parts or name in self._criteria
        }

    def _rebuild_outdated(self):
        """Build anew what was set since the last training, in a net that goes on training."""
        outdated = vars(self).pop("_outdated", None)
        if outdated:
            self._initialize_module(
                f"Re-initializing module because these were set: {', '.join(outdated)}."
            )
            self._initialize_criterion()
            self._initialize_optimizer()

    def load_params(self, *args, **kwargs):
        """Load what :meth:`save_params` saved, as in skorch; the net must be initialized."""
        if not self.initialized_ and kwargs.get("checkpoint") is None and self.module is MLP:
            sizes = [f"module__{name}" for name in ("n_features", "n_outputs")]
            missing = [name for name in sizes if name not in vars(self)]
            if missing:
                raise NotInitializedError(
                    "Cannot load state of an un-initialized model. Please fit first; or pass "
                    f"{' and '.join(missing)}, which an MLP is built from, and call initialize."
                )
        with self._resolved_device():
            super().load_params(*args, **kwargs)
        self._has_weights = True

    def __getattr__(self, name):
        """Build the components of a net of a fused search when one of them is first asked for."""
        # Most nets of a search are only scored, from outputs that are known already.
        if name in BUILT:
            self._hook.build_parts(self)
        return super().__getattribute__(name)

    def __getstate__(self):
        self._hook.build_parts(self)
        state = super().__getstate__()
        state.pop("_hook", None)
        # recordings of a GPU, in a fit that is under way
        state.pop("_lone_steps", None)
        return state

    def __dir__(self):
        unbuilt = BUILT if self._hook.has_unbuilt_parts() else ()
        return {*super().__dir__(), *unbuilt}

    def __setstate__(self, state):
        is_auto = state["device"] == "auto"
        if is_auto:
            state = {**state, "device": str(resolve_device("auto"))}
        super().__setstate__(state)
        if "device_" in vars(self):
            self.device_ = resolve_device(self.device)
        if is_auto:
            self.device = "auto"


def _is_set_by_skorch(name):
    """Tell whether a parameter is left to skorch's ``set_params``."""
    return name not in _NOT_SET_BY_SKORCH and name.partition("__")[0] not in _LOOKED_UP
