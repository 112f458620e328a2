"""The ways to take training steps in many nets.

Each is a class with the five methods of :class:`sktune.engine.steps.base.StepBackend`. The planner
takes the first of ``STEP_BACKENDS`` that has no blocker.
"""

from sktune.engine.steps.compiled import CompiledSteps
from sktune.engine.steps.launched.backend import LaunchedSteps
from sktune.engine.steps.recorded import RecordedSteps
from sktune.engine.steps.stacked import StackedSteps

STEP_BACKENDS = [LaunchedSteps, RecordedSteps, CompiledSteps, StackedSteps]

__all__ = ["STEP_BACKENDS", "CompiledSteps", "LaunchedSteps", "RecordedSteps", "StackedSteps"]
