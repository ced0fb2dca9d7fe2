"""What classical features measure: shape, intensity, texture, granularity, radial distribution, correlation.

The families are CellProfiler's, written as batched tensor operations. Each function takes images (B, C, H, W) in
[0, 1] and masks (B, H, W), and returns named tensors (B,), finite for any crop: where a quantity is undefined its value
is the neutral one that the function states.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from cellbook.features.masks import Masks, blur, dilate

LEVELS = 12  # grey levels of the co-occurrence matrices
OFFSETS = ((0, 2), (2, 0), (0, 6), (6, 0))  # pixels down and right
BANDS = (1.0, 2.0, 4.0, 8.0)  # sigmas in pixels; texture between one and the next
OPENINGS = (3, 5, 9, 13)  # sides of the openings on the half-size image
RINGS = (0.5, 1.0, 1.5, 2.0)  # radii in units of the nucleus' own; one more ring lies beyond
WEDGES = 8
_TINY = 1e-9


Features = dict[str, Tensor]


def _grid(mask: Tensor) -> tuple[Tensor, Tensor]:
    height, width = mask.shape[-2:]
    sides = (torch.arange(side, dtype=torch.float32, device=mask.device) for side in (height, width))
    return torch.meshgrid(*sides, indexing="ij")


def _centroid(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y, x = _grid(mask)
    weight = mask.flatten(1).float()
    area = weight.sum(dim=1).clamp_min(1)
    return area, (weight @ y.flatten()) / area, (weight @ x.flatten()) / area


def shape(mask: Tensor, name: str) -> Features:
    """Size and form of masks (B, H, W): area, perimeter, axes, Hu moments, and how lobed the outline is.

    The perimeter is Crofton's, from crossings in four directions; the outline is the largest radius in each of 16
    directions, its Fourier magnitudes relative to the mean count lobes whatever the orientation.
    """
    area, cy, cx = _centroid(mask)
    y, x = _grid(mask)
    dy, dx = y - cy[:, None, None], x - cx[:, None, None]
    weight = mask.float()

    def moment(p: int, q: int) -> Tensor:
        return (weight * dy**p * dx**q).sum(dim=(1, 2)) / area ** (1 + (p + q) / 2)

    m20, m02, m11 = moment(2, 0), moment(0, 2), moment(1, 1)
    m30, m03, m21, m12 = moment(3, 0), moment(0, 3), moment(2, 1), moment(1, 2)
    spread = torch.sqrt((m20 - m02) ** 2 + 4 * m11**2)
    major, minor = (m20 + m02 + spread) / 2, ((m20 + m02 - spread) / 2).clamp_min(0)
    padded = F.pad(mask, (1, 1, 1, 1)).to(torch.int8)
    straight = padded.diff(dim=1).abs().sum(dim=(1, 2)) + padded.diff(dim=2).abs().sum(dim=(1, 2))
    falling = (padded[:, 1:, 1:] - padded[:, :-1, :-1]).abs().sum(dim=(1, 2))
    rising = (padded[:, 1:, :-1] - padded[:, :-1, 1:]).abs().sum(dim=(1, 2))
    perimeter = math.pi / 8 * (straight + (falling + rising) / math.sqrt(2)).float()
    sector = ((torch.atan2(dy, dx) / (2 * math.pi) + 0.5) * 16).long().clamp(0, 15).flatten(1)
    radius = area.new_zeros(len(mask), 16)
    radius.scatter_reduce_(1, sector, (torch.hypot(dy, dx) * weight).flatten(1), "amax")
    mean_radius = radius.mean(dim=1).clamp_min(0.5)
    lobes = torch.fft.rfft(radius / mean_radius[:, None], dim=1).abs() / 16
    height, width = mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)
    values = {
        "Area": area,
        "Perimeter": perimeter,
        "FormFactor": 4 * math.pi * area / perimeter.clamp_min(1) ** 2,
        "MajorAxis": 4 * torch.sqrt(major * area),
        "MinorAxis": 4 * torch.sqrt(minor * area),
        "Eccentricity": torch.sqrt((1 - minor / major.clamp_min(_TINY)).clamp(0, 1)),
        "Extent": area / (height * width).clamp_min(1),
        "MeanRadius": mean_radius,
        "RadiusVariation": radius.std(dim=1, correction=0) / mean_radius,
        "SmallestRadius": radius.amin(dim=1) / mean_radius,
        "Hu1": m20 + m02,
        "Hu3": (m30 - 3 * m12) ** 2 + (3 * m21 - m03) ** 2,
        "Hu4": (m30 + m12) ** 2 + (m21 + m03) ** 2,
    }
    values |= {f"Lobes{k}": lobes[:, k] for k in range(1, 7)}
    return {f"{name}_Shape_{key}": value.float() for key, value in values.items()}


def neighbours(masks: Masks) -> Features:
    """Neighbouring nuclei in the crop, and how much of the cell ends at the border of the crop."""
    border = torch.ones_like(masks.cell[0])
    border[1:-1, 1:-1] = False
    crowd = (masks.dna & ~masks.nucleus).float().mean(dim=(1, 2))
    touching = dilate(masks.nucleus, 7) & masks.dna & ~masks.nucleus
    return {
        "Crop_Neighbors_Number": masks.neighbours.float(),
        "Crop_Neighbors_Distance": masks.distance.float(),
        "Crop_Neighbors_NuclearShare": crowd,
        "Nucleus_Neighbors_Touching": touching.flatten(1).sum(dim=1) / masks.nucleus.flatten(1).sum(dim=1).sqrt(),
        "Cell_Neighbors_AtBorder": (masks.cell & border).flatten(1).sum(dim=1) / border.sum(),
    }


def intensity(images: Tensor, regions: dict[str, Tensor], channels: tuple[str, ...]) -> Features:
    """Grey values within each region: integrated, mean, spread, form, and where their weight lies.

    Relative quantities (variation, skewness, displacement) are 0 where a region is empty or its channel constant.
    """
    flat = images.flatten(2)
    names, stack = list(regions), torch.stack([mask.flatten(1) for mask in regions.values()], dim=1).float()
    area = stack.sum(dim=2).clamp_min(1)
    mean = torch.einsum("bcp,bmp->bmc", flat, stack) / area[..., None]
    half = F.avg_pool2d(images, 2).flatten(2)
    background = half.kthvalue(max(1, half.shape[2] // 20), dim=2).values
    features: Features = {}
    y, x = (axis.flatten() for axis in _grid(images))
    for m, name in enumerate(names):
        weight = stack[:, m, None]
        centred = (flat - mean[:, m, :, None]) * weight
        square = centred * centred
        variance = square.sum(dim=2) / area[:, m, None]
        sd = variance.sqrt()
        # below a ten-thousandth of the scale there is only rounding
        safe = sd.clamp_min(1e-5)
        masked = flat * weight
        total = masked.sum(dim=2).clamp_min(_TINY)
        own = (stack[:, m] @ torch.stack([y, x], dim=1)) / area[:, m, None]
        moved = torch.stack([masked @ y, masked @ x], dim=2) / total[..., None] - own[:, None]
        moved = moved.norm(dim=2) / area[:, m, None].sqrt() * (total > 1e-6)
        values = {
            "Mean": mean[:, m],
            "Integrated": total,
            "SD": sd,
            "Variation": sd / mean[:, m].clamp_min(1e-5),
            "OverBackground": torch.log((mean[:, m] + 1e-4) / (background + 1e-4)),
            "Skewness": (square * centred).sum(dim=2) / area[:, m, None] / safe**3,
            "Kurtosis": (square * square).sum(dim=2) / area[:, m, None] / safe**4,
            "Max": masked.amax(dim=2),
            "Displacement": moved,
        }
        for key, value in values.items():
            for c, channel in enumerate(channels):
                features[f"{name}_Intensity_{key}_{channel}"] = value[:, c]
    nucleus, cytoplasm = mean[:, names.index("Nucleus")], mean[:, names.index("Cytoplasm")]
    ratio = torch.log((nucleus + 1e-4) / (cytoplasm + 1e-4))
    for c, channel in enumerate(channels):
        features[f"Cell_Intensity_NucleusOverCytoplasm_{channel}"] = ratio[:, c]
        features[f"Crop_Intensity_Background_{channel}"] = background[:, c]
    return features


def correlation(images: Tensor, regions: dict[str, Tensor], channels: tuple[str, ...]) -> Features:
    """Pearson correlation of each pair of channels within each region; 0 where one of them is constant."""
    flat, features = images.flatten(2), {}
    for name, mask in regions.items():
        weight = mask.flatten(1)[:, None].float()
        area = weight.sum(dim=2, keepdim=True).clamp_min(1)
        centred = (flat - (flat * weight).sum(dim=2, keepdim=True) / area) * weight
        cross = centred @ centred.transpose(1, 2) / area
        sd = cross.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
        pearson = cross / (sd[:, :, None] * sd[:, None]).clamp_min(1e-10)
        for i in range(len(channels)):
            for j in range(i):
                key = f"{name}_Correlation_Pearson_{channels[j]}_{channels[i]}"
                features[key] = pearson[:, i, j].clamp(-1, 1)
    return features


def cooccurrence(images: Tensor, mask: Tensor, channels: tuple[str, ...], name: str) -> Features:
    """Haralick's contrast, energy, homogeneity, entropy and correlation at two distances.

    Grey values are cut into 12 levels over the region's mean plus or minus two standard deviations, so texture does not
    depend on brightness. Horizontal and vertical pairs are counted both ways and pooled.
    """
    batch, count = images.shape[:2]
    weight = mask[:, None].float()
    area = weight.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    mean = (images * weight).sum(dim=(2, 3), keepdim=True) / area
    sd = (((images - mean) * weight) ** 2).sum(dim=(2, 3), keepdim=True).div(area).sqrt().clamp_min(1e-6)
    levels = (((images - mean) / (4 * sd) + 0.5).clamp(0, 1) * (LEVELS - 1e-3)).to(torch.int32)
    # Pixels outside the region get a level of their own, which is cut off the matrix: cheaper than gathering pairs.
    levels = torch.where(mask[:, None], levels, LEVELS)
    side = LEVELS + 1
    number = torch.arange(batch * count, dtype=torch.int32, device=images.device).view(batch, count, 1, 1)
    first = levels * side + number * side**2
    i, j = _grid(images.new_empty(LEVELS, LEVELS))
    features: Features = {}
    for distance in sorted({max(offset) for offset in OFFSETS}):
        matrix = images.new_zeros(batch * count * side**2)
        for down, right in (offset for offset in OFFSETS if max(offset) == distance):
            height, width = images.shape[-2] - down, images.shape[-1] - right
            pairs = first[..., :height, :width] + levels[..., down:, right:]
            matrix += torch.bincount(pairs.flatten(), minlength=len(matrix))
        p = matrix.view(batch, count, side, side)[..., :LEVELS, :LEVELS]
        p = p + p.transpose(2, 3)
        p = p / p.sum(dim=(2, 3), keepdim=True).clamp_min(1)
        mu = (p * i).sum(dim=(2, 3))
        variance = (p * (i - mu[..., None, None]) ** 2).sum(dim=(2, 3))
        covariance = (p * (i - mu[..., None, None]) * (j - mu[..., None, None])).sum(dim=(2, 3))
        values = {
            "Contrast": (p * (i - j) ** 2).sum(dim=(2, 3)),
            "Energy": (p * p).sum(dim=(2, 3)),
            "Homogeneity": (p / (1 + (i - j).abs())).sum(dim=(2, 3)),
            "Entropy": -(p * torch.log2(p.clamp_min(_TINY))).sum(dim=(2, 3)),
            "Correlation": covariance / variance.clamp_min(1e-6),
        }
        for key, value in values.items():
            for c, channel in enumerate(channels):
                features[f"{name}_Texture_{key}{distance}_{channel}"] = value[:, c]
    return features


def granularity(images: Tensor, mask: Tensor, channels: tuple[str, ...]) -> Features:
    """Share of a cell's signal that openings of growing size take away, on the half-size image; 0 for no signal."""
    small = F.avg_pool2d(images, 2)
    inside = F.avg_pool2d(mask[:, None].float(), 2)
    small = small - small.amin(dim=(2, 3), keepdim=True)
    total = (small * inside).sum(dim=(2, 3))
    previous, features = total, {}
    for side in OPENINGS:
        eroded = -dilate(-small, side)
        left = (dilate(eroded, side) * inside).sum(dim=(2, 3))
        share = (previous - left) / total.clamp_min(1e-4)
        previous = left
        for c, channel in enumerate(channels):
            features[f"Cell_Granularity_{side}_{channel}"] = share[:, c]
    return features


