"""Values reported in the paper (Linsley, Ashok, Govindarajan, Liu, Serre: Stable and expressive recurrent vision
models, NeurIPS 2020) and the authors' published result files. None of it was measured here."""

# F1 on PF14, PF20, PF25 of the hGRU with 15x15 kernels and 25 channels, trained and tested on the same length;
# ConvLSTM and feedforward control likewise. The keys are the study's runs.
PATHFINDER_F1 = {
    "hgru_cbptt": (0.9918, 0.9144, 0.8469),
    "hgru_bptt": (0.9931, 0.9395, 0.8402),
    "hgru_bptt_every_step": (0.9896, 0.9325, 0.8385),
    "hgru_tbptt": (0.9569, 0.8506, 0.7613),
    "hgru_rbp": (0.8332, 0.7690, 0.7424),
    "hgru_crbp": (0.9804, 0.9725, 0.9679),
    "ff6": (0.8825, 0.7765, 0.7208),
    "convlstm_bptt": (0.8944, None, None),
}
# F1 on PF14 at t = 40, far past the trained steps.
PATHFINDER_F1_FAR = {"hgru_crbp": 0.97, "hgru_bptt": 0.19, "hgru_cbptt": 0.86}

# COCO panoptic val2017, config -> PQ in percent, trainable parameters, memory in training in MB a GPU.
PANOPTIC = {
    "panoptic_R50_baseline": (39.39, 45751590, 8979),
    "panoptic_R50_bptt_1step": (40.94, 44968038, None),
    "panoptic_R50_bptt_2steps": (41.45, 44968038, None),
    "panoptic_R50_bptt_3steps": (41.55, 44968038, 13418),
    "panoptic_R50_bptt_5steps": (41.54, 44968038, 16853),
    "panoptic_R50_rbp": (41.22, 44968038, None),
    "panoptic_R50_crbp_5steps": (41.39, 44968038, 12006),
    "panoptic_R50_crbp_10steps": (41.48, 44968038, 12000),
    "panoptic_R50_crbp": (41.63, 44968038, 12000),
    "panoptic_R101_baseline_3x": (43.31, 64691494, None),
    "panoptic_R101_bptt_3steps_3x": (43.49, 63907942, None),
    "panoptic_R101_crbp_3x": (43.62, 63907942, None),
}
# PQ of things and stuff where they are given.
PANOPTIC_PARTS = {"panoptic_R50_baseline": (45.91, 29.55), "panoptic_R50_crbp": (48.47, 31.32)}
# C-RBP 20 steps, R-50: processing step -> PQ (steps 2 to 9 all have 12.5).
PANOPTIC_BY_STEP = {
    9: 12.5, 10: 15.9, 11: 24.9, 12: 31.9, 13: 36.3, 14: 38.7, 15: 40.0, 16: 40.7, 17: 41.1, 18: 41.4, 19: 41.5,
    20: 41.59, 22: 41.63, 23: 41.64,
}  # fmt: skip
# Section 3.3: a C-RBP 20-step R-FPN took about twice the feedforward FPN's training time.
TRAINING_TIME_RATIO = 2.0
