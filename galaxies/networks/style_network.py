"""The network that turns noise and a condition into the style by which a generator's blocks change their maps."""

from __future__ import annotations

from torch import nn

_SLOPE = 0.2  # of the leaky rectifier below zero


def style_network(inputs: int, style: int) -> nn.Sequential:
    """Return two fully connected layers, from `inputs` values to the `style` values."""
    return nn.Sequential(
        nn.Linear(inputs, 2 * style), nn.LeakyReLU(_SLOPE), nn.Linear(2 * style, style), nn.LeakyReLU(_SLOPE)
    )


def init_linear(*modules: nn.Module) -> None:
    """Draw the weights of the linear layers among modules for the rectifier that follows (He et al. 2015)."""
    for module in modules:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=_SLOPE)
