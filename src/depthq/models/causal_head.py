"""A second look at each pixel: its distribution given the codes and the pixels above and to the left."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from depthq.likelihoods import LogisticMixtureLikelihood
from depthq.likelihoods.logistic_mixture import from_grey

_NUM_COMPONENTS = 5
_WIDTH = 256
_FIRST_LOG_SCALES = (-4.5, -2.0)
"""Over which the components' log scales start: a flat patch needs a grey value or two, an edge ten times as many."""
_FIRST_COUPLING = 1.2
"""Before tanh, of a channel to the one before: what is off in one is off, for the most part, in the next."""
_CHUNK_PIXELS = 16_384


class CausalHead(nn.Module):
    """Local autoregression: p(pixel | its causal neighbours, the decoder's features), a mixture of logistics.

    A pixel sees the 2h (h + 1) pixels before it in raster order that are at most h away in each direction, 24 for
    h = 3, as in NeLLoC (Zhang et al. 2021): enough for texture, while the codes tell the rest. Everything is relative
    to an anchor, the left pixel (in the first column the one above; in the corner mid-grey): what goes in, and the
    means that come out.

    Pixels of equal x + (h + 1) y do not see each other, so to draw an image takes W + (h + 1) (H - 1) steps.

    Shapes: images uint8 (B, C, H, W); features float (B, F, H, W), the decoder's last hidden map; pixels int64 (B, N),
    N of each image, by their index y W + x.

    Args:
        horizon: h, at least 1.
        image_channels: C, 1 (gray) or 3 (RGB).
        num_features: F.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, horizon: int, image_channels: int, num_features: int):
        super().__init__()
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1 for a causal head; got {horizon}")
        self.horizon = horizon
        self.likelihood = LogisticMixtureLikelihood(image_channels, _NUM_COMPONENTS)
        # The anchor's value, and of each neighbour the difference from it and whether it lies in the image.
        num_inputs = image_channels + 2 * horizon * (horizon + 1) * (image_channels + 1)
        self.neighbours = nn.Linear(num_inputs, _WIDTH)
        self.features = nn.Linear(num_features, _WIDTH, bias=False)
        self.residual = nn.Sequential(nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH))
        self.out = nn.Linear(_WIDTH, self.likelihood.num_parameters)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Near the anchor, at several widths, whatever the neighbours."""
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        _, _, log_scales, couplings = self.likelihood.split(self.out.bias[None])
        for log_scale in log_scales:
            log_scale.copy_(torch.linspace(*_FIRST_LOG_SCALES, _NUM_COMPONENTS))
        for coupling in couplings[::2]:  # R to G, G to B
            coupling.fill_(_FIRST_COUPLING)

    def walk(self, features: Tensor, images: Tensor) -> "Walk":
        """The way through images uint8 (B, C, H, W), front by front: of zeros where they are not known yet."""
        return Walk(self, features, images)

    def log_prob(self, images: Tensor, features: Tensor, pixels: Tensor) -> Tensor:
        """Log-likelihood of each sub-pixel of some pixels: float32 (B, C, N), in nats."""
        canvas = _Canvas(images, self.horizon)
        values = images.flatten(2).gather(2, pixels[:, None].expand(-1, images.shape[1], -1))
        parameters = self._parameters_at(canvas, features, pixels)
        return self.likelihood.log_prob(parameters, values[..., None]).squeeze(3)

    def nll_nats(self, images: Tensor, features: Tensor) -> Tensor:
        """-log p(image | codes) of each image with all its pixels: float32 (B,), chunk by chunk."""
        total = torch.zeros(len(images), dtype=torch.float32, device=images.device)
        everywhere = torch.arange(images[0, 0].numel(), device=images.device)
        for pixels in everywhere.split(max(1, _CHUNK_PIXELS // len(images))):
            total -= self.log_prob(images, features, pixels.expand(len(images), -1)).sum((1, 2))
        return total

    @torch.no_grad()
    def sample(self, features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw images uint8 (B, C, H, W), all of a batch at once, one front of the wave after the other."""
        batch, _, height, width = features.shape
        likelihood = self.likelihood
        images = features.new_zeros((batch, likelihood.image_channels, height, width), dtype=torch.uint8)
        walk = self.walk(features, images)
        # Drawn for all pixels beforehand: the image does not depend on the order in which they are visited.
        shape = (batch, likelihood.num_uniforms, height * width)
        uniforms = torch.rand(shape, generator=generator, dtype=torch.float32, device=features.device)
        for front in self.fronts(height, width):
            pixels = front.to(features.device)
            parameters = walk.parameters(pixels).transpose(1, 2)[..., None]
            drawn = likelihood.draw(parameters.float(), uniforms[:, :, pixels, None]).squeeze(3)
            images.flatten(2)[:, :, pixels] = drawn
            walk.write(pixels, drawn)
        return images

    def fronts(self, height: int, width: int) -> Iterator[Tensor]:
        """The pixels of an image in the order in which they can be drawn: int64 (N,), those of a front all at once."""
        slope = self.horizon + 1
        rows = torch.arange(height)
        for step in range(width + slope * (height - 1)):
            columns = step - slope * rows
            inside = (columns >= 0) & (columns < width)
            yield rows[inside] * width + columns[inside]

    def _parameters_at(self, canvas: "_Canvas", features: Tensor, pixels: Tensor) -> Tensor:
        """Of the mixtures at some pixels: (B, P, N, 1)."""
        values, inside = canvas.neighbours(pixels)  # (B, N, T, C), (B, N, T, 1)
        left, above = values[:, :, -1], values[:, :, -2 * self.horizon - 1]
        anchor = torch.where(inside[:, :, -1] > 0, left, above)  # (B, N, C); outside the image values are 0
        relative = (values - anchor[:, :, None]) * inside
        inputs = torch.cat([anchor, relative.flatten(2), inside.flatten(2)], dim=2)
        hidden = self.neighbours(inputs.to(self.neighbours.weight.dtype)) + self.features(_at(features, pixels))
        hidden = torch.relu(hidden + self.residual(hidden))
        with torch.autocast(hidden.device.type, enabled=False):
            parameters = self.out(hidden.to(self.out.weight.dtype)).transpose(1, 2)[..., None]
        return self.likelihood.shift(parameters, anchor.transpose(1, 2)[..., None])


class Walk:
    """Parameters of pixels whose neighbours have been written; see `CausalHead.walk`."""

    def __init__(self, head: CausalHead, features: Tensor, images: Tensor):
        self._head = head
        self._features = features
        self._canvas = _Canvas(images, head.horizon)

    def parameters(self, pixels: Tensor) -> Tensor:
        """Of the mixtures at pixels int64 (N,) of all images: (B, N, P)."""
        pixels = pixels.expand(len(self._features), -1)
        return self._head._parameters_at(self._canvas, self._features, pixels).squeeze(3).transpose(1, 2)

    def write(self, pixels: Tensor, values: Tensor) -> None:
        """Say what the values of pixels (N,) are: uint8 (B, C, N)."""
        self._canvas.write(pixels, values)


class _Canvas:
    """Images on the scale [-1, 1] in a border of h pixels, from which the neighbours of any pixel can be read.

    Args:
        images: uint8 (B, C, H, W).
        horizon: h.
    """

    def __init__(self, images: Tensor, horizon: int):
        self.horizon = horizon
        self.width = images.shape[3]
        self.stride = self.width + 2 * horizon
        places = from_grey(images)
        cells = torch.cat([places, torch.ones_like(places[:, :1])], dim=1)  # the last says: in the image
        cells = nn.functional.pad(cells, (horizon, horizon, horizon, 0))
        self.cells = cells.permute(0, 2, 3, 1).flatten(1, 2).contiguous()  # (B, cells, C + 1)
        rows, columns = range(-horizon, 1), range(-horizon, horizon + 1)
        offsets = [dy * self.stride + dx for dy in rows for dx in columns if dy < 0 or dx < 0]  # in raster order
        self.offsets = torch.tensor(offsets, device=images.device)

    def neighbours(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Of pixels (B, N) the T neighbours: values (B, N, T, C), 0 outside; and 1 inside, 0 outside, (B, N, T, 1)."""
        cells = _at_rows(self.cells, self._cell(pixels)[..., None] + self.offsets)
        return cells[..., :-1], cells[..., -1:]

    def write(self, pixels: Tensor, values: Tensor) -> None:
        """Set pixels (N,) of all images to values uint8 (B, C, N)."""
        self.cells[:, self._cell(pixels), :-1] = from_grey(values).transpose(1, 2)

    def _cell(self, pixels: Tensor) -> Tensor:
        rows = pixels.div(self.width, rounding_mode="floor")
        return (rows + self.horizon) * self.stride + pixels % self.width + self.horizon


def _at(features: Tensor, pixels: Tensor) -> Tensor:
    """Features (B, N, F) of features (B, F, H, W) at pixels (B, N)."""
    return _at_rows(features.permute(0, 2, 3, 1).flatten(1, 2), pixels)


def _at_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Rows (B, S, D) at index (B, ...): (B, ..., D)."""
    first = torch.arange(len(rows), device=rows.device) * rows.shape[1]
    flat = index + first.view(-1, *[1] * (index.dim() - 1))
    return rows.flatten(0, 1).index_select(0, flat.flatten()).unflatten(0, index.shape)
