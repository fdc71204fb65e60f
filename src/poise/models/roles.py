"""A detector without its training-only parts, or with an auxiliary head as the detector."""

from __future__ import annotations

from torch import Tensor, nn

from poise.detection_model import DetectionModel
from poise.detectors import QueryDetector
from poise.detectors.parts import has_one_to_one, is_query_detector
from poise.models.catalog import NAMES
from poise.models.files import build, describe
from poise.models.one_to_one import deployed_names
from poise.models.options import option_types
from poise.structures import Batch, Detections, Progress, StepOutput


class NoSuchHead(ValueError):
    """The model has no auxiliary head with this name."""

    def __init__(self, model: DetectionModel, head: str) -> None:
        known = head_names(model)
        has = f"its auxiliary heads are {', '.join(known)}" if known else "it has no auxiliary heads"
        cure = "" if known else ": take a model that was trained with some (co_deformable_detr_*, co_dino_*)"
        super().__init__(f"'{model.name}' has no head '{head}'; {has}{cure}")


class HeadAlone(nn.Module):
    """A network whose detections are those of one of its auxiliary branches."""

    def __init__(self, network: QueryDetector, number: int) -> None:
        super().__init__()
        self.network, self.number = network, number

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        output: StepOutput = self.network(batch, progress)
        return output

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        assert self.network.collaboration is not None
        return self.network.collaboration.predict(self.network.encode(pixels, sizes), sizes, self.number)


def head_names(model: DetectionModel) -> tuple[str, ...]:
    """Return the names of the auxiliary heads; a second head of one kind is ``atss2``, and so on."""
    network = model.network
    return network.collaboration.names if is_query_detector(network) and network.collaboration is not None else ()


def with_head(model: DetectionModel, head: str) -> DetectionModel:
    """Return a model with the same weights, whose detections are those of the auxiliary head ``head``.

    Raises:
        NoSuchHead: there is no such head; the message names the heads.
    """
    network = model.network
    if head not in head_names(model) or not is_query_detector(network):
        raise NoSuchHead(model, head)
    return model.with_network(HeadAlone(network, head_names(model).index(head)))


def without_training_parts(model: DetectionModel) -> DetectionModel:
    """Return a copy of the model without auxiliary heads, further queries, and one-to-many branches.

    Its detections are equal bit by bit. A model without such parts is returned unchanged. The one-to-one branch
    becomes the only branch of a model without NMS.
    """
    network = model.network
    if has_one_to_one(network):
        return _without_one_to_many(model)
    if not is_query_detector(network):
        return model
    without: dict[str, str | int | bool] = {} if network.collaboration is None else {"auxiliary_heads": ""}
    without |= {"recollect": False} if network.recollect else {}
    without |= {} if network.one_to_many is None else {"one_to_many_queries": 0}
    without |= {} if network.query_groups == 1 else {"query_groups": 1}
    if (mixed := network.mixed_supervision) is not None:
        without |= {"one_to_many": "", **({"cross_first": True} if mixed.cross_first else {})}
    if not without:
        return model
    described = describe(model)
    plain = build({**described, "options": {**described["options"], **without}})
    own = model.state_dict()
    plain.load_state_dict({key: own[key][: len(value)] if value.ndim else own[key] for key, value in _state(plain)})
    return plain.to(next(model.parameters()).device).train(model.training)


def _without_one_to_many(model: DetectionModel) -> DetectionModel:
    described = describe(model)
    options = {name: value for name, value in described["options"].items() if name != "one_to_one"}
    options["nms_threshold"] = None
    if "voting_sigma" in option_types(NAMES[model.name].builder):
        options["voting_sigma"] = 0.0
    plain = build({**described, "options": options})
    plain.load_state_dict(deployed_names(model.state_dict()))
    return plain.to(next(model.parameters()).device).train(model.training)


def _state(model: DetectionModel) -> list[tuple[str, Tensor]]:
    return list(model.state_dict().items())
