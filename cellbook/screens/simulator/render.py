"""Draw cells: analytic shapes times filtered noise, a batch at a time, added into fields that wrap around.

One code path for CPU and CUDA. All random numbers are made beforehand with numpy, so that another device or machine
draws the same cells to within a grey level.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage

from cellbook.screens.simulator.design import stream
from cellbook.screens.simulator.layout import ANGLES

PATCH = 96  # a cell is drawn into a square of this side
BANK = 1024  # side of the noise images that textures are taken from
_MARGIN = 80  # of a texture's window around its centre; half the diagonal of a patch and a reserve
_NEAR = 12.0  # pixels over which perinuclear tubulin fades

STAINS = {"chemical": ("DNA", "Tubulin", "Actin"), "genetic": ("DNA", "ER", "RNA", "AGP", "Mito")}


@dataclass(frozen=True)
class Canvas:
    """What all patches share on one device: distances, the interpolation of outlines, and the bank of noise."""

    dy: torch.Tensor  # (P²,) pixels from the centre
    dx: torch.Tensor
    r: torch.Tensor
    around: torch.Tensor  # (ANGLES, P²) periodic linear interpolation
    bank: torch.Tensor  # (1, 2, BANK, BANK) filaments, fibres: sampled turned and bent
    flat: torch.Tensor  # (4, BANK²) mottle, fine chromatin, coarse chromatin, puncta: taken as they lie


@lru_cache(maxsize=2)
def canvas(seed: int, device: str | torch.device) -> Canvas:
    """Prepare the shared tensors; the noise depends on the seed alone."""
    half = PATCH // 2
    dy, dx = np.meshgrid(np.arange(-half, half), np.arange(-half, half), indexing="ij")
    dy, dx = dy.ravel().astype(np.float64), dx.ravel().astype(np.float64)
    position = (np.arctan2(dy, dx) / (2 * np.pi) * ANGLES) % ANGLES
    low = np.floor(position).astype(int) % ANGLES
    around = np.zeros((ANGLES, len(dy)))
    pixel = np.arange(len(dy))
    around[low, pixel] += 1 - position % 1
    around[(low + 1) % ANGLES, pixel] += position % 1

    microtubules = 0.6 * _lines(seed, "first", 0.95, 9.0, 0.12) + 0.4 * _lines(seed, "second", 1.3, 12.0, -0.16)
    fibres = _lines(seed, "fibres", 1.9, 16.0, 0.0)
    spots = _noise(seed, "puncta", 1.3, 1.3)
    flat = [
        _noise(seed, "mottle", 4.5, 4.5),
        0.55 * _noise(seed, "fine", 1.5, 1.5) + 0.9 * _noise(seed, "broad", 6.0, 6.0),
        _noise(seed, "coarse", 2.7, 2.7),
        np.clip(spots - 1.2, 0.0, None) * 1.6,
    ]
    tensor = lambda a: torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)).to(device)  # noqa: E731
    return Canvas(
        tensor(dy),
        tensor(dx),
        tensor(np.hypot(dy, dx)),
        tensor(around),
        tensor(np.stack([microtubules, fibres]))[None],
        tensor(np.stack(flat).reshape(4, -1)),
    )


def rare(cell: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Shapes of cells with the numbers of those whose nucleus is in pieces and of those that have a spindle.

    Told beforehand, as a device that is asked for them has to be waited for.
    """
    fragmented = np.flatnonzero((cell["pieces"][:, :, 5] > 0).any(1))
    return cell | {"fragmented": fragmented, "mitotic": np.flatnonzero(cell["aster"] + cell["spindle"] > 0)}


