"""The figure of a checkpoint tree."""

import re

from profiles import Case, Tree, svg_text, tree_figure, tree_table
from tests.profiles.figures.svg import Drawing


class Block:
    """A block of a tree, as any theory may give it."""

    def __init__(self, start: int, stop: int, slot: int) -> None:
        """Take the three figures."""
        self.start, self.stop, self.slot = start, stop, slot


def boxes(drawing: Drawing) -> list[tuple[float, float, float]]:
    """Left, right and the middle of the height of every rectangle, in pixels."""
    found = []
    for mark in drawing.marks("blocks"):
        x, y, width, height = map(float, re.findall(r"-?[\d.]+", mark.get("d", ""))[:4])
        found.append((x, x + width, y + height / 2))
    return found


def test_a_tree_shows_each_block_at_its_steps_and_slot():
    """Every block is a rectangle from its start to its stop, in the row of its slot, slot 0 at the top."""
    blocks = (Block(0, 10, 0), Block(6, 10, 1), Block(3, 6, 1))
    drawing = Drawing(svg_text(tree_figure(tree_table(Tree(case=Case(), checkpoints=2, steps=10, blocks=blocks)))))
    whole, *below = boxes(drawing)
    width = whole[1] - whole[0]
    assert [(round(10 * (a - whole[0]) / width), round(10 * (b - whole[0]) / width)) for a, b, _ in below] == [
        (6, 10),
        (3, 6),
    ]
    assert below[0][2] == below[1][2] > whole[2]
    assert "2 checkpoints for 10 steps, 3 states stored in all" in drawing.texts


def test_blocks_too_narrow_to_see_are_left_out_and_said():
    """Of a long solve only what has a width is drawn; the title says so, and counts all states."""
    blocks = (Block(0, 100_000, 0), Block(50_000, 100_000, 1), Block(99_999, 100_000, 2))
    drawing = Drawing(svg_text(tree_figure(tree_table(Tree(case=Case(), checkpoints=3, steps=100_000, blocks=blocks)))))
    assert len(boxes(drawing)) == 2
    said = "3 checkpoints for 100,000 steps, 3 states stored in all; the narrowest are not drawn"
    assert said in drawing.texts
