"""Loading of the kernel, where Triton is installed.

Triton is part of torch's builds for CUDA. Beside other builds it can be installed by itself.
"""

from sktune.runtime.optional import import_optional


def load_kernel():
    """Return the kernel that trains lanes, a function of Triton's.

    Raises
    ------
    ImportError
        If Triton is not installed.
    """
    import_optional("triton", "to train an epoch in one launch", "Triton", "triton")
    from sktune.engine.steps.launched.kernel.train import train_lanes

    return train_lanes
