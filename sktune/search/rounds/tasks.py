"""Rounds and stages of a search, as tasks that scikit-learn's callbacks hear of."""

from contextlib import contextmanager


class SearchTasks:
    """Tells callbacks of a part of a search: the whole of it, or a stage that has rounds.

    Parameters
    ----------
    search : search of sktune's
    context : CallbackContext or None
        That of the task which the part is a subtask of; None with a version of scikit-learn that
        has no callbacks.
    name : str, default="search"
        The name of the task.
    """

    def __init__(self, search, context, name="search"):
        self.search = search
        self.context = None
        if context is not None:
            self.context = context.subcontext(task_name=name, max_subtasks=None)
            self.context.call_on_fit_task_begin(estimator=search)

    def begin(self, name):
        """Return the tasks of a stage of this name, which begins."""
        return SearchTasks(self.search, self.context, name)

    @contextmanager
    def evaluating(self, name, candidates):
        """Tell of a task in which candidates are evaluated.

        Yields the arguments that ``evaluate_candidates`` needs beside the candidates.
        """
        if self.context is None:
            # earlier releases of scikit-learn do not have the argument
            yield {}
            return
        context = self.context.subcontext(
            task_name=name,
            max_subtasks=len(candidates) * self.search.n_splits_,
            sequential_subtasks=False,
        )
        context.call_on_fit_task_begin(estimator=self.search)
        yield {"callback_ctx": context}
        context.call_on_fit_task_end(estimator=self.search)

    def end(self):
        """Tell that the part is over."""
        if self.context is not None:
            self.context.call_on_fit_task_end(estimator=self.search)
