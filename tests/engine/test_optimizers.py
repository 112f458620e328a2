"""Every fused rule against torch's own optimizer, one value of each hyperparameter per lane."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import X, assert_parity, y

from sktune import NeuralNetClassifier
from sktune.engine.steps.optimizers import StackedOptimizer, fused_adam
from sktune.training.optimizers import OPTIMIZERS, OptimizerRule, StateTensor

N_STEPS, N_WEIGHTS = 50, 6

rate = st.floats(1e-4, 0.1)
decay = st.sampled_from([0.0, 1e-4, 0.01, 0.3])
eps = st.sampled_from([1e-10, 1e-8, 1e-3])
beta = st.floats(0.0, 0.99)
LANES = {
    torch.optim.SGD: {
        "momentum": st.sampled_from([0.0, 0.5, 0.95]),
        "dampening": st.sampled_from([0.0, 0.3, 1.0]),
    },
    torch.optim.Adam: {"betas": st.tuples(beta, beta), "eps": eps},
    torch.optim.AdamW: {"betas": st.tuples(beta, beta), "eps": eps},
    torch.optim.NAdam: {
        "betas": st.tuples(beta, beta),
        "eps": eps,
        "momentum_decay": st.sampled_from([0.0, 4e-3, 0.5]),
    },
    torch.optim.RMSprop: {
        "alpha": st.floats(0.5, 0.999),
        "eps": eps,
        "momentum": st.sampled_from([0.0, 0.9]),
    },
    torch.optim.Adagrad: {
        "lr_decay": st.sampled_from([0.0, 0.1]),
        "eps": eps,
        "initial_accumulator_value": st.sampled_from([0.0, 0.5]),
    },
    torch.optim.Adamax: {"betas": st.tuples(beta, beta), "eps": eps},
    # above 0.6 the length of the average comes to be that of an adaptive step
    torch.optim.RAdam: {"betas": st.tuples(beta, st.floats(0.1, 0.999)), "eps": eps},
    torch.optim.Adadelta: {
        "rho": st.floats(0.0, 0.99),
        "eps": st.sampled_from([1e-8, 1e-6, 1e-2]),
    },
}
DECOUPLED = {"decoupled_weight_decay": True}
SHARED = {
    torch.optim.SGD: [{}, {"maximize": True}],
    torch.optim.Adam: [{}, DECOUPLED, {"amsgrad": True, "maximize": True}],
    torch.optim.AdamW: [{}, {"amsgrad": True}, {"maximize": True}],
    torch.optim.NAdam: [{}, DECOUPLED],
    torch.optim.RAdam: [{}, {**DECOUPLED, "maximize": True}],
    torch.optim.RMSprop: [{}, {"centered": True}],
}
CASES = [(kind, shared) for kind in LANES for shared in SHARED.get(kind, [{}])]


def test_every_rule_is_tried():
    assert set(LANES) == set(OPTIMIZERS)


def gradients(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N_STEPS, N_WEIGHTS, generator=generator, dtype=torch.float64)


def train_plainly(kind, options, rates, gradient):
    weights = torch.linspace(-1, 1, N_WEIGHTS, dtype=torch.float64).requires_grad_()
    optimizer = kind([weights], **options)
    for factor, g in zip(rates, gradient, strict=True):
        optimizer.param_groups[0]["lr"] = options["lr"] * factor
        weights.grad = g.clone()
        optimizer.step()
    return weights.detach(), dict(optimizer.state.get(weights, {}))


def column(lanes):
    """Return the lanes' learning rates, (L, 1)."""
    return torch.tensor([[lane["lr"]] for lane in lanes], dtype=torch.float64)


def train_stacked(kind, lanes, factors, gradient):
    flat = torch.linspace(-1, 1, N_WEIGHTS, dtype=torch.float64).repeat(len(lanes), 1)
    stacked = StackedOptimizer(
        kind, [kind([torch.zeros(1)], **options).param_groups[0] for options in lanes], flat
    )
    for step in range(N_STEPS):
        stacked.step(flat, gradient[:, step].clone(), factors[:, step, None] * column(lanes))
    return flat, stacked


@pytest.mark.parametrize(("kind", "shared"), CASES)
@settings(derandomize=True, max_examples=15, deadline=None)
@given(data=st.data())
def test_agrees_with_torch(kind, shared, data):
    lane = st.fixed_dictionaries({"lr": rate, "weight_decay": decay, **LANES[kind]})
    lanes = [
        {**options, **shared}
        for options in data.draw(st.lists(lane, min_size=1, max_size=4), label="lanes")
    ]
    check_against_torch(kind, lanes)


