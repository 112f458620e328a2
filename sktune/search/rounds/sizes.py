"""How many candidates a round has."""

import joblib
import torch
from skorch import NeuralNet

from sktune.bridge.collect import net_of
from sktune.bridge.seam import chosen_backend
from sktune.engine.planner import count_lanes
from sktune.runtime.devices import resolve_device

# A search is divided into so many rounds at least: a sampler has to learn from some of them.
_FEWEST_ROUNDS = 3


def default_batch_size(search, n_candidates):
    """Return how many candidates a search evaluates in a round.

    Networks: as many as the device trains at no extra cost, but a third of all candidates at most.
    On a CPU a group has the candidates of one split, 32 at most, and elsewhere all fits of the
    round, 512 at most: that is 32 candidates, or 512 divided by the number of splits. Three rounds
    of 30 have found about as good candidates as 90 rounds of one.

    Others, which are fitted one by one: as many as keep all jobs busy.

    Parameters
    ----------
    search : search with ``estimator``, ``n_jobs`` and ``n_splits_``
    n_candidates : int
        All candidates of the search.
    """
    net = net_of(search.estimator)
    if not isinstance(net, NeuralNet):
        n_jobs = joblib.effective_n_jobs(search.n_jobs)
        return max(1, -(-n_jobs // search.n_splits_))
    options = getattr(chosen_backend(), "options", {})
    device = options.get("device") or net.device
    kind = "cpu" if device is None else torch.device(resolve_device(device)).type
    n_lanes = options.get("max_lanes") or count_lanes(kind)
    # candidates that race are fitted split by split
    is_by_split = kind == "cpu" or search.racing
    n_at_once = n_lanes if is_by_split else n_lanes // search.n_splits_
    return max(1, min(n_at_once, -(-n_candidates // _FEWEST_ROUNDS)))