def radial(images: Tensor, nucleus: Tensor, channels: tuple[str, ...]) -> Features:
    """Mean grey value of rings around the nucleus relative to the crop's, and its variation over eight wedges.

    Rings are measured in units of the nucleus' own radius. A ring that lies outside the crop counts as average (1, and
    variation 0).
    """
    area, cy, cx = _centroid(nucleus)
    y, x = _grid(nucleus)
    dy, dx = y - cy[:, None, None], x - cx[:, None, None]
    distance = torch.hypot(dy, dx) / torch.sqrt(area / math.pi)[:, None, None]
    ring = torch.bucketize(distance, torch.tensor(RINGS, device=distance.device))
    wedge = ((torch.atan2(dy, dx) / (2 * math.pi) + 0.5) * WEDGES).long().clamp(0, WEDGES - 1)
    rings = len(RINGS) + 1
    place = (ring * WEDGES + wedge).flatten(1)
    batch, count = images.shape[:2]
    empty = images.new_zeros(batch, count + 1, rings * WEDGES)
    flat = images.flatten(2)
    # The last is how many pixels there are.
    every = torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1)
    sums = empty.scatter_add_(2, place[:, None].expand_as(every), every).view(batch, count + 1, rings, WEDGES)
    sums, number = sums[:, :-1], sums[:, -1:]
    whole = flat.mean(dim=2)[..., None].clamp_min(1e-5)
    present = number.sum(dim=3) > 0
    mean = torch.where(present, sums.sum(dim=3) / number.sum(dim=3).clamp_min(1) / whole, 1.0)
    full = (number > 0).float()
    sector = sums / number.clamp_min(1)
    centre = sector.sum(dim=3, keepdim=True) / full.sum(dim=3, keepdim=True).clamp_min(1)
    variance = ((sector - centre) ** 2 * full).sum(dim=3) / full.sum(dim=3).clamp_min(1)
    variation = variance.sqrt() / centre[..., 0].clamp_min(1e-5)
    features: Features = {}
    for r in range(rings):
        for c, channel in enumerate(channels):
            features[f"Crop_Radial_Mean{r}_{channel}"] = mean[:, c, r] * (whole[:, c, 0] > 1e-5)
            features[f"Crop_Radial_Variation{r}_{channel}"] = variation[:, c, r]
    return features


