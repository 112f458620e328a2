"""The tasks of a call as a stream, which releases each task when it is asked for."""


class TaskStream:
    """Tasks that can be iterated over once; a task that was handed out is not kept.

    joblib's own backends keep no task either, so that its arguments can be freed early.

    Parameters
    ----------
    first : list of tuple
        The tasks that have been taken already. The list is emptied.
    n_tasks : int or None
        How many tasks there are in all, where that is known.
    rest : iterable of tuple, default=()
        The tasks that follow.
    """

    def __init__(self, first, n_tasks, rest=()):
        self.first = first
        self.n_tasks = n_tasks
        self.rest = rest

    def __iter__(self):
        first = self.first
        rest = self.rest
        # the iterator alone holds the tasks from here on
        del self.first
        del self.rest
        first.reverse()
        while first:
            yield first.pop()
        yield from rest


class SizedTaskStream(TaskStream):
    """A stream whose number of tasks is known: joblib prints it with its progress."""

    def __len__(self):
        return self.n_tasks


def begin_stream(tasks):
    """Take the first of an iterable of tasks; return a stream of all of them."""
    n_tasks = len(tasks) if hasattr(tasks, "__len__") else None
    rest = iter(tasks)
    first = []
    for task in rest:
        first.append(task)
        break
    return make_stream(first, n_tasks, rest)


def make_stream(first, n_tasks, rest=()):
    """Return a stream, which has a length if `n_tasks` is known."""
    if n_tasks is None:
        return TaskStream(first, n_tasks, rest)
    return SizedTaskStream(first, n_tasks, rest)