@settings(derandomize=True, max_examples=15, deadline=None)
@given(
    lanes=st.lists(
        st.fixed_dictionaries({"lr": rate, "momentum": st.floats(0.1, 0.95)}),
        min_size=1,
        max_size=4,
    )
)
def test_agrees_with_torch_in_nesterov_momentum(lanes):
    check_against_torch(torch.optim.SGD, [{**options, "nesterov": True} for options in lanes])


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_agrees_where_lanes_differ_in_rate_and_decay_only(kind):
    check_against_torch(kind, [{"lr": 0.01, "weight_decay": 0.0}, {"lr": 0.1, "weight_decay": 0.5}])


def test_torchs_private_kernel_is_where_it_was():
    weights, gradient, first, second = (torch.tensor([[value]]) for value in (1.0, 0.5, 0.0, 0.0))
    options = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}
    fused_adam(
        [weights],
        [gradient],
        [first],
        [second],
        [],
        [torch.tensor(1.0)],
        **options,
        amsgrad=False,
        maximize=False,
    )

    found = torch.cat([weights, first, second]).flatten()
    torch.testing.assert_close(
        found, torch.tensor([0.9, 0.05, 0.0025]), msg="torch._fused_adam_ has changed"
    )


def test_the_kernel_counts_in_the_type_that_cuda_reads():
    flat = torch.ones(2, 3, dtype=torch.float64)
    groups = [torch.optim.AdamW([torch.zeros(1)], lr=rate).param_groups[0] for rate in (0.1, 0.2)]
    stacked = StackedOptimizer(torch.optim.AdamW, groups, flat)

    assert stacked.choose_update(flat).steps.dtype == torch.float32


def check_against_torch(kind, lanes):
    factors = torch.linspace(1, 0.1, N_STEPS, dtype=torch.float64).repeat(len(lanes), 1)
    gradient = torch.stack([gradients(seed) for seed in range(len(lanes))])
    flat, stacked = train_stacked(kind, lanes, factors, gradient)
    for number, options in enumerate(lanes):
        weights, state = train_plainly(kind, options, factors[number], gradient[number])
        torch.testing.assert_close(flat[number], weights, rtol=1e-8, atol=1e-11)
        ours = stacked.lane_state(number)
        assert ours.pop("step") == N_STEPS
        for name in state.keys() - {"step"}:
            expected = state[name].expand_as(ours[name]) if name == "mu_product" else state[name]
            rtol = 1e-6 if expected.dtype == torch.float32 else 1e-8  # mu_product, as in torch
            torch.testing.assert_close(ours[name], expected, rtol=rtol, atol=1e-12)


def test_a_part_of_the_lanes_steps_alone():
    lanes = [{"lr": lr, "momentum": 0.9} for lr in (0.1, 0.01, 0.001)]
    factors = torch.ones(3, N_STEPS, dtype=torch.float64)
    gradient = torch.stack([gradients(seed) for seed in range(3)])
    whole, all_stacked = train_stacked(torch.optim.SGD, lanes, factors, gradient)

    flat = torch.linspace(-1, 1, N_WEIGHTS, dtype=torch.float64).repeat(3, 1)
    stacked = StackedOptimizer(
        torch.optim.SGD,
        [torch.optim.SGD([torch.zeros(1)], **options).param_groups[0] for options in lanes],
        flat,
    )
    for step in range(N_STEPS):
        for part in ([2, 0], [1]):
            chosen = torch.tensor(part)
            few, rows = stacked.select(part), flat[chosen]
            few.step(
                rows,
                gradient[chosen, step].clone(),
                factors[chosen, step, None] * column(lanes)[chosen],
            )
            flat[chosen] = rows
            stacked.put_back(chosen, few)

    assert torch.equal(flat, whole)
    assert all(torch.equal(stacked.state[name], all_stacked.state[name]) for name in stacked.state)
    assert stacked.lane_state(1)["step"] == N_STEPS


class SignSGD(torch.optim.Optimizer):
    """Steps against the sign of the averaged gradient (Bernstein et al. 2018)."""

    def __init__(self, params, lr=0.01, average=0.9, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "average": average, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        # skorch computes the gradients within the closure
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    state["mean"] = torch.zeros_like(p)
                gradient = p.grad + group["weight_decay"] * p
                state["step"] += 1
                state["mean"].lerp_(gradient, 1 - group["average"])
                p.sub_(group["lr"] * state["mean"].sign())
        return loss


def update_sign_sgd(p, g, state, t, options):
    state["mean"].lerp_(g, 1 - options["average"])
    p.sub_(options["lr"] * state["mean"].sign())


def test_one_entry_adds_an_optimizer(monkeypatch, in_float64):
    rule = OptimizerRule(update_sign_sgd, ("average",), {"mean": StateTensor()})
    monkeypatch.setitem(OPTIMIZERS, SignSGD, rule)
    net = NeuralNetClassifier(
        module__hidden=(6,), optimizer=SignSGD, max_epochs=3, batch_size=16, random_state=0
    )
    candidates = [
        {"lr": 0.01},
        {"lr": 0.003, "optimizer__average": 0.5},
        {"lr": 0.02, "optimizer__weight_decay": 0.1},
    ]

    assert_parity(net, candidates, X, y)