def bands_and_grain(images: Tensor, regions: dict[str, Tensor], channels: tuple[str, ...]) -> Features:
    """Strength of structure between successive widths, and whether fibres run alike and towards the nucleus.

    Strength is the standard deviation of a difference of Gaussians over the channel's mean within the region; grain is
    the coherence of the structure tensor (0 none, 1 parallel), and the radial one is 1 for rays, -1 for circles.
    """
    features: Features = {}
    fine = blur(images, BANDS[0])
    # Wider structures are as plain at half the size, and eight times cheaper.
    half = F.avg_pool2d(fine, 2)
    smooth = [half, *(blur(half, sigma / 2) for sigma in BANDS[1:])]
    bands = [images - fine, *(narrow - wide for narrow, wide in pairwise(smooth))]
    for name in ("Nucleus", "Cell"):
        whole = regions[name][:, None].float()
        small = F.avg_pool2d(whole, 2)
        mean = (images * whole).sum(dim=(2, 3)) / whole.sum(dim=(2, 3)).clamp_min(1)
        for level, band in enumerate(bands):
            weight = small if level else whole
            energy = (band * band * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp_min(0.25)
            for c, channel in enumerate(channels):
                features[f"{name}_Texture_Band{level}_{channel}"] = energy[:, c].sqrt() / mean[:, c].clamp_min(1e-5)
    gy, gx = torch.gradient(half, dim=(2, 3))
    xx, yy, xy = (blur(v, 1.5) for v in (gx * gx, gy * gy, gx * gy))
    weight = F.avg_pool2d(regions["Cell"][:, None].float(), 2)
    trace = ((xx + yy) * weight).sum(dim=(2, 3))
    coherence = (torch.sqrt((xx - yy) ** 2 + 4 * xy**2) * weight).sum(dim=(2, 3)) / trace.clamp_min(1e-9)
    _, cy, cx = _centroid(regions["Nucleus"])
    y, x = _grid(weight)
    # the middle of half-size pixel i lies at 2 i + 1/2
    dy, dx = ((2 * axis + 0.5 - at[:, None, None])[:, None] for axis, at in ((y, cy), (x, cx)))
    square = (dy**2 + dx**2).clamp_min(1)
    # cos 2(gradient angle - direction from the nucleus): gradients across rays point sideways, hence the sign
    aligned = ((xx - yy) * (dx**2 - dy**2) + 4 * xy * dx * dy) / square
    rays = -(aligned * weight).sum(dim=(2, 3)) / trace.clamp_min(1e-9)
    for c, channel in enumerate(channels):
        features[f"Cell_Texture_Grain_{channel}"] = coherence[:, c].clamp(0, 1)
        features[f"Cell_Texture_RadialGrain_{channel}"] = rays[:, c].clamp(-1, 1)
    return features
