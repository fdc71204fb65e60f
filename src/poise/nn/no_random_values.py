"""Building networks whose weights are loaded afterward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

# the functions of torch.nn.init either arrive here themselves or draw with these methods
_DRAWS = frozenset({Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_uniform_})


class NoRandomValues(TorchFunctionMode):
    """Inside, new weights are not filled with random numbers: their values are undefined.

    For networks whose weights are all loaded afterward, or that have none (device ``meta``). No random generator is
    used, and building takes half of the time.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else named["tensor"]
        return func(*args, **named)
