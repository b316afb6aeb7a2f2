"""Drawings: palettes that people can distinguish, grids of every size, numbers and marks."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from lightning_arc.arc import Episode, LabeledCandidate, Pair, PairKey, as_grid
from lightning_arc.reporting.drawing import (
    PALETTES,
    differing,
    digit_ink,
    draw_episode,
    draw_grid,
    draw_grids,
    figure_to_array,
    size_name,
)

SIGHT = {
    "normal": np.eye(3),
    "without red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "without green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "without blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""How linear RGB is seen (Machado, Oliveira and Fernandes, 2009, table 1, severity 1)."""

TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def least_distance(palette: tuple[str, ...], sight: str) -> float:
    """The least distance between two colours in CIELAB."""
    seen = np.clip([linear(colour) for colour in palette] @ np.array(SIGHT[sight]).T, 0, 1) @ TO_XYZ.T / TO_XYZ.sum(1)
    x, y, z = np.where(seen > 216 / 24389, np.cbrt(seen), (24389 / 27 * seen + 16) / 116).T
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
    distances = np.linalg.norm(lab[:, None] - lab, axis=2)
    return distances[np.triu_indices(len(palette), 1)].min()


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_of_the_safe_palette_differ_whatever_colours_a_reader_sees(sight: str) -> None:
    assert least_distance(PALETTES["safe"], sight) > 32
    assert least_distance(PALETTES["arc"], sight) < 16 or sight == "normal"


@pytest.mark.parametrize("colour", sorted({colour for palette in PALETTES.values() for colour in palette}))
def test_numbers_are_read_on_every_colour(colour: str) -> None:
    light, dark = sorted(
        (0.05 + linear(one) @ (0.2126, 0.7152, 0.0722) for one in (colour, digit_ink(colour))), reverse=True
    )
    assert light / dark >= 4.5


def test_cells_differ_where_numbers_do_and_nowhere_where_sizes_do() -> None:
    one, other = as_grid([[1, 2], [3, 4]]), as_grid([[1, 0], [3, 4]])
    assert differing(one, other).tolist() == [[False, True], [False, False]]
    assert differing(one, as_grid([[1, 2]])) is None
    assert size_name(as_grid([[1, 2, 3]])) == "1×3"


@pytest.mark.parametrize("shape", ((1, 1), (1, 30), (30, 1), (30, 30)))
@pytest.mark.parametrize("numbers", (False, True))
def test_grids_of_every_size_are_drawn(shape: tuple[int, int], numbers: bool) -> None:
    grid = as_grid(np.arange(shape[0] * shape[1]).reshape(shape) % 10)
    picture = figure_to_array(draw_grids([grid], ["a"], palette="safe", numbers=numbers))
    expected = {tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in PALETTES["safe"][: grid.max() + 1]}
    assert expected <= {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}


def white_pixels(reference: list[list[int]]) -> int:
    figure = Figure(figsize=(2, 2))
    draw_grid(figure.add_axes((0, 0, 1, 1)), as_grid([[5, 5], [5, 3]]), reference=as_grid(reference))
    return int((figure_to_array(figure) == 255).all(2).sum())


def test_cells_that_differ_from_a_reference_are_marked() -> None:
    same, one, two = (white_pixels(reference) for reference in ([[5, 5], [5, 3]], [[5, 5], [5, 5]], [[0, 5], [5, 5]]))
    assert one > same + 50 and two > one + 50
    assert white_pixels([[5, 5]]) == same


def test_an_episode_names_the_size_of_every_grid() -> None:
    grids = [as_grid(np.zeros(shape, np.int8)) for shape in ((1, 2), (3, 4), (5, 6), (7, 8))]
    pairs, answers = (Pair(grids[0], grids[1]),), (LabeledCandidate(grids[3], False),)
    figure = draw_episode(Episode(PairKey("t", "test", 0), pairs, grids[2], grids[2], answers))
    assert [text.get_text() for text in figure.texts if "×" in text.get_text()] == ["1×2", "5×6", "3×4", "5×6", "7×8"]
