"""Run the checks of a contract, and name the promise that a part breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class BrokenContract(AssertionError):
    """A part breaks a promise of its contract; the message names the part, the promise and the check."""


def run_checks(part: str, checks: Iterable[Callable[..., None]], *arguments: object) -> None:
    """Run every check with the arguments. The first line of its docstring is the promise.

    Raises:
        BrokenContract: a check failed, or the part raised an error in it; the checks after it were not run.
        RuntimeError: Python runs with ``-O``, which removes the checks.
    """
    if not __debug__:
        raise RuntimeError("poise.testing checks by assertions, which python -O removes: run it without -O")
    for check in checks:
        try:
            check(*arguments)
        except Exception as error:  # a part that fails breaks the promise as well
            promise = (check.__doc__ or check.__name__).splitlines()[0].rstrip(".")
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            detail = f": {kind}{str(error).strip().splitlines()[0]}" if str(error).strip() else ""
            raise BrokenContract(f"{part} breaks its contract: {promise} ({check.__name__}){detail}") from error
