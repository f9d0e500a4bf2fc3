"""Why does the first optimizer take five seconds? PyTorch imports its compiler, only to say what it must leave out.

So does the first model that is made on the device `meta`. Every child of the worker would pay for that anew, and the
judge once.
"""

import gc
from types import FunctionType

import torch


def skip_compiler() -> None:
    """Let the functions that PyTorch keeps from its compiler be called without importing `torch._dynamo`.

    They are those that one of its private wrappers is around. A PyTorch that does it differently is only slower, and
    `torch.compile` works as before.
    """
    wrapper = getattr(torch.optim.Optimizer.add_param_group, "__code__", None)
    for function in gc.get_objects():
        if type(function) is FunctionType and function.__code__ is wrapper:
            variables = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
            for name, cell in variables:
                if name == "fn" and not hasattr(cell.cell_contents, "__dynamo_disable"):
                    setattr(cell.cell_contents, "__dynamo_disable", cell.cell_contents)
