# panoptic_R50_crbp.yaml as a LazyConfig: the same model, data, optimizer and schedule.
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from crbp_d2.cells import GalaHGRUCell
from crbp_d2.data import PanopticDatasetMapper
from crbp_d2.evaluation import panoptic_evaluator
from crbp_d2.modeling import RecurrentMaskHead, RecurrentPanopticFPN
from crbp_d2.recurrence import learning_rule

model = model_zoo.get_config("common/models/panoptic_fpn.py").model
model._target_ = RecurrentPanopticFPN
model.backbone.bottom_up.freeze_at = 2
model.roi_heads.mask_head = L(RecurrentMaskHead)(
    input_shape=ShapeSpec(channels=256, height=14, width=14),
    recurrence=L(learning_rule)(
        name="crbp",
        steps=20,
        cell=L(GalaHGRUCell)(channels=256, kernel_size=3, norm="GN", timescale="${..steps}"),
        num_terms=15,
        bound=0.95,
        reduction="sum",
    ),
    num_classes="${..num_classes}",
    conv_dim=256,
    readout_norm="BN",  # "SyncBN" on several GPUs
    penalty_weight=0.001,
)

dataloader = model_zoo.get_config("common/data/coco_panoptic_separated.py").dataloader
dataloader.train.mapper._target_ = PanopticDatasetMapper
dataloader.test.mapper._target_ = PanopticDatasetMapper
dataloader.evaluator = L(panoptic_evaluator)(
    name="${..test.dataset.names}", folder="${...train.output_dir}/inference/${..test.dataset.names}"
)

optimizer = model_zoo.get_config("common/optim.py").SGD
lr_multiplier = model_zoo.get_config("common/coco_schedule.py").lr_multiplier_1x

train = model_zoo.get_config("common/train.py").train
train.output_dir = "output/panoptic_R50_crbp_lazy"
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.eval_period = 0
