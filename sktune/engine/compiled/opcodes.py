"""The integers by which a program tells the kernels what to compute.

A chain of layers is a table of integers (n_links, 5), a row for each layer. The columns after
the opcode hold the numbers of inputs and outputs of a linear layer, and the positions of its weight
and bias among the flat parameters; the position of the bias is negative if there is none. For
dropout, the second column is the index of the layer, and the third how many times it was called
before in the same step.
"""

# The columns of the table.
OPCODE = 0
N_INPUTS = 1
DROPOUT_INDEX = 1
N_OUTPUTS = 2
DROPOUT_CALL = 2
WEIGHT = 3
BIAS = 4

# Layers. That of an activation bears its name in `sktune.modules.activations`, in capitals.
LINEAR = 0
DROPOUT_LAYER = 1
RELU = 2
LEAKY_RELU = 3
ELU = 4
GELU = 5
TANH = 6
SIGMOID = 7
SILU = 8

# Losses.
CROSS_ENTROPY = 0
SQUARED_ERROR = 1
# of the probabilities that a softmax makes of the outputs
PROBABILITY_NLL = 2
ABSOLUTE_ERROR = 3
HUBER = 4
SMOOTH_ABSOLUTE_ERROR = 5
# of probabilities whose logits are the outputs
BINARY_CROSS_ENTROPY = 6
# of counts, the logarithms of whose means are the outputs
POISSON = 7
