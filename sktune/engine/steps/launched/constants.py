"""What the kernel is compiled for."""

from dataclasses import dataclass

import torch

from sktune.engine.steps.launched.program import RULES

# The most rows and columns of a tile in float32; a sum is taken so many numbers at once.
_TILE = 64
_INNER = 16
# The most numbers of the outputs of some rows that are compared with targets at once.
_COMPARED = 4096


@dataclass(frozen=True)
class Constants:
    """The arguments of the kernel that it is compiled for, by their names there.

    Parameters
    ----------
    LOSS, RULE : int
        Opcodes.
    WEIGHTED, NESTEROV, PENALIZED : bool
    KNOWN : int
        The bits of the opcodes of the net's operations.
    ROWS, COLUMNS, INNER : int
        The sides of the tiles that are computed at once.
    CLASS_ROWS, CLASSES : int
        The rows and columns of the outputs that are compared with targets at once.
    PRECISION : str
        How factors of float32 are multiplied.
    """

    LOSS: int
    WEIGHTED: bool
    RULE: int
    NESTEROV: bool
    PENALIZED: bool
    KNOWN: int
    ROWS: int
    COLUMNS: int
    INNER: int
    CLASS_ROWS: int
    CLASSES: int
    PRECISION: str

    @property
    def options(self):
        """How Triton compiles: with threads enough to hold a tile in their registers."""
        n_warps = 8 if self.ROWS * self.COLUMNS > 2048 else 4
        return {"num_warps": n_warps, "num_stages": 1}


def choose_constants(program, lanes, *, allows_tf32=False):
    """Return what the kernel is compiled for.

    Parameters
    ----------
    program : Program
    lanes : list of Lane
        Those of a group.
    allows_tf32 : bool, default=False
        Whether the factors of products may be rounded.
    """
    specs = [lane.spec for lane in lanes]
    # a number of float64 takes two registers
    tile = _TILE if lanes[0].rows.dtype == torch.float32 else _TILE // 2
    classes = _round_up(program.widths[-1], 16)
    return Constants(
        LOSS=program.loss.opcode,
        WEIGHTED=any(lane.rows.weight is not None for lane in lanes),
        RULE=RULES[program.rule],
        NESTEROV=bool(specs[0].optimizer.options.get("nesterov")),
        PENALIZED=any(spec.l1 or spec.l2 for spec in specs),
        KNOWN=program.known,
        ROWS=min(tile, _round_up(max(max(spec.batch_sizes) for spec in specs), 16)),
        COLUMNS=min(tile, _round_up(max(program.widths), 16)),
        INNER=_INNER,
        CLASS_ROWS=max(1, min(tile, _COMPARED // classes)),
        CLASSES=classes,
        PRECISION="tf32" if allows_tf32 else "ieee",
    )


def _round_up(n, least):
    """Return the power of 2 that is not less than n, nor than `least`."""
    return max(least, 1 << (n - 1).bit_length())
