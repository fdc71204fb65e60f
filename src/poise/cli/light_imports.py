"""Imports of torchvision and timm without PyTorch's compiler, which takes half of a short command's start."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_COMPILER = ("torch._dynamo", "torch._dynamo.utils")


def import_without_compiler() -> None:
    """Import torchvision and timm; what they import of the compiler is imported when it is first called.

    torchvision's RoIAlign asks the compiler whether a device is supported, and a model of timm excludes a function from
    compilation. Both import ``torch._dynamo`` for this, 1.3 s of CPU time. Where they need more of it, they are
    imported in the ordinary way.
    """
    if not {"torchvision", "timm", "torch._dynamo"} & sys.modules.keys():
        collecting = gc.isenabled()
        gc.disable()
        with _deferred_compiler():
            try:
                import timm  # noqa: F401
                import torchvision  # noqa: F401
            except (ImportError, AttributeError):  # another name of the compiler: the caller imports it as usual
                pass
        gc.freeze()  # a module stays: collections, also the one at the end, need not look at it
        if collecting:
            gc.enable()


@contextmanager
def _deferred_compiler() -> Iterator[None]:
    """Replace the two functions of the compiler by others that import it when they are called."""
    import torch.compiler

    package, utils = (ModuleType(name) for name in _COMPILER)
    package.__path__ = []
    vars(utils)["is_compile_supported"] = _is_compile_supported
    disable = torch.compiler.disable
    sys.modules.update(zip(_COMPILER, (package, utils), strict=True))
    torch.compiler.disable = functools.partial(_disable_when_called, disable)
    try:
        yield
    finally:
        torch.compiler.disable = disable
        for name in _COMPILER:
            sys.modules.pop(name)


def _is_compile_supported(device_type: str) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))


def _disable_when_called(
    disable: Callable[..., Any], function: Callable[..., Any] | None = None, **options: Any
) -> Any:
    """``torch.compiler.disable``, applied when the function is first called."""
    if function is None:
        return functools.partial(_disable_when_called, disable, **options)
    compiled: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*values: Any, **named: Any) -> Any:
        if not compiled:
            compiled.append(disable(function, **options))
        return compiled[0](*values, **named)

    return call
