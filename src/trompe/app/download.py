"""What a visitor takes home: the result and its pictures in one zip file."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from trompe.app import pictures
from trompe.report.overview import amplification, overview_figure
from trompe.report.style import bright, save_figure
from trompe.types import AttackResult
from trompe.zoo.images import save_png


def write_zip(result: AttackResult, path: Path) -> Path:
    """Write ``result.safetensors``, which ``trompe.load_result`` reads, and PNGs of it.

    Args:
        result: of an attack on one image.
        path: of the zip file.

    Returns:
        The path.

    Raises:
        OutputError: if it cannot be written.
    """
    before, after = (
        result.input_space.to_pixels(result.x),
        result.input_space.to_pixels(result.x_adv),
    )
    maps = {
        "map_original": result.map_original[0],
        "map_manipulated": result.map_adv[0],
        "map_target": result.aim[0],
    }
    brightest = bright(list(maps.values()))
    factor = amplification(after[0] - before[0])
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        result.save(folder / "result.safetensors")
        for name, pixels in (("original", before), ("manipulated", after)):
            if pixels.shape[1] in (1, 3):
                save_png(folder / f"{name}.png", pixels[0])
        pictures.change(after[0], before[0], factor).save(folder / f"change_times_{factor}.png")
        for name, heat in maps.items():
            pictures.heat(heat, brightest).save(folder / f"{name}.png")
        figure = overview_figure(result, result.input_space, labels=result.classes)
        save_figure(figure, folder / "overview.png")
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, file.name)
    return path