def draw(c: Canvas, cell: dict[str, torch.Tensor], design: str) -> list[torch.Tensor]:
    """Light of each stain from each cell, alone in its patch: a list over stains of (B, P²), background 0.

    Parameters
    ----------
    c : Canvas
    cell : dict
        Of `anatomy.shape_cells` and `rare`, as tensors on the device of the canvas; B rows.
    design : str
        ``"chemical"`` or ``"genetic"``: which stains.
    """
    column = {name: value[:, None] for name, value in cell.items() if value.ndim == 1}
    r = c.r[None]
    border, contact, edge = (cell[name] @ c.around for name in ("border", "contact", "nucleus"))
    # Where cells touch, their thin edges overlap: both fade slowly and add up to about one sheet.
    inside = torch.sigmoid((border - r) / (column["softness"] * (1 + 1.6 * contact)))
    nucleus = torch.sigmoid((edge - r) / (0.6 * column["softness"]))
    dome = (1 - (r / border).square()).clamp_min(0.0)
    height = inside * (0.45 + 0.55 * dome)
    near = torch.exp((edge - r).clamp_max(0.0) / _NEAR)
    mottle, fine, coarse, spots = _lie(c, cell["offsets"])
    dna, nucleoli = _dna(c, cell, column, nucleus, edge, fine, coarse)
    dna = dna + 0.03 * inside  # a trace of the stain everywhere in the cell

    # Microtubules: two layers of lines that turn with the distance from the nucleus; alignment closes their angle.
    turn = cell["cross"] * (1 - cell["alignment"])
    zoom = 1 - 0.50 * cell["bundling"]
    first = _bent(c, 0, cell["axis"] + 0.5 * turn, cell["swirl"], zoom, cell["offsets"][:, 2:4])
    second = _bent(c, 0, cell["axis"] - 0.5 * turn, -cell["swirl"], zoom, cell["offsets"][:, 4:6])
    mesh = 0.5 * (first + second)
    # Most microtubules start on one side of the nucleus.
    toward = (c.dx * torch.cos(column["side"]) + c.dy * torch.sin(column["side"])) / (c.r + 4.0)
    lean = 1 + (0.10 + 0.7 * column["polarity"]) * toward
    # Perinuclear light sums to about as much whatever its share, so that the level stays the level.
    profile = height * lean * (1 + column["perinuclear"] * (2.0 * near - 1.0)) * (1 - 0.48 * nucleus)
    network = 1 + column["filaments"] * (0.8 + 1.6 * column["bundling"]) * (mesh - 1) + 0.10 * coarse
    tubulin = profile * network.clamp_min(0.03) + _spindle(c, cell, column, inside)
    tubulin = column["tubulin"] * tubulin

    rim = torch.exp(-((r - border + 2.5) / 2.2).square())
    ruffle = (0.8 * mottle + 0.3 * coarse).exp() * 0.7
    line = rim * ruffle * (column["cortex"] * (1 - 0.6 * contact) + 0.8 * column["contacts"] * contact)
    fibres = _bent(c, 1, cell["axis"], 0.3 * cell["swirl"], torch.ones_like(zoom), cell["offsets"][:, 6:8])
    bundles = column["stress_fibres"] * (fibres - 0.5) * inside * (r / border).clamp(0.25, 1.0)
    dots = column["puncta"] * spots * inside
    sheet = (0.82 + 0.34 * (r / border).clamp_max(1.0)) * (1 + 0.16 * mottle + 0.08 * coarse - 0.30 * nucleus)
    actin = inside * (0.25 * height + 0.70 * sheet) + 0.40 * line + 0.42 * bundles + dots
    actin = column["actin"] * actin.clamp_min(0.02)
    if design == "chemical":
        return [dna, tubulin, actin]
    # Cell Painting: the same anatomy seen through other stains.
    level = column["tubulin"]
    golgi = torch.exp(-(((r - edge - 5.0) / 4.0).square())) * torch.sigmoid(
        3 * (torch.cos(_angle(c) - column["axis"]) - 0.5)
    )
    er = level * profile * (0.75 + 0.22 * mottle) * (1 - 0.55 * nucleus)
    rna = column["actin"].sqrt() * height * (0.30 + 0.4 * near) * (1 - 0.4 * nucleus) + 1.6 * nucleoli
    agp = 0.75 * actin + 0.7 * inside * golgi
    mito = level * inside * (1 - 0.9 * nucleus) * near.sqrt() * (0.15 + column["filaments"] * 1.7 * mesh + 0.5 * dots)
    return [dna, er, rna, agp, mito]


def scatter(
    c: Canvas, fields: torch.Tensor, light: list[torch.Tensor], field: torch.Tensor, y: torch.Tensor, x: torch.Tensor
) -> None:
    """Add patches into `fields` (F, C, H, W) in place, wrapping around its edges."""
    _, channels, height, width = fields.shape
    row = (y[:, None] + c.dy.long()[None]) % height
    column = (x[:, None] + c.dx.long()[None]) % width
    first = ((field[:, None] * channels * height + row) * width + column).reshape(-1)
    for channel, patch in enumerate(light):
        fields.view(-1).index_add_(0, first + channel * height * width, patch.reshape(-1))


