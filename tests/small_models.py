"""The options of small networks for tests."""

MODELS = {  # each network at one of its sizes, with narrow layers
    "sagan": {"imsize": 64, "g_conv_dim": 8, "d_conv_dim": 8, "adv_loss": "hinge", "beta1": 0.0, "beta2": 0.9},
    "sagan-cifar10": {"imsize": 32, "attention_size": 16, "g_conv_dim": 8, "d_conv_dim": 8, "adv_loss": "hinge"},
    "acgan-imagenet": {"imsize": 128, "g_conv_dim": 8, "d_conv_dim": 8},
    "acgan-imagenet-torch": {"imsize": 128, "g_conv_dim": 8, "d_conv_dim": 8},
    "acgan-cifar10": {"imsize": 32, "g_conv_dim": 8, "d_conv_dim": 8},
    "acgan-mnist": {"imsize": 32, "g_conv_dim": 8, "d_conv_dim": 8},
    "acgan-mlp": {"imsize": 16, "g_conv_dim": 8, "d_conv_dim": 8},
    "acgan-digits": {"imsize": 16, "g_conv_dim": 8, "d_conv_dim": 8},
}
