"""The columns of the tables by which the host tells the kernel what to compute."""

# Of a stage, which is a linear layer and the operations that follow it.
N_INPUTS = 0
N_OUTPUTS = 1
# where weight and bias begin among the parameters; -1 where there is no bias
WEIGHT = 2
BIAS = 3
# its operations among those of the net: the first, and the first that is no longer one of them
FIRST = 4
STOP = 5
# where its tables begin in the memory of a lane: inputs, outputs, and the derivatives of the latter
INPUTS_AT = 6
OUTPUTS_AT = 7
SLOPES_AT = 8
# the derivatives of its inputs; -1 in the first stage, whose inputs have none
INPUT_SLOPES_AT = 9
N_STAGE_COLUMNS = 10

# Of an operation: its opcode, and for dropout the column of its rate, the number of the layer, and
# how many times the layer was called before in the same step.
OPCODE = 0
RATE = 1
LAYER = 2
CALL = 3
N_OPERATION_COLUMNS = 4

# Of a lane: the weight decay that is part of the gradient, the penalties, and four numbers of the
# optimizer.
DECAY = 0
L1 = 1
L2 = 2
OPTION = 3
N_LANE_COLUMNS = 7

# Of a step in a lane: the learning rate, and two numbers that follow from the count of steps.
N_STEP_COLUMNS = 3
