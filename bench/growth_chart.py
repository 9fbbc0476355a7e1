"""Draws how cost grows as one SVG that is readable on light and dark paper and needs nothing else."""

import math
from html import escape

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 18, 58, 44
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #5b626b } .title { font-weight: 600; font-size: 13px; fill: #1c1f23 }
.grid { stroke: #dcdfe3 } .line { fill: none; stroke-width: 2; stroke-linejoin: round } .middle { text-anchor: middle }
.end { text-anchor: end } .s0 { stroke: #c2410c } .s1 { stroke: #1d63c4 } .d0 { fill: #c2410c } .d1 { fill: #1d63c4 }
@media (prefers-color-scheme: dark) {
  text { fill: #9aa1aa } .title { fill: #e8eaed } .grid { stroke: #33383f }
  .s0 { stroke: #ffa066 } .s1 { stroke: #7db3ff } .d0 { fill: #ffa066 } .d1 { fill: #7db3ff }
}
"""


def chart(across, panels):
    """One picture of panels side by side; each is a title and lines, and a line is a name and (x, y) points."""
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(panels)} {HEIGHT}" role="img" '
             f'aria-label="{escape("; ".join(title for title, _ in panels))}">', f"<style>{STYLE}</style>"]
    for nth, (title, lines) in enumerate(panels):
        parts += [f'<g transform="translate({nth * WIDTH} 0)">', *panel(across, title, lines), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel(across, title, lines):
    right = max(x for _, points in lines for x, _ in points)
    ticks = nice_ticks(max(y for _, points in lines for _, y in points))
    place = lambda x, y: (LEFT + x / right * (WIDTH - LEFT - RIGHT),
                          HEIGHT - BOTTOM - y / ticks[-1] * (HEIGHT - TOP - BOTTOM))
    yield f'<text class="title" x="{LEFT}" y="18">{escape(title)}</text>'
    for y in ticks:
        _, at = place(0, y)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text class="end" x="{LEFT - 8}" y="{at + 4:.1f}">{y:g}</text>'
    for x in sorted({x for _, points in lines for x, _ in points}):
        at, bottom = place(x, 0)
        # Narrow neighbours: 10 and 30 of 300 still have room for two digits each.
        yield f'<text class="middle" x="{at:.1f}" y="{bottom + 18:.1f}">{x:g}</text>'
    yield f'<text class="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 8}">{escape(across)}</text>'
    for nth, (name, points) in enumerate(lines):
        key = LEFT + nth * 110
        yield f'<rect class="d{nth}" x="{key}" y="32" width="14" height="3"/>'
        yield f'<text x="{key + 20}" y="38">{escape(name)}</text>'
        placed = [place(*point) for point in points]
        yield f'<path class="line s{nth}" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in placed)}"/>'
        yield from (f'<circle class="d{nth}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in placed)


def nice_ticks(top):
    """From 0 in even steps of 1, 2 or 5 to at least `top`, about five of them."""
    step = next(step for power in range(-6, 12) for step in (10**power, 2 * 10**power, 5 * 10**power) if top / step <= 5)
    return [round(nth * step, 6) for nth in range(max(1, math.ceil(top / step)) + 1)]
