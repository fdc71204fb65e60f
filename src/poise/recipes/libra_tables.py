"""Ablation tables of Libra R-CNN's article (Pang et al. 2019), and of its pyramid on other detectors."""

from __future__ import annotations

from poise.recipes.ablation import ArticleTable, options, rows

LIBRA_TABLES: dict[str, ArticleTable] = {
    "libra_parts": ArticleTable(
        "Libra R-CNN's three balances, and hard example mining, on Faster R-CNN",
        "libra_faster_rcnn_r18_fpn",
        rows(
            {
                "Faster R-CNN": options(sampler="random", refine="off", box_loss="l1"),
                "+ OHEM": options(sampler="ohem", refine="off", box_loss="l1"),
                "+ IoU-balanced sampling": options(sampler="balanced", refine="off", box_loss="l1"),
                "+ article's sampling": options(sampler="article", refine="off", box_loss="l1"),
                "+ BFP": options(sampler="random", refine="non_local", box_loss="l1"),
                "+ balanced L1": options(sampler="random", refine="off", box_loss="balanced_l1"),
                "Libra R-CNN": {},
            }
        ),
    ),
    "libra_retinanet_parts": ArticleTable(
        "Libra RetinaNet's parts; beta 0.11 is the published loss, beta 1 the article's",
        "libra_retinanet_r18_fpn",
        rows(
            {
                "RetinaNet": options(refine="off", box_loss="l1"),
                "+ BFP": options(box_loss="l1"),
                "+ balanced L1, beta 0.11": options(refine="off"),
                "+ balanced L1, beta 1": options(refine="off", l1_beta=1.0),
                "Libra RetinaNet": {},
            }
        ),
    ),
    "libra_pyramid": ArticleTable(
        "the balanced feature pyramid: levels averaged and added back alone, refined by a convolution or non-locally",
        "libra_faster_rcnn_r18_fpn",
        rows(
            {
                "plain pyramid": options(sampler="random", box_loss="l1", refine="off"),
                "average alone, no refinement": options(sampler="random", box_loss="l1", refine="none"),
                "+ 3x3 convolution": options(sampler="random", box_loss="l1", refine="conv"),
                "+ non-local": options(sampler="random", box_loss="l1", refine="non_local"),
                **{
                    f"+ non-local, at stride {stride}": options(
                        sampler="random", box_loss="l1", refine="non_local", refine_level=level
                    )
                    for level, stride in {1: 8, 3: 32}.items()
                },
            }
        ),
    ),
    "libra_sampling": ArticleTable(
        "number of IoU bins of Libra R-CNN's sampling, against random sampling and hard example mining",
        "libra_faster_rcnn_r18_fpn",
        rows(
            {
                "random": options(sampler="random", refine="off", box_loss="l1"),
                "OHEM": options(sampler="ohem", refine="off", box_loss="l1"),
                **{
                    f"{bins} bins": options(sampler="article", iou_bins=bins, refine="off", box_loss="l1")
                    for bins in (2, 3, 5)
                },
                "3 bins, published code": options(sampler="balanced", refine="off", box_loss="l1"),
            }
        ),
    ),
    "libra_box_loss": ArticleTable(
        "alpha and gamma of balanced L1, against L1 and smooth L1",
        "faster_rcnn_r18_fpn",
        rows(
            {
                "L1": {},
                "smooth L1": options(box_loss="smooth_l1"),
                "smooth L1, beta 0.5": options(box_loss="smooth_l1", l1_beta=0.5),
                **{
                    f"balanced L1, alpha {alpha}, gamma {gamma}": options(
                        box_loss="balanced_l1", l1_alpha=alpha, l1_gamma=gamma
                    )
                    for alpha, gamma in ((0.2, 1.0), (0.3, 1.0), (0.5, 1.0), (0.5, 1.5), (0.5, 2.0))
                },
            }
        ),
    ),
    "libra_pyramid_on_other_models": ArticleTable(
        "the balanced feature pyramid after the pyramids of other detectors",
        "fcos_r18_fpn",
        rows(
            {
                f"{title}{neck}": {"model.name": f"{name}_r18_fpn", **changes}
                for title, name in {
                    "FCOS": "fcos",
                    "ATSS": "atss",
                    "GFL": "gfl",
                    "DW": "dw",
                    "Faster R-CNN": "faster_rcnn",
                }.items()
                for neck, changes in {"": {}, " + BFP": options(neck="balanced_pyramid")}.items()
            }
        ),
    ),
}
