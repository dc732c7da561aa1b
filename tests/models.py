"""Parameters for tests: a model small enough to train, and decisions of every kind that learns something."""

from pipeline import params

TINY = params.Model(
    backbone="test_resnet",
    channels=None,
    attention="cbam",
    init="identity",
    head="pooled",
    dropout=0.1,
    size=32,
    normalise="image",
    pretrained=False,
    yellow="mean",
    loss={"focal": 1.0},
    focal=params.Focal(gamma=2.0, alpha=None),
    asymmetric=params.Asymmetric(gamma_positive=0, gamma_negative=4, margin=0.05),
    label_balance=0,
    label_smoothing=0,
    repeat=params.Repeat(below=0.05, most=1),
    epochs=6,
    evaluate_every=1,
    batch_size=8,
    accumulate=1,
    learning_rate=5e-3,
    weight_decay=0.05,
    warmup=0.1,
    ema_decay=0.5,
    keep="last",
    clip_norm=1.0,
    precision="fp32",
    compile=False,
    augment=params.Augment(crop=1, warp=0.5, zoom=1.25, shift=0.1, shear=5, gain=1.3, gamma=1.3, noise=0.02),
    seed=0,
)

ENSEMBLE = params.Ensemble(
    blend="weights",
    pull=1.0,
    calibration="platt",
    spread=0.5,
    thresholds="per_label",
    fixed=0.4,
    shrinkage=10.0,
    proportions={},
)