def cut(fields: torch.Tensor, field: torch.Tensor, y: torch.Tensor, x: torch.Tensor, side: int) -> torch.Tensor:
    """Crops (B, C, side, side) of `fields` (F, C, H, W) around centres, wrapping around; bit-exact integer slicing."""
    _, channels, height, width = fields.shape
    steps = torch.arange(-(side // 2), side - side // 2, device=fields.device)
    row = ((y[:, None] + steps) % height)[:, None, :, None]
    column = ((x[:, None] + steps) % width)[:, None, None, :]
    channel = torch.arange(channels, device=fields.device)[None, :, None, None]
    return fields[field[:, None, None, None], channel, row, column]


def inside(c: Canvas, border: torch.Tensor, side: int) -> torch.Tensor:
    """Pixels within the outline of each cell, (B, ANGLES) -> (B, side, side) bool, in crops of a patch or larger."""
    own = (c.r < border @ c.around).view(-1, PATCH, PATCH)
    before = side // 2 - PATCH // 2
    return torch.nn.functional.pad(own, (before, side - PATCH - before) * 2)


def _dna(c, cell, column, nucleus, edge, fine, coarse) -> tuple[torch.Tensor, torch.Tensor]:
    grain = (1 - column["granularity"]) * fine + column["granularity"] * coarse
    hole = torch.sigmoid((coarse - 1.25) * 5.0)  # nucleoli exclude DNA
    shape = nucleus * (1 - 0.20 * (c.r / edge).square().clamp_max(1.0))
    shape = shape * (1 - column["ring"] * torch.exp(-(c.r / (0.42 * edge)).square()))
    rows = cell["fragmented"]
    if len(rows):
        pieces = cell["pieces"][rows][..., None]  # (b, pieces, 6, 1)
        dy, dx = c.dy - pieces[:, :, 0], c.dx - pieces[:, :, 1]
        cos, sin = torch.cos(pieces[:, :, 4]), torch.sin(pieces[:, :, 4])
        u = (dx * cos + dy * sin) / pieces[:, :, 2]
        v = (dy * cos - dx * sin) / pieces[:, :, 3]
        rho = (u.square() + v.square() + 1e-6).sqrt()
        parts = torch.sigmoid((1 - rho) * pieces[:, :, 3] / 0.7) * pieces[:, :, 5]
        shape = shape.index_copy(0, rows, torch.maximum(shape[rows], parts.amax(1)))
    nucleoli = shape * hole * column["nucleoli"]
    return column["dna"] * shape * (1 + column["texture"] * grain).clamp_min(0.05) * (
        1 - column["nucleoli"] * hole
    ), nucleoli


def _spindle(c, cell, column, inside) -> torch.Tensor | float:
    rows = cell["mitotic"]
    if not len(rows):
        return 0.0
    angle = column["tilt"][rows] + torch.pi / 2  # poles face the plate's broad sides
    py, px = column["pole"][rows] * torch.sin(angle), column["pole"][rows] * torch.cos(angle)
    width = 2 * 4.2**2
    one = torch.exp(-((c.dy - py).square() + (c.dx - px).square()) / width)
    other = torch.exp(-((c.dy + py).square() + (c.dx + px).square()) / width)
    centre = torch.exp(-c.r.square() / (2 * 4.5**2))
    light = column["aster"][rows] * centre + column["spindle"][rows] * (one + other)
    return torch.zeros_like(inside).index_copy(0, rows, light * inside[rows])


def _angle(c: Canvas) -> torch.Tensor:
    return torch.atan2(c.dy, c.dx)[None]


def _bent(c: Canvas, which: int, angle, swirl, zoom, offsets) -> torch.Tensor:
    """Noise image `which` sampled along lines that start at `angle` and turn by `swirl` radians a pixel."""
    turned = angle[:, None] + swirl[:, None] * c.r[None]
    cos, sin = torch.cos(turned), torch.sin(turned)
    centre = _MARGIN + offsets * (BANK - 2 * _MARGIN)
    u = centre[:, :1] + zoom[:, None] * (c.dx * cos + c.dy * sin)
    v = centre[:, 1:] + zoom[:, None] * (c.dy * cos - c.dx * sin)
    grid = torch.stack((u, v), dim=-1) * (2 / (BANK - 1)) - 1
    # Never outside, so that the border decides nothing; with it every device samples by torch's own kernel.
    bank = c.bank[:, which : which + 1]
    return torch.nn.functional.grid_sample(bank, grid[None], padding_mode="border", align_corners=True)[0, 0]


def _lie(c: Canvas, offsets: torch.Tensor) -> torch.Tensor:
    """Windows (4, B, P²) of the flat noise at each cell's whole-pixel offset."""
    start = (PATCH // 2 + offsets[:, :2] * (BANK - PATCH)).long()
    index = (start[:, :1] + c.dy.long()) * BANK + start[:, 1:] + c.dx.long()
    return c.flat[:, index]


def _lines(seed: int, name: str, across: float, along: float, slope: float) -> np.ndarray:
    """Curved lines (BANK, BANK) along x, of mean 1: where noise that is long in x crosses zero, bent, some brighter."""
    y, x = np.indices((BANK, BANK), dtype=np.float32)
    bent = y + slope * (x - BANK / 2) + 4.5 * _noise(seed, name + " bend", 11.0, 11.0)
    noise = ndimage.map_coordinates(_noise(seed, name, across, along), [bent, x], order=1, mode="wrap")
    lines = np.exp(-((noise / 0.40) ** 2)) * np.exp(0.45 * _noise(seed, name + " light", 3.0, 6.0))
    return lines / lines.mean()


def _noise(seed: int, name: str, across: float, along: float) -> np.ndarray:
    """Gaussian noise (BANK, BANK) of unit variance, smoothed by Gaussians of these widths along y and x."""
    white = stream(seed, "bank", name).standard_normal((BANK, BANK))
    f = np.fft.fftfreq(BANK)
    fy, fx = np.exp(-2 * (np.pi * across * f) ** 2), np.exp(-2 * (np.pi * along * f[: BANK // 2 + 1]) ** 2)
    smooth = np.fft.irfft2(np.fft.rfft2(white) * fy[:, None] * fx[None], s=(BANK, BANK))
    return smooth / smooth.std()
