"""Fully sharded data parallel training (FSDP2): every process stores a shard of each parameter, gradient and
optimizer state.

PyTorch's ``fully_shard`` gathers the parameters of a layer while it runs and frees them afterward. Gradients are
averaged as with ``DistributedDataParallel``, so a step computes the same. Checkpoints contain full tensors: a sharded
run can be resumed without sharding or with another number of processes, and vice versa.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from poise.detectors.parts import child
from poise.recipes import TrainSettings
from poise.structures import StepOutput

MIN_FRACTION = 0.01  # of all parameters: smaller layers are sharded together with the rest of the network
_REGISTERED: set[type] = set()  # output classes whose tensors PyTorch traverses


def apply_fsdp(network: nn.Module, settings: TrainSettings, device: torch.device) -> None:
    """Shard the parameters among the processes, in place; call it before making the optimizer.

    Raises:
        ValueError: settings that exclude each other, or a single process; the message names the cure.
    """
    _refuse(settings)
    from torch.distributed.device_mesh import init_device_mesh  # imported here: other trainings do not need it
    from torch.distributed.fsdp import fully_shard
    from torch.export import register_dataclass

    if StepOutput not in _REGISTERED:  # so that hooks on its losses reduce the gradients
        register_dataclass(StepOutput, serialized_type_name="poise.StepOutput")
        _REGISTERED.add(StepOutput)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    single = {parameter for parameter in network.parameters() if not parameter.ndim}  # FSDP2 does not shard scalars
    for part in (*layers_to_shard(network), network):
        fully_shard(part, mesh=mesh, ignored_params=single)


def _refuse(settings: TrainSettings) -> None:
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        raise ValueError(
            "train.fsdp shards the network among processes, and there is one: start several with "
            "torchrun --nproc-per-node N, or leave train.fsdp out"
        )
    for name, wrong in (
        ("train.precision=fp16", settings.precision == "fp16"),
        ("train.compile", settings.compile),
        ("train.channels_last", settings.channels_last),
    ):
        if wrong:
            cure = "use bf16 or fp32" if "fp16" in name else "switch one of them off"
            raise ValueError(f"train.fsdp cannot be combined with {name}: {cure}")


def layers_to_shard(network: nn.Module) -> list[nn.Module]:
    """Return the layers of backbone, encoder and decoder that are sharded separately, inner layers first."""
    least = MIN_FRACTION * _size(network)
    lists = [c for c in _modules(network, "backbone") if isinstance(c, (nn.ModuleList, nn.Sequential))]
    parts = [part for name in ("encoder", "decoder") if (part := child(network, name)) is not None]
    lists += [found for part in parts if isinstance(found := child(part, "layers"), nn.ModuleList)]
    worth = [child for children in reversed(lists) for child in children if _size(child) >= least]
    return list(dict.fromkeys(worth))


def _modules(network: nn.Module, name: str) -> list[nn.Module]:
    part = child(network, name)
    return [] if part is None else list(part.modules())


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def is_sharded(network: nn.Module) -> bool:
    """Return whether :func:`apply_fsdp` was called on the network."""
    return hasattr(network, "unshard")


def is_dtensor(value: object) -> bool:
    """Return whether a tensor is a ``DTensor``, of which this process stores a shard."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def to_local(value: Tensor) -> Tensor:
    """Return the shard of this process, in the same memory; a plain tensor is returned as it is."""
    return value.to_local() if is_dtensor(value) else value  # type: ignore[attr-defined]


def full_tensors(value: Any) -> Any:
    """Gather full tensors, also in nested dicts and lists; every process must call this."""
    if is_dtensor(value):
        return value.full_tensor()
    if isinstance(value, Mapping):
        return {key: full_tensors(inner) for key, inner in value.items()}
    return [full_tensors(inner) for inner in value] if isinstance(value, list) else value


def distribute_like(value: Tensor, like: Any) -> Tensor:
    """Shard a full tensor as ``like`` is sharded; every process passes the full tensor."""
    if not is_dtensor(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def distribute_all_like(values: Mapping[str, Tensor], likes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Apply :func:`distribute_like` to every entry."""
    return {name: distribute_like(value, likes[name]) if name in likes else value for name, value in values.items()}


def distribute_optimizer_state(payload: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Shard a stored optimizer state as its parameters are sharded."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        index: {
            name: distribute_like(value, parameters[index])
            if isinstance(value, Tensor) and value.shape == parameters[index].shape
            else value
            for name, value in entry.items()
        }
        for index, entry in payload["state"].items()
    }
    return {**payload, "state": state}


def average_replicated_gradients(gradients: Sequence[Tensor]) -> None:
    """Average over processes the gradients of scalars, which are replicated."""
    for gradient in gradients:
        if not is_dtensor(gradient):
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the L2 norm of the full gradient, the same in every process."""
    squares = [torch.zeros((), device=gradients[0].device), torch.zeros((), device=gradients[0].device)]
    for gradient in gradients:
        squares[is_dtensor(gradient)] += to_local(gradient).float().square().sum()
    dist.all_reduce(squares[1])
    return (squares[0] + squares[1]).sqrt()


def clip_gradients(gradients: Sequence[Tensor], limit: float, norm: Tensor) -> None:
    """Scale a gradient with this norm down to ``limit``, as ``torch.nn.utils.clip_grads_with_norm_`` does."""
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        to_local(gradient).mul_(factor)


@contextmanager
def unsharded(network: nn.Module) -> Iterator[None]:
    """Keep the full network in every process inside the context, so that they can run independently (validation).

    Buffers are broadcast from the first process, as ``DistributedDataParallel`` does.
    """
    if not is_sharded(network):
        yield
        return
    root: Any = network
    for buffer in network.buffers():
        dist.broadcast(buffer, 0)
    parts: list[Any] = [module for module in network.modules() if is_sharded(module)]
    root.set_reshard_after_forward(False)
    for module in parts:
        module.unshard()
    try:
        yield
    finally:
        for module in parts:
            module.reshard()
        root.set_reshard_after_forward(True)
        root.set_reshard_after_forward(False, recurse=False)  # the rest is needed again at once, for the gradient
