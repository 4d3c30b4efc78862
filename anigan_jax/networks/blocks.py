"""The vocabulary of layer plans: a network is a tuple of `Block`s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from anigan_jax.errors import UserError

Activation = Literal["none", "relu", "leaky_relu", "tanh", "sigmoid"]


@dataclass(frozen=True)
class Block:
    """One layer: operation, then zero padding, norm, sum, activation, dropout, in order.

    Attributes:
      op: 'dense' reshapes to (side, side, features) where `side` > 0; 'constant' multiplies
        (b, features) by a learned map of that side; 'pointwise' is a 1x1 convolution; 'up' and
        'down' resample by a filter that nothing trains.
      padding: pixels on each side, or 'same' for TensorFlow's rule.
      pad_after: zero rows and columns appended at the bottom and right.
      reflect: pixels mirrored on each side before the operation.
      activation_first: the activation comes before the norm.
      skip: 'start' keeps the input; 'end' adds what was kept, after the norm.
      stddev: the kernel starts at N(0, this); None: as the network says.
      groups: of channels that a convolution keeps apart.
      gain: the kernel starts at N(0, gain^2 / fan-in), or at 0; None: as `stddev` says.
    """

    name: str
    op: Literal[
        "dense", "conv", "conv_transpose", "upsample_conv", "pointwise", "constant", "up", "down"
    ]
    features: int
    kernel: int = 0
    stride: int = 1
    padding: int | Literal["same"] = 0
    output_padding: int = 0
    side: int = 0
    bias: bool = False
    spectral: bool = False
    pad_after: int = 0
    reflect: int = 0
    skip: Literal["", "start", "end"] = ""
    norm: bool = False
    activation: Activation = "none"
    activation_first: bool = False
    dropout: float = 0.0
    stddev: float | None = None
    groups: int = 1
    gain: float | None = None


@dataclass(frozen=True)
class NetworkSettings:
    """Base of every network's settings: a network is chosen by naming its settings in a config."""

    size: int = 64
    """Image side in pixels."""

    @property
    def multiple_of(self) -> int:
        """Of this many pixels are the sides of images that it can take."""
        return 1

    @property
    def text_layers(self) -> tuple[str, ...]:
        """Names of the layers that read a text's vector: they start anew where a run that starts
        from another has other classes."""
        return ()

    def check(self, field: str) -> None:
        """Refuses settings that make no network; `field` names them in the message."""

    def build(self, axis_name: str | None = None, dtype: str = "float32") -> Any:
        """The Flax module.

        Args:
          axis_name: the mapped axis of devices, over which batch norms average; or None.
          dtype: what products are computed in.

        Raises:
          UserError: no network of this size can be.
        """
        raise UserError(f"{type(self).__name__} has no method build(), which returns the network")


@dataclass(frozen=True)
class GeneratorSettings(NetworkSettings):
    """Base of generators from noise: the module takes z (b, 1, 1, Z) and gives (b, H, W, 3)."""

    z_dim: int = 100
    """Length of the latent."""

    @property
    def unit_range(self) -> bool:
        """Whether images are in [0, 1]; else in [-1, 1]."""
        return False


@dataclass(frozen=True)
class Norm:
    """Batch norm constants. The defaults are PyTorch's (its momentum 0.1 is 0.9 here)."""

    momentum: float = 0.9
    epsilon: float = 1e-5
    """Added to the variance."""
    scale_stddev: float = 0.02
    """Gains start at N(1, this); 0 for Keras's ones."""


@dataclass(frozen=True)
class InstanceNorm:
    """Instance norm constants: no gain, no bias, no running statistics (CycleGAN)."""

    epsilon: float = 1e-5
    """Added to the variance."""
