"""Masks that the panoptic output does not need."""

import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from helpers.paths import ROOT

from crbp_d2 import add_crbp_config


def model_of(*options):
    torch.manual_seed(0)
    cfg = get_cfg()
    add_crbp_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/quick/panoptic_R18_crbp_toy.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *options])
    threshold = cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH
    return build_model(cfg).eval(), threshold


@torch.no_grad()
def test_what_panoptic_fusion_drops_by_its_score_needs_no_mask(monkeypatch):
    """As docs/GETTING_STARTED.md says: the box head's threshold at that of fusion, and the same segments."""
    plain, threshold = model_of()
    short, _ = model_of("MODEL.ROI_HEADS.SCORE_THRESH_TEST", threshold)
    image = torch.randint(256, (3, 96, 96), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    outputs = []
    for model in (plain, short):
        model.roi_heads.mask_head.predictor.bias.fill_(0.5)

        def scores(predictions, proposals):
            generator = torch.Generator().manual_seed(0)
            logits = [torch.randn(len(p), 6, generator=generator) for p in proposals]
            return tuple(x.softmax(dim=1) for x in logits)

        monkeypatch.setattr(model.roi_heads.box_predictor, "predict_probs", scores)
        outputs.append(model([{"image": image}])[0])
    many, few = (output["instances"] for output in outputs)
    kept = many.scores >= threshold
    assert 0 < len(few) == kept.sum() < len(many)
    assert torch.equal(few.pred_masks, many.pred_masks[kept])
    (plain_map, plain_segments), (map, segments) = (output["panoptic_seg"] for output in outputs)
    assert torch.equal(map, plain_map) and segments == plain_segments
    assert any(segment["isthing"] for segment in segments)
