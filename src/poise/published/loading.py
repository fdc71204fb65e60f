"""Load checkpoints that the original projects published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from poise.detection_model import DetectionModel
from poise.models.one_to_one import starting_weights
from poise.published.classes import class_rows, names_of, remap_rows
from poise.published.coco import name_classes
from poise.published.keys import prepared, rules_of, translate
from poise.storage import load_weights
from poise.suggestions import plural


@dataclass(frozen=True)
class LoadReport:
    """Result of loading a published checkpoint."""

    loaded: tuple[str, ...]  # keys of the checkpoint that were loaded
    unexpected: tuple[str, ...]  # keys of the checkpoint that the model does not have
    missing: tuple[str, ...]  # parameters and buffers of the model that the checkpoint does not have
    reinitialized: tuple[
        str, ...
    ] = ()  # parameters that keep their initial values because the number of classes differs
    remapped: tuple[str, ...] = ()  # parameters of which the rows of classes with the same name were loaded
    remapped_classes: tuple[str, ...] = ()  # names of those classes
    new_classes: tuple[str, ...] = ()  # names of the other classes, whose rows keep their initial values

    def __str__(self) -> str:
        lines = [f"{plural(len(self.loaded), 'tensor')} loaded"]
        for what, keys in (
            ("unexpected keys", self.unexpected),
            ("missing", self.missing),
            ("initialized for other classes", self.reinitialized),
            ("classes matched by name", self.remapped_classes),
            ("new classes", self.new_classes),
        ):
            if keys:
                lines.append(f"{len(keys)} {what}: {', '.join(keys[:10])}{' …' if len(keys) > 10 else ''}")
        return "\n".join(lines)


def load_published(
    model: DetectionModel,
    source: str | Path | Mapping[str, Tensor],
    remap_classes: bool = False,
    source_classes: Sequence[str] | None = None,
) -> LoadReport:
    """Load a checkpoint of the original project into a model; 80 classes without names get COCO's names.

    Args:
        model: from ``create_model`` of the matching name.
        source: a ``.pth``/``.ckpt``/``.safetensors`` file, or a state dict with the original's key names; weights may
            be nested under ``state_dict``, ``ema``, ``ema_state_dict`` or ``model``.
        remap_classes: accept another number of classes: in the layers that depend on it, load the classes with names
            that both have (``model.set_classes`` names them); the others keep their initial values.
        source_classes: names of the checkpoint's classes; by default COCO's of 80, those of Objects365 of 365.

    Returns:
        Loaded, unexpected and missing keys.

    Raises:
        ValueError: the file has no weights, no key fits, or a tensor has another shape.
    """
    plain = plain_state(_read(source) if isinstance(source, (str, Path)) else source)
    rules = rules_of(model.name)
    if rules is None:
        raise ValueError(f"no published checkpoints are known for '{model.name}'")
    state = prepared(model.name, plain)
    own = model.network.state_dict()
    filled: dict[str, Tensor] = {}
    loaded: list[str] = []
    unexpected: list[str] = []
    reinitialized: list[str] = []
    remapped: list[str] = []
    shared: set[str] = set()
    for key, value in state.items():
        known, name = translate(key, rules)
        if known and name is None:
            loaded.append(key)
        elif name is None or name not in own:
            unexpected.append(key)
        elif own[name].shape == value.shape:
            filled[name] = value.to(own[name].dtype)
            loaded.append(key)
        elif remap_classes and _differs_by_classes(own[name], value, model.num_classes):
            mixed, common = _by_name(model, name, own[name], value, source_classes)
            shared.update(common)
            (remapped if common else reinitialized).append(name)
            filled.update({name: mixed} if common else {})
            loaded.extend([key] if common else [])
        else:
            raise ValueError(
                f"'{key}' has shape {tuple(value.shape)}, the model's '{name}' {tuple(own[name].shape)}; "
                f"is it the checkpoint of '{model.name}' with {model.num_classes} classes? "
                "(remap_classes=True, or --weights of poise train, accepts another number of classes)"
            )
    if not filled:
        raise ValueError(f"none of the {len(state)} keys fits '{model.name}'; the first is '{next(iter(state), '-')}'")
    filled = starting_weights(own, filled)
    model.network.load_state_dict(filled, strict=False)
    if not (reinitialized or remapped):
        name_classes(model)
    model.network.backbone.freeze_as_pretrained()
    missing = [name for name in own if name not in filled and name not in reinitialized]
    kept = tuple(name for name in model.class_names if name in shared)
    new = tuple(name for name in model.class_names if name not in shared) if reinitialized or remapped else ()
    changed = tuple(reinitialized), tuple(remapped)
    return LoadReport(tuple(loaded), tuple(unexpected), tuple(missing), *changed, kept, new)


def _by_name(
    model: DetectionModel, name: str, own: Tensor, value: Tensor, source_classes: Sequence[str] | None
) -> tuple[Tensor, list[str]]:
    """Return a parameter with the rows of the classes that both have, and their names."""
    theirs = source_classes or names_of(value, own, model.num_classes)
    if theirs is None:
        return own, []
    rows = class_rows(model.class_names, theirs)
    mixed = remap_rows(own, value, rows, len(theirs), class_major=name.rpartition(".")[0].endswith("offsets"))
    if mixed is None:
        return own, []
    return mixed, [known for known, row in zip(model.class_names, rows, strict=True) if row >= 0]


def _read(path: str | Path) -> Mapping[str, object]:
    if not Path(path).is_file():
        raise ValueError(f"checkpoint '{path}': no such file")
    content = load_weights(path)
    if str(content.get("format", "")).startswith("poise-"):
        raise ValueError(
            f"checkpoint '{path}': a file of poise, which names its model; load it without a name (poise.load)"
        )
    return content


def plain_state(content: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the weights of a checkpoint, the averaged ones if there are any, without prefixes of wrappers.

    MMEngine's hook stores the averaged weights as ``state_dict``, and those of the last step as ``ema_state_dict``.
    """
    for nest in ("ema", "state_dict", "ema_state_dict", "model"):
        inner = content.get(nest)
        if isinstance(inner, Mapping):
            return plain_state(inner)
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    averaged = {key: value for key, value in state.items() if key.startswith("avg_model.")}  # Lightning's form
    for prefix, part in (("avg_model.", averaged), ("model.", state)):
        if part and all(key.startswith(("model.", "avg_model.")) for key in state):
            state = {key.removeprefix(prefix): value for key, value in part.items()}
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _differs_by_classes(own: Tensor, other: Tensor, num_classes: int) -> bool:
    """Return whether two shapes differ only in a first axis of classes (or classes and background)."""
    counted = own.shape[0] % num_classes == 0 or own.shape[0] == num_classes + 1
    return own.shape[1:] == other.shape[1:] and counted
