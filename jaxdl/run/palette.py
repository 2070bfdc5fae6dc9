"""Colours of all pictures: those of Okabe and Ito, which the colour-blind can tell apart.

Pictures have a white background, so they read the same on a dark page as on a light one.
"""

BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, "#E69F00", "black")
STYLES = ("-", "--", "-.", ":")
SPLITS = {"train": BLUE, "validation": ORANGE, "test": GREEN}


def line_style(number: int) -> dict[str, str]:
    """Returns color and style of a line by its number; those of the first 28 differ.

    >>> line_style(0) == line_style(7), line_style(0)["color"] == line_style(7)["color"]
    (False, True)
    """
    color = COLORS[number % len(COLORS)]
    return {"color": color, "linestyle": STYLES[number % len(STYLES)]}
