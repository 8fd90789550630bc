"""How a network's weights are drawn before training."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import nn

from train.model import Architecture, DigitLSTM
from train.recipe import Recipe

TUTORIAL_BIAS: Final = 0.1


def draw(architecture: Architecture, recipe: Recipe) -> DigitLSTM:
    """Build a network on the CPU with weights from the default generator.

    Args:
        architecture: its shape.
        recipe: names the way.
    """
    network = DigitLSTM(architecture)
    {"tutorial": _tutorial, "orthogonal": _orthogonal}[recipe.initialisation](network)
    return network


@torch.no_grad()
def _tutorial(network: DigitLSTM) -> None:
    """Draw weights as the tutorial does.

    Projection and output weights are from N(0, 1) and their biases 0.1. The LSTM's kernel is Glorot uniform (Glorot
    and Bengio 2010) for the shape that TensorFlow gives it, one matrix [input + hidden, 4 hidden]; its bias is 0.
    """
    for layer in (network.projection, network.head):
        if layer is not None:
            nn.init.normal_(layer.weight)
            nn.init.constant_(layer.bias, TUTORIAL_BIAS)
    lstm = network.lstm
    limit = math.sqrt(6 / (lstm.input_size + lstm.hidden_size + 4 * lstm.hidden_size))
    for name, parameter in lstm.named_parameters():
        if name.startswith("weight"):
            nn.init.uniform_(parameter, -limit, limit)
        elif parameter.requires_grad:
            nn.init.zeros_(parameter)


@torch.no_grad()
def _orthogonal(network: DigitLSTM) -> None:
    """Draw each gate's recurrent weights as an orthogonal matrix (Saxe et al. 2014, arXiv:1312.6120).

    Input weights are Glorot uniform for each gate, biases 0; the head keeps PyTorch's default. Convolutions are
    normal, as suits a ReLU (He et al. 2015, arXiv:1502.01852), biases 0.
    """
    for name, parameter in network.named_parameters():
        if name.startswith("convolutions"):
            if name.endswith("weight"):
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)
    for name, parameter in network.lstm.named_parameters():
        if name.startswith("weight"):
            draw = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
            for gate in parameter.chunk(4):
                draw(gate)
        elif parameter.requires_grad:
            nn.init.zeros_(parameter)
