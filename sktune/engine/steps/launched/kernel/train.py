"""The kernel: each of its programs trains a lane for an epoch."""

import triton
import triton.language as tl

from sktune.engine.steps.launched import layout
from sktune.engine.steps.launched.kernel.criteria import compare
from sktune.engine.steps.launched.kernel.operations import mix, operate
from sktune.engine.steps.launched.kernel.products import multiply, sum_rows
from sktune.engine.steps.launched.kernel.updates import update

_N_INPUTS = tl.constexpr(layout.N_INPUTS)
_N_OUTPUTS = tl.constexpr(layout.N_OUTPUTS)
_WEIGHT = tl.constexpr(layout.WEIGHT)
_BIAS = tl.constexpr(layout.BIAS)
_FIRST = tl.constexpr(layout.FIRST)
_STOP = tl.constexpr(layout.STOP)
_INPUTS_AT = tl.constexpr(layout.INPUTS_AT)
_OUTPUTS_AT = tl.constexpr(layout.OUTPUTS_AT)
_SLOPES_AT = tl.constexpr(layout.SLOPES_AT)
_INPUT_SLOPES_AT = tl.constexpr(layout.INPUT_SLOPES_AT)
_STAGE_COLUMNS = tl.constexpr(layout.N_STAGE_COLUMNS)
_LANE_COLUMNS = tl.constexpr(layout.N_LANE_COLUMNS)
_STEP_COLUMNS = tl.constexpr(layout.N_STEP_COLUMNS)


