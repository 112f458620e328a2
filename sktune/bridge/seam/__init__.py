"""The one place where private names of scikit-learn and joblib are bound.

``tests/bridge/test_seam.py`` fails when one of these names moves.
"""

from sktune.bridge.seam.outer import make_engine, open_outer
from sktune.bridge.seam.parallel import (
    FallbackToBackend,
    chosen_backend,
    fused_tasks,
    get_active_backend,
    intercept,
    other_backend,
    pass_on,
    run_in_turn,
)
from sktune.bridge.seam.searches import (
    fit_together,
    read_scorer,
    route_params,
    take_split,
    take_test_rows,
)
from sktune.bridge.seam.skipping import (
    is_lost,
    is_skipped,
    let_begin_until,
    make_lost_result,
    make_skipped_result,
)
from sktune.bridge.seam.streams import TaskStream, begin_stream, make_stream
from sktune.bridge.seam.tasks import (
    FIT_FUNCTIONS,
    PlannedFit,
    Task,
    is_fit,
    read_tasks,
    run_task,
)

__all__ = [
    "FIT_FUNCTIONS",
    "FallbackToBackend",
    "PlannedFit",
    "Task",
    "TaskStream",
    "begin_stream",
    "chosen_backend",
    "fit_together",
    "fused_tasks",
    "get_active_backend",
    "intercept",
    "is_fit",
    "is_lost",
    "is_skipped",
    "let_begin_until",
    "make_engine",
    "make_lost_result",
    "make_skipped_result",
    "make_stream",
    "open_outer",
    "other_backend",
    "pass_on",
    "read_scorer",
    "read_tasks",
    "route_params",
    "run_in_turn",
    "run_task",
    "take_split",
    "take_test_rows",
]
