"""Loss terms by group, as the status line and the curves show them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from poise.evaluate.history import _with_grouped_losses as with_grouped_losses
from poise.evaluate.history import read_history
from poise.evaluate.loss_terms import group_of, grouped

TERMS = {
    "cls": "decoder",
    "d0.loss_bbox": "decoder",
    "enc_loss_iou": "encoder",
    "d1.dn_loss_cls": "denoising",
    "dn_loss_iou": "denoising",
    "d0.loss_cls_aux0": "auxiliary queries 0",
    "iou_aux1": "auxiliary queries 1",
    "bbox1": "auxiliary head 1",
    "rpn_cls": "proposals",
    "cls_one2many": "one-to-many queries",
    "d0.loss_iou_mixed": "one-to-many supervision",
}


@pytest.mark.parametrize("term", TERMS)
def test_the_group_of_a_term(term: str) -> None:
    assert group_of(term) == TERMS[term]


def test_many_terms_are_summed_and_few_stay() -> None:
    sums = grouped(dict.fromkeys(TERMS, 0.5))
    assert sums["decoder"] == 1.0 and sum(sums.values()) == pytest.approx(0.5 * len(TERMS)) and len(sums) < len(TERMS)
    few = {"cls": 0.5, "bbox": 0.25}
    assert grouped(few) == few


def test_curves_are_drawn_by_group_while_the_table_keeps_all(tmp_path: Path) -> None:
    names = ["epoch", "loss/total", *(f"loss/{term}" for term in TERMS)]
    with (tmp_path / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([names, [1, 5, *[0.5] * len(TERMS)], [2, 2.5, *[0.25] * len(TERMS)]])
    columns = read_history(tmp_path / "results.csv")
    drawn = with_grouped_losses(columns)
    assert len(columns) == len(names) and drawn["loss/total"] == [5, 2.5]
    assert drawn["loss/decoder"] == [1.0, 0.5] and drawn["loss/auxiliary head 1"] == [0.5, 0.25]
