"""The compared schemes: the claims of docs/claims.md, and the groups of later works of docs/later_schemes.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CLASSES = {  # names of the classes of each data set, in their order
    "bccd": ("Platelets", "RBC", "WBC"),
    "scenes": ("disc", "ring", "square", "triangle", "star", "cross", "crescent", "gear"),
}


@dataclass(frozen=True)
class DataLimits:
    """How a claim is trained on a data set.

    Args:
        epochs: what the share of the claim allows.
        every: epochs between two validations.
        precision: of all runs; bf16 is the faster one on processors with instructions for it, fp32 on the others.
        changes: further settings of variants that collapse otherwise.
    """

    epochs: int
    every: int
    precision: str = "fp32"
    changes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


OPENABLE = {"model.options.openable_sides": True}  # as published, FCOS's boxes close within 300 steps of scenes


@dataclass(frozen=True)
class Claim:
    """A claim: the variants of its inequalities, and the data sets.

    ``others`` are trained once for orientation, ``own`` are schemes of poise, compared with every seed in the number of
    steps that the variants of the claim fix, those that are ``tried`` on the first data set alone.

    A group of ``later`` variants has no inequality of its own: it has the number of steps of the claim ``base``, and
    each variant is compared with the one that it names, which is of that claim or of the group's ``own``.
    """

    number: int
    compared: tuple[str, ...]
    others: tuple[str, ...] = ()
    data: tuple[str, ...] = ("bccd", "scenes")
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    seeds: tuple[int, ...] = (0, 1, 2)
    limits: tuple[DataLimits, ...] = (DataLimits(72, 4), DataLimits(10, 1))
    own: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    base: int | None = None
    later: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    @property
    def table(self) -> str:
        return self.name or f"claim_{self.number}"

    def limits_on(self, data: str) -> DataLimits:
        """How the claim is trained on a data set."""
        return self.limits[self.data.index(data)]

    def own_on(self, data: str) -> tuple[str, ...]:
        """The schemes of poise on a data set."""
        return self.own + (self.tried if data == self.data[0] else ())

    def variants_on(self, data: str) -> tuple[str, ...]:
        """All schemes but ``others`` on a data set."""
        return (*self.compared, *self.own_on(data), *self.later)


CLAIMS = (
    Claim(
        1,
        ("DW", "VarifocalNet", "ATSS", "FCOS"),
        ("TOOD", "GFL", "PAA", "AutoAssign", "SimOTA", "DW, no refinement", "VarifocalNet, no refinement"),
        limits=(
            DataLimits(72, 4, "bf16"),
            DataLimits(6, 1, changes=dict.fromkeys(("FCOS", "FCOS, balanced"), OPENABLE)),
        ),
        own=("FCOS, balanced", "ATSS, balanced", "ATSS, covered"),
        tried=(
            "ATSS, covered, balanced",
            "VarifocalNet, covered, balanced",
            "VarifocalNet, covered",
            "ATSS, covered, centerness",
        ),
    ),
    Claim(
        4,
        (
            "guide, never detached",
            "guide, detached from the start",
            "guide, detached after detach_epoch",
            "no guide",
            "no guide, ATSS",
            "no guide, SimOTA",
        ),
        limits=(DataLimits(28, 4), DataLimits(3, 1)),
    ),
    Claim(
        3,
        (
            "RetinaNet, varifocal",
            "RetinaNet, focal",
            "FoveaBox, varifocal",
            "FoveaBox, focal",
            "ATSS, varifocal",
            "ATSS, focal",
            "VarifocalNet, varifocal",
            "VarifocalNet, focal",
            "VarifocalNet, quality focal",
        ),
        ("VarifocalNet, no star", "VarifocalNet, no refinement"),
        limits=(DataLimits(40, 4, "bf16"), DataLimits(4, 1)),
    ),
    Claim(
        2,
        ("Faster R-CNN", "Libra R-CNN"),
        ("+ OHEM", "+ IoU-balanced sampling", "+ article's sampling", "+ BFP", "+ balanced L1"),
        limits=(DataLimits(60, 4, "bf16"), DataLimits(6, 1)),
    ),
    Claim(
        5,
        ("K=0 (Deformable-DETR++)", "K=1 ATSS", "K=2 ATSS + Faster R-CNN", "K=2 ATSS + ATSS"),
        data=("bccd",),
        rates=(3e-4, 6e-4, 1.2e-3),
        seeds=(0,),
        limits=(DataLimits(60, 4),),
    ),
    Claim(
        6,
        (
            "DW",
            "negative: neither factor",
            "bag: 9 nearest a level",
            "bag: within 1.5 strides",
            "mu 3",
            "mu 8",
        ),
        ("negative: 1 - positive weight", "negative: probability alone", "negative: importance alone"),
        limits=(DataLimits(40, 4), DataLimits(4, 1)),
    ),
)
LATER = (
    Claim(
        7,
        (),
        own=("TOOD", "ATSS, one-to-one alone"),
        data=("bccd",),
        limits=(DataLimits(72, 4, "bf16"),),
        base=1,
        later={
            "RFAssigner": "DW",
            "RFLA": "FCOS",
            "ATSS, NWD": "ATSS",
            "ATSS, SimD": "ATSS",
            "ATSS, GCD": "ATSS",
            "FCOS, floor 16 px": "FCOS",
            "TOOD, floor 16 px": "TOOD",
            "TOOD, balanced": "TOOD",
            "ATSS, one-to-one and one-to-many": "ATSS, one-to-one alone",
            "ATSS, matchability-aware loss": "ATSS",
            "ATSS, IoU-aware BCE": "ATSS",
            "ATSS, position-supervised loss": "ATSS",
            "FCOS, EFL": "FCOS",
            "FCOS, effective number": "FCOS",
        },
        name="later_dense",
    ),
    Claim(
        8,
        (),
        own=("Deformable-DETR++",),
        data=("bccd",),
        rates=(3e-4, 6e-4, 1.2e-3),
        limits=(DataLimits(60, 4),),
        base=5,
        later=dict.fromkeys(
            (
                "matchability-aware loss",
                "IoU-aware BCE",
                "position-supervised loss and cost",
                "high-order cost",
                "MS-DETR",
                "distinct queries",
                "mosaic and mixup",
            ),
            "Deformable-DETR++",
        ),
        name="later_queries",
    ),
    Claim(
        9,
        (),
        data=("bccd",),
        limits=(DataLimits(60, 4, "bf16"),),
        base=2,
        later={"Seesaw": "Faster R-CNN", "EQL v2": "Faster R-CNN", "effective number": "Faster R-CNN"},
        name="later_classes",
    ),
)
ORDER = (  # of the claims and groups on their data sets, the one whose verdicts are wanted first
    (1, "bccd"),
    (2, "bccd"),
    (1, "scenes"),
    *((number, "bccd") for number in (3, 5, 4, 6)),
    *((number, "bccd") for number in (7, 8, 9)),
    *((number, "scenes") for number in (2, 3, 6, 4)),
)


def claim_of(number: int) -> Claim:
    """The claim or group of this number."""
    return next(claim for claim in (*CLAIMS, *LATER) if claim.number == number)


STATEMENTS: dict[int, tuple[tuple[str, str], ...]] = {  # (better, worse) as the articles have it
    1: (
        ("DW", "VarifocalNet"),
        ("VarifocalNet", "ATSS"),
        ("ATSS", "FCOS"),
        ("FCOS, balanced", "FCOS"),
        ("FCOS, balanced", "DW"),
        ("ATSS, balanced", "ATSS"),
        ("ATSS, balanced", "DW"),
        ("ATSS, covered", "ATSS"),
        ("ATSS, covered, balanced", "ATSS, balanced"),
        ("ATSS, covered, centerness", "ATSS, covered"),
        ("VarifocalNet, covered", "VarifocalNet"),
        ("VarifocalNet, covered, balanced", "VarifocalNet, covered"),
        ("VarifocalNet, covered, balanced", "DW"),
    ),
    2: (("Libra R-CNN", "Faster R-CNN"),),
    3: (
        ("RetinaNet, varifocal", "RetinaNet, focal"),
        ("FoveaBox, varifocal", "FoveaBox, focal"),
        ("ATSS, varifocal", "ATSS, focal"),
        ("VarifocalNet, varifocal", "VarifocalNet, focal"),
        ("VarifocalNet, varifocal", "VarifocalNet, quality focal"),
    ),
    4: (
        ("guide, detached after detach_epoch", "no guide"),
        ("guide, detached after detach_epoch", "guide, never detached"),
        ("guide, detached after detach_epoch", "guide, detached from the start"),
        ("no guide", "no guide, ATSS"),
        ("no guide", "no guide, SimOTA"),
    ),
    5: (
        ("K=1 ATSS", "K=0 (Deformable-DETR++)"),
        ("K=2 ATSS + Faster R-CNN", "K=1 ATSS"),
        ("K=2 ATSS + Faster R-CNN", "K=2 ATSS + ATSS"),
    ),
    6: tuple(
        ("DW", other)
        for other in (
            "negative: neither factor",
            "bag: 9 nearest a level",
            "bag: within 1.5 strides",
            "mu 3",
            "mu 8",
        )
    ),
}


def statements(claim: Claim) -> list[tuple[str, str]]:
    """The inequalities (better, worse) of a claim or group whose schemes it has."""
    if claim.later:
        return list(claim.later.items())
    known = set(claim.variants_on(claim.data[0]))
    return [pair for pair in STATEMENTS[claim.number] if known.issuperset(pair)]
