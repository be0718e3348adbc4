"""The three ledgers as a picture, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .ledger import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .ways import Story

AREAS: tuple[tuple[str, str, Callable[[Row], int]], ...] = (
    ("delivered to Doow", "#2f8f6b", lambda row: row.delivered),
    ("waits in the memory of sandboxes", "#f0b441", lambda row: row.waiting),
    ("in the log alone", "#6f8fc4", lambda row: row.in_log),
    ("lost", "#c0392b", lambda row: max(0, row.lost)),
)


def draw(stories: Sequence[Story], title: str, titles: Sequence[str], path: Path) -> None:
    """Write the picture to ``path``, whose ending says of which kind it is.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    # The same figures make the same file.
    mpl.rcParams.update({"svg.hashsalt": "fleet", "font.size": 10, "axes.titlesize": 11})
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(stories), figsize=(13, 4.8), sharey=True, layout="constrained", facecolor="white"
    )
    figure.suptitle(title, x=0.01, ha="left")
    for axis, story, heading in zip(axes, stories, titles, strict=True):
        _panel(axis, story.rows, heading)
    axes[0].set_ylabel("calls of track, thousands")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"metadata": {"Date": None}} if path.suffix == ".svg" else {"dpi": 120}
    figure.savefig(path, **kind)
    plt.close(figure)


def _panel(axis: Any, rows: Sequence[Row], title: str) -> None:
    rows = [Row(0.0, 0, 0, 0, 0, 0), *rows]
    minutes = [row.at / 60 for row in rows]
    heights = [[value(row) / 1e3 for row in rows] for _, _, value in AREAS]
    axis.stackplot(
        minutes,
        heights,
        labels=[name for name, _, _ in AREAS],
        colors=[color for _, color, _ in AREAS],
    )
    recorded = [row.recorded / 1e3 for row in rows]
    axis.plot(minutes, recorded, color="#222222", label="recorded")
    axis.set_title(title, loc="left")
    axis.set_xlabel("simulated time, minutes")
    axis.set_xlim(0, minutes[-1])
    axis.set_ylim(bottom=0)
    axis.grid(color="white", alpha=0.4)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
