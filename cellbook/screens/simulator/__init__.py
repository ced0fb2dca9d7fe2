"""A synthetic BBBC021 on the real plate map, with known biology and known nuisances."""

from cellbook.screens.simulator.design import FIRST_STRENGTHS, PRESETS, SimulatedScreen, plate_map, preset
from cellbook.screens.simulator.export import simulate_fields, with_fields
from cellbook.screens.simulator.simulate import simulate
