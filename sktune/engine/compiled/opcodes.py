"""The integers by which a program tells the kernels what to compute.

A net is a table of integers (n_links, N_COLUMNS), a row for each link, in the order of computing. A
link is an operation, which writes to a table of its own, a *value*; or a layer (an activation,
dropout or a scale), which works in place on the value of the operation before it. Several
operations may write to one value, each to some of its features; they stand one after the other.
Value 0 is the input of the net.

For dropout, the column after the opcode is the index of the layer, and the next one how many times
it was called before in the same step.
"""

# The columns of the table.
OPCODE = 0
# the value that the operation writes to
OUT = 1
DROPOUT_INDEX = 1
# the value or the values that it reads
A = 2
DROPOUT_CALL = 2
B = 3
# the features that it reads and writes
N_INPUTS = 4
N_OUTPUTS = 5
# the features of its value
WIDTH = 6
# where weight and bias begin among the flat parameters; negative if there is none
WEIGHT = 7
BIAS = 8
# whether a step's first gradient of the weight and of the bias is that of this link: another use of
# the parameter adds to it
IS_FIRST_WEIGHT = 9
IS_FIRST_BIAS = 10
# how many of the weights are penalized here: none where another link has the same ones
N_PENALIZED = 11
# the tables of gradients of the value, and of what it reads
SLOT = 12
SLOT_A = 13
SLOT_B = 14
# what becomes of the gradients of what it reads: NOTHING, WRITTEN or ADDED
FLOW_A = 15
FLOW_B = 16
# the first of the features that it writes, or that it reads; for batch normalisation, where its
# numbers stand in the state of the net
POSITION = 17
# for an embedding, the row without a gradient, or -1; for batch normalisation, whether it has
# state; for an average, whether it counts the padding
OPTION = 18
# Of an operation on images: what it reads, what it writes, and the windows that it looks through.
# Sequences are images of one row.
IN_CHANNELS = 19
IN_HEIGHT = 20
IN_WIDTH = 21
OUT_CHANNELS = 22
OUT_HEIGHT = 23
OUT_WIDTH = 24
KERNEL_HEIGHT = 25
KERNEL_WIDTH = 26
STRIDE_Y = 27
STRIDE_X = 28
PADDING_Y = 29
PADDING_X = 30
DILATION_Y = 31
DILATION_X = 32
GROUPS = 33
# the neighbouring features that a batch normalisation takes as one
N_POSITIONS = 34
N_COLUMNS = 35

# Tables of gradients: that of the outputs lies in their own table; some values need none.
IN_PLACE = -1
NO_SLOT = -2
NOTHING = 0
WRITTEN = 1
ADDED = 2

# Layers that work in place. That of an activation bears its name in `sktune.modules.activations`,
# in capitals; others are made of these by `sktune.engine.compiled.reading.composing`.
DROPOUT_LAYER = 1
RELU = 2
LEAKY_RELU = 3
ELU = 4
GELU = 5
TANH = 6
SIGMOID = 7
SILU = 8
SCALE = 9
HARDTANH = 10
CLAMP = 11
THRESHOLD = 12
HARDSHRINK = 13
SOFTSHRINK = 14
SOFTSIGN = 15
SOFTPLUS = 16
MISH = 17

# Operations.
FIRST_OPERATION = 32
INPUT = 32
LINEAR = 33
# features of a value are copied to features of another one
COPY = 34
ADD = 35
PRODUCT = 36
LAYER_NORM = 37
BATCH_NORM = 38
EMBEDDING = 39
CONVOLUTION = 40
MAX_POOL = 41
AVERAGE_POOL = 42
# a weight that nothing reads, and that only penalties train
IDLE = 43

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

# Where the turns of gradient clipping begin among the options of a step: behind those of the
# optimizer, which are padded up to there.
FIRST_CLIP = 8

# How the losses of the rows of a batch become one, the first of a loss's options: their mean, their
# sum, or their sum over that of the rows' weights.
MEAN = 0
SUM = 1
WEIGHTED_MEAN = 2
