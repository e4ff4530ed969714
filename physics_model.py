"""The physics predictor, which reads attributes off an image, and the loss built on it."""

from __future__ import annotations

from torch import Tensor, nn


class PhysicsPredictor(nn.Module):
    """Predict the physical attributes of galaxy images.

    Three strided convolutions with BatchNorm and ReLU, global average pooling and two fully connected layers
    with dropout: 64-128-256 channels at the default width.

    Parameters
    ----------
    num_attributes : int
        Length of the prediction.
    width : int
        Channels of the first layer.
    dropout : float
        Rate in the hidden layer, in training mode only.
    """

    def __init__(self, num_attributes: int, width: int = 64, dropout: float = 0.3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for c_in, c_out in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [
                nn.Conv2d(c_in, c_out, 3, stride=2, padding=1),
                nn.BatchNorm2d(c_out),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.regress = nn.Sequential(
            nn.Linear(4 * width, 4 * width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4 * width, num_attributes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return attributes (N, A), scaled as in the condition vector, of images (N, 3, S, S) in [-1, 1]."""
        return self.regress(self.features(images))


def physics_loss(predicted: Tensor, requested: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compare attributes, leaving out those that are unknown.

    Parameters
    ----------
    predicted, requested : Tensor, (N, A)
        Attributes scaled as in the condition vector.
    known : Tensor, (N, A)
        1 where the requested value is known, 0 where it is missing.

    Returns
    -------
    loss : Tensor, ()
        Mean squared error over all known values; the plain MSE where everything is known.
    squared_errors : Tensor, (A,)
        Sum of squared errors of each attribute, detached.
    counts : Tensor, (A,)
        Number of known values of each attribute.
    """
    squared = (predicted.float() - requested).square() * known
    counts = known.sum(0)
    loss = squared.sum() / counts.sum().clamp_min(1)
    return loss, squared.detach().sum(0), counts