@triton.jit
def _gather(
    X,
    order,
    n_rows,
    inputs,
    n_features,
    stop,
    operations,
    settings,
    thresholds,
    scales,
    key,
    KNOWN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Copy the rows of a batch, and apply the operations before the first linear layer."""
    for row_start in range(0, n_rows, ROWS):
        rows = row_start + tl.arange(0, ROWS)
        places = tl.load(order + rows, rows < n_rows, other=0).to(tl.int64)
        for start in range(0, n_features, COLUMNS):
            features = start + tl.arange(0, COLUMNS)
            is_there = (rows[:, None] < n_rows) & (features[None, :] < n_features)
            at = X + places[:, None] * n_features + features[None, :]
            values = tl.load(at, is_there, other=0.0)
            values, _ = operate(
                values,
                tl.zeros_like(values),
                rows,
                features,
                n_features,
                0,
                stop,
                operations,
                settings,
                thresholds,
                scales,
                key,
                KNOWN,
            )
            at = inputs + rows[:, None] * n_features + features[None, :]
            tl.store(at, values, is_there)


@triton.jit
def _forward(
    stage,
    memory,
    n_rows,
    flat,
    operations,
    settings,
    thresholds,
    scales,
    key,
    KNOWN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the outputs of a stage, and the slopes of its operations."""
    n_inputs = tl.load(stage + _N_INPUTS)
    n_outputs = tl.load(stage + _N_OUTPUTS)
    inputs = memory + tl.load(stage + _INPUTS_AT)
    weight = flat + tl.load(stage + _WEIGHT)
    bias = tl.load(stage + _BIAS)
    n_biases = tl.where(bias >= 0, n_outputs, 0)
    for row_start in range(0, n_rows, ROWS):
        rows = row_start + tl.arange(0, ROWS)
        for start in range(0, n_outputs, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            values = multiply(
                inputs,
                n_inputs,
                1,
                rows,
                n_rows,
                weight,
                1,
                n_inputs,
                columns,
                n_outputs,
                n_inputs,
                INNER,
                PRECISION,
            )
            values += tl.load(flat + bias + columns, columns < n_biases, other=0.0)[None, :]
            values, slopes = operate(
                values,
                tl.full(values.shape, 1.0, values.dtype),
                rows,
                columns,
                n_outputs,
                tl.load(stage + _FIRST),
                tl.load(stage + _STOP),
                operations,
                settings,
                thresholds,
                scales,
                key,
                KNOWN,
            )
            at = memory + rows[:, None] * n_outputs + columns[None, :]
            is_there = (rows[:, None] < n_rows) & (columns[None, :] < n_outputs)
            tl.store(at + tl.load(stage + _OUTPUTS_AT), values, is_there)
            tl.store(at + tl.load(stage + _SLOPES_AT), slopes, is_there)


@triton.jit
def _pass_back(
    stage,
    memory,
    n_rows,
    flat,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Multiply the slopes of a stage's inputs by the gradient of its inputs."""
    n_inputs = tl.load(stage + _N_INPUTS)
    n_outputs = tl.load(stage + _N_OUTPUTS)
    gradient = memory + tl.load(stage + _SLOPES_AT)
    input_slopes = memory + tl.load(stage + _INPUT_SLOPES_AT)
    for row_start in range(0, n_rows, ROWS):
        rows = row_start + tl.arange(0, ROWS)
        for start in range(0, n_inputs, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            found = multiply(
                gradient,
                n_outputs,
                1,
                rows,
                n_rows,
                flat + tl.load(stage + _WEIGHT),
                n_inputs,
                1,
                columns,
                n_inputs,
                n_outputs,
                INNER,
                PRECISION,
            )
            is_there = (rows[:, None] < n_rows) & (columns[None, :] < n_inputs)
            at = input_slopes + rows[:, None] * n_inputs + columns[None, :]
            tl.store(at, found * tl.load(at, is_there, other=0.0), is_there)


@triton.jit
def _learn(
    stage,
    memory,
    n_rows,
    flat,
    first,
    second,
    lane,
    numbers,
    RULE: tl.constexpr,
    NESTEROV: tl.constexpr,
    PENALIZED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Change weight and bias of a stage by their gradients; return the penalty on them."""
    n_inputs = tl.load(stage + _N_INPUTS)
    n_outputs = tl.load(stage + _N_OUTPUTS)
    inputs = memory + tl.load(stage + _INPUTS_AT)
    gradient = memory + tl.load(stage + _SLOPES_AT)
    weight = tl.load(stage + _WEIGHT)
    bias = tl.load(stage + _BIAS)
    penalty = tl.full((), 0.0, flat.dtype.element_ty)
    for row_start in range(0, n_outputs, ROWS):
        rows = row_start + tl.arange(0, ROWS)
        for start in range(0, n_inputs, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            found = multiply(
                gradient,
                1,
                n_outputs,
                rows,
                n_outputs,
                inputs,
                n_inputs,
                1,
                columns,
                n_inputs,
                n_rows,
                INNER,
                PRECISION,
            )
            is_there = (rows[:, None] < n_outputs) & (columns[None, :] < n_inputs)
            at = weight + rows[:, None] * n_inputs + columns[None, :]
            penalty += update(
                flat,
                first,
                second,
                at,
                is_there,
                found,
                lane,
                numbers,
                RULE,
                NESTEROV,
                PENALIZED,
            )
    if bias >= 0:
        for start in range(0, n_outputs, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            update(
                flat,
                first,
                second,
                bias + columns,
                columns < n_outputs,
                sum_rows(gradient, n_rows, columns, n_outputs, INNER),
                lane,
                numbers,
                RULE,
                NESTEROV,
                False,
            )
    return penalty


# Triton would compile the kernel anew for other numbers: for 1, and for multiples of 16.
_NUMBERS = ["n_parameters", "memory_size", "n_places", "most_steps", "n_dropouts", "n_stages"]


@triton.jit(do_not_specialize=_NUMBERS)
def train_lanes(
    flat,
    first,
    second,
    memory,
    n_parameters,
    memory_size,
    X,
    target,
    weight,
    order,
    target_order,
    starts,
    n_places,
    most_steps,
    rows_of_net,
    streams,
    n_steps,
    keys,
    lane_columns,
    step_columns,
    thresholds,
    scales,
    n_dropouts,
    stages,
    n_stages,
    operations,
    settings,
    option,
    losses,
    LOSS: tl.constexpr,
    WEIGHTED: tl.constexpr,
    RULE: tl.constexpr,
    NESTEROV: tl.constexpr,
    PENALIZED: tl.constexpr,
    KNOWN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    CLASS_ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Train some lanes for an epoch, one in each program.

    Parameters
    ----------
    flat, first, second : pointer to (L, n_parameters)
        The parameters, and the optimizer's state.
    memory : pointer to (n, memory_size)
        Where each program keeps what it computes on the way.
    X, target, weight : pointer
        The rows of all tables.
    order, target_order : pointer to (S, n_places)
        Where the rows of each stream are in X, and among the targets, in the order of the epoch.
    starts : pointer to (S, most_steps + 1)
        Where each step begins in the order.
    rows_of_net, streams, n_steps, keys : pointer to (n,)
        Of each program: the row of its lane in the net, its stream, how many steps it takes, and
        the hash of its seed and the epoch.
    lane_columns, step_columns : pointer to (n, 7), (n, most_steps, 3)
    thresholds, scales : pointer to (n, n_dropouts)
    stages, operations, settings : pointer
        The net, see :mod:`sktune.engine.steps.launched.layout`.
    option : pointer
        To what parametrizes the criterion.
    losses : pointer to (n, most_steps)
    """
    program = tl.program_id(0)
    row = tl.load(rows_of_net + program).to(tl.int64)
    stream = tl.load(streams + program).to(tl.int64)
    flat += row * n_parameters
    first += row * n_parameters
    second += row * n_parameters
    memory += program.to(tl.int64) * memory_size
    thresholds += program * n_dropouts
    scales += program * n_dropouts
    lane = lane_columns + program * _LANE_COLUMNS
    starts += stream * (most_steps + 1)
    key = tl.load(keys + program).to(tl.uint64)
    last = stages + (n_stages - 1) * _STAGE_COLUMNS
    for step in range(tl.load(n_steps + program)):
        start = tl.load(starts + step)
        n_rows = tl.load(starts + step + 1) - start
        place = stream * n_places + start
        step_key = mix(key, step)
        _gather(
            X,
            order + place,
            n_rows,
            memory + tl.load(stages + _INPUTS_AT),
            tl.load(stages + _N_INPUTS),
            tl.load(stages + _FIRST),
            operations,
            settings,
            thresholds,
            scales,
            step_key,
            KNOWN,
            ROWS,
            COLUMNS,
        )
        tl.debug_barrier()
        for number in range(n_stages):
            _forward(
                stages + number * _STAGE_COLUMNS,
                memory,
                n_rows,
                flat,
                operations,
                settings,
                thresholds,
                scales,
                step_key,
                KNOWN,
                ROWS,
                COLUMNS,
                INNER,
                PRECISION,
            )
            tl.debug_barrier()
        loss = compare(
            memory + tl.load(last + _OUTPUTS_AT),
            memory + tl.load(last + _SLOPES_AT),
            n_rows,
            tl.load(last + _N_OUTPUTS),
            target_order + place,
            target,
            weight,
            option,
            LOSS,
            WEIGHTED,
            CLASS_ROWS,
            CLASSES,
        )
        tl.debug_barrier()
        numbers = step_columns + (program * most_steps + step) * _STEP_COLUMNS
        for number in range(n_stages):
            stage = stages + (n_stages - 1 - number) * _STAGE_COLUMNS
            # the gradient of the inputs needs the weight as it was in the forward pass
            if tl.load(stage + _INPUT_SLOPES_AT) >= 0:
                _pass_back(stage, memory, n_rows, flat, ROWS, COLUMNS, INNER, PRECISION)
                tl.debug_barrier()
            loss += _learn(
                stage,
                memory,
                n_rows,
                flat,
                first,
                second,
                lane,
                numbers,
                RULE,
                NESTEROV,
                PENALIZED,
                ROWS,
                COLUMNS,
                INNER,
                PRECISION,
            )
        tl.store(losses + program * most_steps + step, loss)
        tl.debug_barrier()
