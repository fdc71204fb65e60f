"""Parts of ``create_model``: exchanged (assigner, sampler, criterion) or added (neck, class_balance, one_to_one)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from poise.criteria.object_balance import check_exponent
from poise.criteria.varifocal import VarifocalCriterion
from poise.detectors.parts import dense_branch
from poise.models.assigners import builders, swap_assigner
from poise.models.class_balance import CLASS_BALANCE, balance_classes
from poise.models.criteria import CRITERIA, swap_criterion
from poise.models.necks import NECKS, extend_neck
from poise.models.notation import Part
from poise.models.object_balance import set_object_balance
from poise.models.one_to_one import ONE_TO_ONE, add_one_to_one
from poise.models.options import option_types
from poise.models.samplers import SAMPLERS, swap_sampler
from poise.models.schemes import assignment_mismatch
from poise.models.values import to_part

ASSIGNER_OPTIONS = "topk radius sigma alpha beta initial_epochs temperature iterations threshold bag bag_threshold"
ASSIGNER_OPTIONS += " bag_topk mu mu_total location detach_weights overlap_function gamma1"
ASSIGNER_OPTIONS += " iou_weight distance_alpha distance_beta"
ASSIGNER_OPTIONS += " form bag_radius bag_bounds_negatives beta_small mu_small gamma1_small weights"
CRITERION_OPTIONS = (
    "class_loss box_loss l1_alpha l1_gamma l1_beta box_weight class_weight l1_epoch gamma2 gamma2_small negative"
    " detach_importance gamma iou_weighted initial_weight refined_weight box_normalizer initial_iou objectness_loss"
)
OWN_OPTIONS = {  # options of models that set a part of theirs, which another part would not read
    "assigner": ASSIGNER_OPTIONS.split(),
    "criterion": [*CRITERION_OPTIONS.split(), "initial_epochs"],
    "sampler": ["regions", "iou_bins"],
}
SAME = {"regions": "size"}  # names that options of models and of parts have for one thing


def exchange_parts(
    network: nn.Module,
    model: str,
    given: Mapping[str, object],
    options: Mapping[str, object],
    *,
    object_balance: float | None = None,
) -> dict[str, str]:
    """Exchange parts of a network.

    Args:
        model: its name, for messages.
        given: parts or their texts, by ``assigner``, ``sampler``, ``criterion``, ``neck``, ``class_balance`` and
            ``one_to_one``.
        options: the options of the model that were given with them.
        object_balance: exponent of the object balance of the criterion that the model then has.

    Returns:
        The texts of the parts, which rebuild them.

    Raises:
        ValueError: an unknown or incompatible part, a wrong option of it, or an option that is given twice.
    """
    known = registries()
    parts = {kind: to_part(value, kind, known[kind]) for kind, value in given.items()}
    replaced = {}
    own_criterion = _dense_criterion(network)
    own_options = _own_options(own_criterion)
    if "neck" in parts:
        extend_neck(network, parts["neck"], model)
    if "assigner" in parts:
        replaced["assigner"] = swap_assigner(network, parts["assigner"], model)
    if _dense_criterion(network) is not own_criterion:
        _refuse_criterion_options(parts["assigner"], own_options["criterion"], options)
    if "criterion" in parts:  # last: in place of the criterion that the assigner brings
        replaced["criterion"] = swap_criterion(network, parts["criterion"], model)
        _check_assignment(network, parts["criterion"], model)
        _check_object_balance(parts["criterion"], object_balance)
    if "sampler" in parts:
        replaced["sampler"] = swap_sampler(network, parts["sampler"], model)
    if object_balance is not None:
        set_object_balance(network, object_balance, model)
    if "class_balance" in parts:  # in the criterion that the model has now
        balance_classes(network, parts["class_balance"], model)
    if {"class_balance", "one_to_one"} <= parts.keys():
        raise ValueError("class_balance and one_to_one exclude each other: its running totals are those of one branch")
    if "one_to_one" in parts:  # a copy of the branch as it is now
        add_one_to_one(network, parts["one_to_one"], model, options)
    for kind, part in ((kind, parts[kind]) for kind in replaced):
        build = registries()[kind][part.name]
        if kind == "sampler" and part.options is None:  # a bare name keeps the numbers of the model that it has
            kept = option_types(build)
            unread = {name: value for name, value in options.items() if SAME.get(name, name) not in kept}
        else:
            unread = dict(options)
        if replaced[kind]:
            _refuse_second(kind, part, own_options[kind], build, unread)
    return {kind: str(part) for kind, part in parts.items()}


def registries() -> dict[str, Mapping[str, Callable[..., object]]]:
    """Return the classes and functions of exchangeable parts by kind and name."""
    parts: dict[str, Mapping[str, Callable[..., object]]] = {"assigner": builders(), "sampler": SAMPLERS}
    return {**parts, "criterion": CRITERIA, "neck": NECKS, "class_balance": CLASS_BALANCE, "one_to_one": ONE_TO_ONE}


def part_text(value: object) -> str:
    """Return the text of a part of any kind, from which an equal one is built.

    Raises:
        ValueError: the value is none of them.
    """
    reasons = []
    for kind, known in registries().items():
        try:
            return str(to_part(value, kind, known))
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError(reasons[0])


def _dense_criterion(network: nn.Module) -> object:
    branch = dense_branch(network)
    return None if branch is None else branch.criterion


def _own_options(criterion: object) -> dict[str, list[str]]:
    """Return ``OWN_OPTIONS``; VarifocalNet's alpha is that of its class loss, other models' that of their assigner."""
    if not isinstance(criterion, VarifocalCriterion):
        return OWN_OPTIONS
    assigner = [name for name in OWN_OPTIONS["assigner"] if name != "alpha"]
    return {**OWN_OPTIONS, "assigner": assigner, "criterion": [*OWN_OPTIONS["criterion"], "alpha"]}


def _check_assignment(network: nn.Module, criterion: Part, model: str) -> None:
    branch = dense_branch(network)
    if branch is not None and (reason := assignment_mismatch(branch.assigner, branch.criterion)):
        raise ValueError(
            f"criterion '{criterion.name}' is not compatible with '{model}' and its assigner: {reason}; give an "
            "assigner that returns them, or leave the criterion out"
        )


def _check_object_balance(criterion: Part, exponent: float | None) -> None:
    own = (criterion.options or {}).get("object_balance")
    if isinstance(own, float | int):
        check_exponent(own)
        if exponent is not None:
            raise ValueError(
                f"object_balance is given twice: in criterion='{criterion}' and as object_balance={exponent!r}; "
                "leave one out"
            )


def _refuse_criterion_options(assigner: Part, names: Sequence[str], options: Mapping[str, object]) -> None:
    """Refuse options of the criterion that an assigner has replaced by the one that it brings."""
    for option in [name for name in names if name in options]:
        raise ValueError(
            f"{option}={options[option]!r} belongs to the criterion of the model, which assigner='{assigner}' replaces "
            "by its own: leave it out"
        )


def _refuse_second(
    kind: str, part: Part, names: Sequence[str], build: Callable[..., object], options: Mapping[str, object]
) -> None:
    """Refuse options of the part that was replaced."""
    for option in [name for name in names if name in options]:
        name, value = SAME.get(option, option), options[option]
        if name in (part.options or {}):
            raise ValueError(f"{name} is given twice: in {kind}='{part}' and as {option}={value!r}; leave one out")
        better = Part(part.name, {**(part.options or {}), name: value})
        cure = f"write {kind}='{better}'" if name in option_types(build) else "leave it out"
        raise ValueError(
            f"{option}={value!r} belongs to the {kind} of the model, which {kind}='{part}' replaces: {cure}"
        )
