"""What changes an image without changing a cell: weeks, plates, places of wells, late staining, optics and camera."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from cellbook.screens.simulator.design import SimulatedScreen, stream

GREY = 16  # a 12-bit camera's values are stored times 16
# Grey values of one unit of light, and of no light, per stain. Five stains: the genetic screen's own microscope.
LEVELS = {"chemical": (3100.0, 2400.0, 3700.0), "genetic": (3300.0, 2600.0, 3000.0, 2800.0, 2600.0)}
BACKGROUNDS = {"chemical": (730.0, 700.0, 740.0), "genetic": (600.0, 640.0, 660.0, 700.0, 640.0)}
BLUR, HAZE, HAZE_WIDTH = 0.60, 0.14, 7.0  # width of the focus in pixels; share and width of light from out of focus
BLEED = 0.06
READ_NOISE, SHOT_NOISE = 39.0, 2.4  # grey values; variance a grey value of signal
SMEAR = 0.61  # width of the smear along rows at read-out, in pixels; it reaches signal and noise

# Nuisance: spread between weeks, between plates, over a plate. All on logarithmic scales except gamma.
SPREADS = {
    "background": (0.10, 0.04, 0.02),
    "blur": (0.34, 0.12, 0.06),
    "haze": (0.35, 0.10, 0.06),
    "bleed": (0.95, 0.20, 0.05),  # of one stain into the next
    "shading": (0.30, 0.10, 0.00),
    "clumping": (0.60, 0.20, 0.10),
}
STAIN_SPREADS = {
    "gain": (0.38, 0.10, 0.06),
    "gamma": (0.18, 0.05, 0.03),  # response of the staining: bright parts gain more than dim ones
}
DELAY_GAIN, DELAY_HAZE = -0.40, 0.60  # logarithms, from the first stained well to the last


def nuisances(config: SimulatedScreen, wells: pd.DataFrame, stains: tuple[str, ...]) -> pd.DataFrame:
    """Nuisance values of each well: columns ``truth_<nuisance>``, zero where its strength is zero.

    A value is the sum of a draw for the week, one for the plate, and a slope over rows and columns of the plate; the
    same draws are used at any strength. ``truth_delay`` (0 to 1) is how late the well was stained: plates are stained
    well by well, and start at different times.
    """
    names = SPREADS | {f"{kind}_{stain}": spread for kind, spread in STAIN_SPREADS.items() for stain in stains}
    week_spread, plate_spread, place_spread = np.array(list(names.values())).T

    def draws(kind: str, labels: pd.Series, n: int) -> np.ndarray:
        codes, unique = pd.factorize(labels)
        return np.stack([stream(config.seed, kind, label).standard_normal(n) for label in unique])[codes]

    week = draws("week", wells.Metadata_batch, len(names)) * week_spread * config.week_effect
    plate = draws("plate", wells.Metadata_plate, len(names)) * plate_spread * config.plate_effect
    row = wells.Metadata_well.str[0].map({letter: i for i, letter in enumerate("ABCDEFGH")}).to_numpy()
    column = wells.Metadata_well.str[1:].astype(int).to_numpy()
    place = np.stack([(row - 3.5) / 2.0, (column - 6.5) / 3.0, (np.abs(column - 6.5) - 2.5) / 1.5], axis=1)
    slopes = draws("place", wells.Metadata_batch, len(names) * 3).reshape(-1, 3, len(names)) / np.sqrt(3)
    position = (place[:, :, None] * slopes).sum(1) * place_spread * config.position_effect
    table = pd.DataFrame(week + plate + position, columns=[f"truth_{name}" for name in names])
    start = draws("start", wells.Metadata_plate, 1)[:, 0]
    order = ((row - 1) * 10 + np.where(row % 2, column - 2, 11 - column)) / 59
    table["truth_delay"] = 1 / (1 + np.exp(-(1.2 * start + 2.0 * (order - 0.5))))
    return table


def clumping(table: pd.DataFrame) -> np.ndarray:
    """How far cells gather into islands, 0 to 1, from the nuisance of that name."""
    return 0.15 * np.exp(np.clip(table.truth_clumping.to_numpy(), -1.5, 0.75))


def develop(
    light: torch.Tensor,
    table: pd.DataFrame,
    config: SimulatedScreen,
    stains: tuple[str, ...],
    noise: torch.Tensor | None,
) -> torch.Tensor:
    """Turn light (F, C, H, W) into what the camera stores: uint16, 12-bit values times 16.

    Staining response, optics, bleeding of a stain into the next, uneven illumination, gain, background, noise,
    rounding, in this order.

    Parameters
    ----------
    light : torch.Tensor
        Fields of `render.scatter`.
    table : pandas.DataFrame
        F rows of `nuisances`, one a field.
    config : SimulatedScreen
    stains : tuple of str
    noise : torch.Tensor or None
        Standard normal numbers of the shape of `light`.
    """
    _, channels, height, width = light.shape
    device = light.device

    def values(*names: str) -> torch.Tensor:
        # Column by column: a table of several takes ten times as long to be turned into an array.
        array = np.stack([table[f"truth_{name}"].to_numpy(dtype=np.float32) for name in names], axis=1)
        return torch.from_numpy(array).to(device, non_blocking=True)[:, :, None, None]

    def of_stains(numbers: Sequence[float]) -> torch.Tensor:
        return torch.tensor(numbers).to(device, non_blocking=True)[None, :, None, None]

    late = values("delay") * config.delay_effect
    gamma = 1 + values(*(f"gamma_{s}" for s in stains)).clamp(-0.5, 0.5)
    gain = torch.exp(values(*(f"gain_{s}" for s in stains)))
    second = of_stains([float(i == 1) for i in range(channels)])
    gain = gain * torch.exp(DELAY_GAIN * late * second)
    haze = (HAZE * torch.exp(values("haze") + DELAY_HAZE * late * second)).clamp_max(0.6)
    blur = BLUR * torch.exp(values("blur").clamp(-1.0, 1.0))

    light = light.clamp_min(1e-4) ** gamma
    fy, fx = torch.fft.fftfreq(height, device=device)[:, None], torch.fft.rfftfreq(width, device=device)[None]
    square = -2 * torch.pi**2 * (fy.square() + fx.square())
    transfer = (1 - haze) * torch.exp(square * blur.square() - 2 * (torch.pi * SMEAR * fx) ** 2) + haze * torch.exp(
        square * HAZE_WIDTH**2
    )
    light = torch.fft.irfft2(torch.fft.rfft2(light) * transfer, s=(height, width)).clamp_min(0.0)
    # A stain is also seen through the filter of the next longer wavelength, never of a shorter one.
    bleed = (BLEED * torch.exp(values("bleed"))).clamp_max(0.4)
    light = torch.cat([light[:, :1], light[:, 1:] + bleed * light[:, :-1]], dim=1)

    # Periodic in the field, brightest near the middle, so that fields may wrap around.
    y = torch.cos(2 * torch.pi * (torch.arange(height, device=device) / height - 0.5))[:, None]
    x = torch.cos(2 * torch.pi * (torch.arange(width, device=device) / width - 0.5))[None]
    strength = 0.06 * torch.exp(values("shading")) * float(config.position_effect > 0)
    light = light * (1 + strength * (y + x) / 2)

    signal = of_stains(LEVELS[config.design]) * gain * light
    grey = of_stains(BACKGROUNDS[config.design]) * torch.exp(values("background")) + signal
    if noise is not None and config.noise > 0:
        side = float(np.exp(-1 / (2 * SMEAR**2)))
        noise = (noise + side * (torch.roll(noise, 1, -1) + torch.roll(noise, -1, -1))) / np.sqrt(1 + 2 * side**2)
        grey = grey + config.noise * noise * (READ_NOISE**2 + SHOT_NOISE * signal).sqrt()
    # By way of its bits: a device knows little of uint16.
    return (GREY * torch.round(grey / GREY)).clamp(0, GREY * 4095).to(torch.int32).to(torch.int16).view(torch.uint16)
