"""Reading images of every kind, refusing broken ones, and writing PNGs."""

from __future__ import annotations

import io
import logging
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from trompe.errors import ImageError, OutputError, UsageError
from trompe.types import Preprocessing
from trompe.zoo.images import (
    default_images,
    fit_pixels,
    list_images,
    load_image,
    read_pixels,
    save_png,
)
from trompe.zoo.npz_images import NpzImages


def photo(width: int = 60, height: int = 40) -> Image.Image:
    """A smooth colourful picture."""
    y, x = np.mgrid[0:height, 0:width]
    levels = np.stack([x * 255 / width, y * 255 / height, 127 + 120 * np.sin(x / 5)], axis=-1)
    return Image.fromarray(levels.astype(np.uint8))


def gray16(width: int = 60, height: int = 40) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(((x + y) * 600).astype(np.uint16))


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (33, 33), (300, 277), (277, 300), (91, 64)])
@pytest.mark.parametrize(("size", "resize"), [(32, 32), (32, 37), (29, 64)])
def test_agrees_with_torchvision(
    tmp_path: Path, shape: tuple[int, int], size: int, resize: int
) -> None:
    image = photo(*shape)
    image.save(tmp_path / "a.png")
    oracle = transforms.Compose(
        [transforms.Resize(resize), transforms.CenterCrop(size), transforms.ToTensor()]
    )
    pixels = load_image(tmp_path / "a.png", size=size, resize=resize)
    assert pixels.shape == (3, size, size)
    assert pixels.dtype == torch.float32
    assert pixels.is_contiguous()
    torch.testing.assert_close(pixels, oracle(image), atol=1e-6, rtol=0)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_interpolates_as_the_model_wants_it(tmp_path: Path, interpolation: str) -> None:
    image = photo(91, 64)
    image.save(tmp_path / "a.png")
    mode = transforms.InterpolationMode(interpolation)
    oracle = transforms.Compose(
        [transforms.Resize(37, mode), transforms.CenterCrop(32), transforms.ToTensor()]
    )
    pixels = load_image(tmp_path / "a.png", how=Preprocessing(32, 37, interpolation))
    torch.testing.assert_close(pixels, oracle(image), atol=1e-6, rtol=0)


def test_a_grey_model_gets_grey_images(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    gray16().save(tmp_path / "deep.png")
    how = Preprocessing(32, 40, channels=1)
    oracle = transforms.Compose([transforms.Resize(40), transforms.CenterCrop(32)])
    expected = np.asarray(oracle(photo()).convert("L")) / 255
    pixels = load_image(tmp_path / "a.png", how=how)
    assert pixels.shape == (1, 32, 32)
    torch.testing.assert_close(pixels[0].double(), torch.from_numpy(expected), atol=1e-6, rtol=0)
    deep = load_image(tmp_path / "deep.png", how=how)
    torch.testing.assert_close(deep, load_image(tmp_path / "deep.png", size=32, resize=40)[:1])
    assert default_images(how=how)["cat"].shape == (1, 32, 32)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_an_array_has_as_many_channels_as_the_model(tmp_path: Path, kind: type) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (5, 40, 60))
    values = levels.astype(np.uint8) if kind is np.uint8 else (levels / 255).astype(kind)
    np.save(tmp_path / "a.npy", values)
    pixels = load_image(tmp_path / "a.npy", how=Preprocessing(32, 40, channels=5))
    expected = torch.from_numpy(levels[:, 4:36, 14:46] / 255)  # no resizing: 40 pixels already
    torch.testing.assert_close(pixels.double(), expected, atol=1e-6, rtol=0)
    with pytest.raises(ImageError, match="5 channels, the model takes 4"):
        load_image(tmp_path / "a.npy", how=Preprocessing(32, 40, channels=4))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((3, 20, 20), 200.0), "above 1"),
        (np.full((3, 20, 20), np.nan), "no array"),
        (np.full((3, 20, 20), -0.5), "no array"),
        (np.zeros((20, 20)), "no array"),
        (np.array([["a"]]), "no array"),
        (np.zeros((3, 4, 20)), "too small"),
    ],
)
def test_arrays_that_are_no_image(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ImageError, match=reason):
        load_image(tmp_path / "a.npy", how=Preprocessing(16, 16))


def test_pictures_have_no_five_channels(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"5 channels of the model: give a \.npy"):
        load_image(tmp_path / "a.png", how=Preprocessing(32, 40, channels=5))


def test_pixels_in_memory_are_fitted_like_files(tmp_path: Path) -> None:
    image = photo(96, 80)
    pixels = transforms.functional.pil_to_tensor(image) / 255
    image.save(tmp_path / "a.png")
    for channels in (1, 3):
        for interpolation in ("nearest", "bilinear", "bicubic"):
            how = Preprocessing(32, 40, interpolation, channels)
            fitted = fit_pixels(pixels, how)
            file = load_image(tmp_path / "a.png", how=how)
            # Pillow rounds to levels, once per direction and once more for grey.
            torch.testing.assert_close(fitted, file, atol=2.5 / 255, rtol=0)
    assert fit_pixels(pixels[:1], Preprocessing(32, 40, channels=4)).shape == (4, 32, 32)
    same = Preprocessing(80, 90, "bilinear", 3)
    assert torch.equal(fit_pixels(pixels[:, :, :80], same), pixels[:, :, :80])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": 0}, "choose size <= resize"),
        ({"size": 300}, "choose size <= resize"),
        ({"interpolation": "cubic"}, "unknown interpolation 'cubic'"),
    ],
)
def test_preprocessing_out_of_range(options: dict, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Preprocessing(**options)


def rgba(alpha: int) -> Image.Image:
    image = photo().convert("RGBA")
    image.putalpha(alpha)
    return image


def palette_with_transparency() -> Image.Image:
    image = photo().quantize(16)
    image.info["transparency"] = 0
    return image


KINDS: dict[str, Callable[[], Image.Image]] = {
    "rgba.png": lambda: rgba(255),
    "palette.png": lambda: photo().quantize(255),
    "cmyk.jpg": lambda: photo().convert("CMYK"),
    "cmyk.tif": lambda: photo().convert("CMYK"),
    "still.gif": photo,
    "photo.jpg": photo,
    "photo.webp": photo,
    "photo.bmp": photo,
}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_other_kinds_look_like_the_plain_one(tmp_path: Path, name: str) -> None:
    KINDS[name]().save(tmp_path / name)
    photo().save(tmp_path / "plain.png")
    pixels = load_image(tmp_path / name, size=32, resize=40)
    plain = load_image(tmp_path / "plain.png", size=32, resize=40)
    assert pixels.shape == (3, 32, 32)
    assert float((pixels - plain).abs().mean()) < 0.05


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_gray_images_have_three_equal_channels(tmp_path: Path, mode: str) -> None:
    photo().convert("L").convert(mode).save(tmp_path / "gray.png")
    pixels = load_image(tmp_path / "gray.png", size=32, resize=40)
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], pixels[2])
    if mode != "1":
        gray = transforms.ToTensor()(photo().convert("L").crop((14, 4, 46, 36)))
        torch.testing.assert_close(pixels[:1], gray)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bit_levels_are_kept(tmp_path: Path, name: str) -> None:
    gray16().save(tmp_path / name)
    expected = torch.from_numpy(np.asarray(gray16()).astype(np.float32) / 65535)
    pixels = read_pixels(tmp_path / name)
    assert pixels.shape == (3, 40, 60)
    torch.testing.assert_close(pixels, expected.expand(3, -1, -1))
    small = load_image(tmp_path / name, size=16, resize=20)
    assert 0 <= float(small.min()) < float(small.max()) <= 1


def test_floating_point_levels_beyond_one_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20), 0.5, np.float32)).save(tmp_path / "good.tif")
    assert torch.equal(read_pixels(tmp_path / "good.tif"), torch.full((3, 20, 20), 0.5))
    Image.fromarray(np.full((20, 20), 3, np.float32)).save(tmp_path / "hot.tif")
    with pytest.raises(ImageError, match=r"hot\.tif' has levels outside"):
        load_image(tmp_path / "hot.tif")


@pytest.mark.parametrize("make", [lambda: rgba(0), palette_with_transparency])
def test_transparent_pixels_are_white(tmp_path: Path, make: Callable[[], Image.Image]) -> None:
    make().save(tmp_path / "a.png")
    see_through = torch.from_numpy(np.array(make().convert("RGBA"))[..., 3] == 0)
    assert see_through.any()
    assert (read_pixels(tmp_path / "a.png")[:, see_through] == 1).all()


def test_half_transparent_pixels_mix_with_white(tmp_path: Path) -> None:
    rgba(127).save(tmp_path / "a.png")
    plain = transforms.ToTensor()(photo())
    expected = plain * 127 / 255 + (1 - 127 / 255)
    torch.testing.assert_close(read_pixels(tmp_path / "a.png"), expected, atol=3e-3, rtol=0)


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown turned clockwise by 90 degrees
    photo().save(tmp_path / "turned.png", exif=exif)
    upright = transforms.ToTensor()(photo().rotate(-90, expand=True))
    torch.testing.assert_close(read_pixels(tmp_path / "turned.png"), upright)


def test_a_camera_file_with_a_preview_is_a_still_image(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.mpo", format="MPO", save_all=True, append_images=[photo(30, 20)])
    assert read_pixels(tmp_path / "a.mpo").shape == (3, 40, 60)


def bomb() -> bytes:
    """A PNG of a kilobyte whose header promises 3.6 gigapixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + kind + body + checksum

    size = (60_000).to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + bytes([8, 2, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000)))


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def animation(kind: str) -> bytes:
    stream = io.BytesIO()
    frames = [photo(), photo().rotate(90)]
    frames[0].save(stream, format=kind, save_all=True, append_images=frames[1:])
    return stream.getvalue()


BROKEN = {
    "empty.png": (lambda: b"", "broken"),
    "text.jpg": (lambda: b"not an image", "broken"),
    "cut.png": (lambda: png(photo())[:-300], "truncated|broken"),
    "moving.gif": (lambda: animation("GIF"), "2 frames"),
    "moving.png": (lambda: animation("PNG"), "2 frames"),
    "pages.tif": (lambda: animation("TIFF"), "2 frames"),
    "bomb.png": (bomb, "too large"),
    "dot.png": (lambda: png(photo(1, 1)), "too small, 1 x 1"),
    "line.png": (lambda: png(photo(90_000, 8)), "too elongated"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_bad_files_give_one_line_that_names_them(
    tmp_path: Path, name: str, recwarn: pytest.WarningsRecorder
) -> None:
    make, why = BROKEN[name]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(ImageError, match=why) as caught:
        load_image(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not recwarn.list


def test_a_large_image_below_the_bomb_limit_is_refused_quietly(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    header = bytearray(bomb())
    header[16:24] = (10_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    (tmp_path / "large.png").write_bytes(bytes(header))
    with pytest.raises(ImageError, match="10000 x 10000"):
        load_image(tmp_path / "large.png")
    assert not recwarn.list


def test_missing_files_folders_and_impossible_sizes(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        load_image(tmp_path / "nothing.png")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(UsageError, match="size <= resize"):
        load_image(tmp_path / "a.png", size=300, resize=256)
    with pytest.raises(UsageError, match="size <= resize"):
        default_images(0)


def test_the_default_images_need_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    images = default_images(48)
    assert list(images) == ["cat", "coffee", "rocket"]
    for pixels in images.values():
        assert pixels.shape == (3, 48, 48)
        assert 0 <= float(pixels.min()) < float(pixels.max()) <= 1
    assert not torch.equal(default_images(48, resize=60)["cat"], images["cat"])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_is_rounded_to_nearest_and_read_back(tmp_path: Path, channels: int) -> None:
    levels = torch.tensor([[0.0, 0.4, 0.6, 1.4, 200.49, 254.6, 255, 300, -7]]) / 255
    save_png(tmp_path / "a.png", levels.expand(channels, 1, 9))
    expected = torch.tensor([[0.0, 0, 1, 1, 200, 255, 255, 255, 0]]) / 255
    torch.testing.assert_close(read_pixels(tmp_path / "a.png"), expected.expand(3, 1, 9))
    assert os.listdir(tmp_path) == ["a.png"]


def test_an_image_survives_being_saved(tmp_path: Path) -> None:
    pixels = default_images(32)["cat"]
    save_png(tmp_path / "cat.png", pixels)
    torch.testing.assert_close(load_image(tmp_path / "cat.png", size=32, resize=32), pixels)


def test_a_png_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\(2, 4, 4\)"):
        save_png(tmp_path / "a.png", torch.zeros(2, 4, 4))
    with pytest.raises(UsageError, match="not numbers"):
        save_png(tmp_path / "a.png", torch.full((3, 4, 4), torch.nan))
    with pytest.raises(OutputError, match=r"nowhere/a\.png"):
        save_png(tmp_path / "nowhere" / "a.png", torch.zeros(3, 4, 4))
    assert os.listdir(tmp_path) == []


def test_list_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpg", "b.PNG"]
    with pytest.raises(ImageError, match="holds no image"):
        list_images(tmp_path / "folder.png")
    with pytest.raises(ImageError, match="nothing"):
        list_images(tmp_path / "nothing")


def test_a_folder_of_class_folders_is_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("dog/2.jpg", "cat/1.png", "cat/b/deep.png", ".trash/3.png", "empty/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["cat/1.png", "dog/2.jpg"]


def write_npz(path: Path, **changes: np.ndarray) -> None:
    files = []
    for shape in ((20, 10), (12, 12)):
        stream = io.BytesIO()
        photo(*shape).convert("L" if shape == (12, 12) else "RGB").save(stream, format="JPEG")
        files.append(np.frombuffer(stream.getvalue(), np.uint8))
    arrays = {
        "jpeg": np.concatenate(files),
        "offsets": np.cumsum([0, *(len(file) for file in files)]),
        "label": np.array([7, 3]),
    }
    np.savez(path, **{**arrays, **changes})


def test_npz_images(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz")
    images = NpzImages(tmp_path / "a.npz")
    assert len(images) == 2
    assert images.labels == [7, 3]
    assert [(tuple(pixels.shape), label) for pixels, label in images] == [
        ((3, 10, 20), 7),
        ((3, 12, 12), 3),
    ]
    assert torch.equal(images[-1][0], images[1][0])
    with pytest.raises(IndexError):
        images[2]


@pytest.mark.parametrize(
    "changes",
    [
        {"offsets": np.array([0.0, 5.0, 9.0])},
        {"offsets": np.array([[0, 5, 9]])},
        {"offsets": np.array([0, 2**63, 2**63 + 1], np.uint64)},
        {"offsets": np.zeros(0, np.int64)},
        {"jpeg": np.zeros((2, 500), np.uint8)},
        {"jpeg": np.zeros(5000)},
    ],
)
def test_arrays_of_another_form(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    write_npz(tmp_path / "a.npz", **changes)
    with pytest.raises(ImageError, match=r"a\.npz' is broken, its offsets do not fit"):
        NpzImages(tmp_path / "a.npz")


def test_broken_npz_images(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", offsets=np.array([0, 5, 3]))
    with pytest.raises(ImageError, match="offsets do not fit"):
        NpzImages(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=np.zeros(3))
    with pytest.raises(ImageError, match="arrays jpeg, offsets and label"):
        NpzImages(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", jpeg=np.array([{}]), offsets=np.zeros(2), label=np.zeros(1))
    with pytest.raises(ImageError, match="arrays jpeg, offsets and label"):
        NpzImages(tmp_path / "c.npz")
    write_npz(tmp_path / "d.npz", jpeg=np.zeros(5000, np.uint8))
    with pytest.raises(ImageError, match=r"d\.npz\[1\]"):
        NpzImages(tmp_path / "d.npz")[1]


@pytest.mark.parametrize(("bits", "said"), [(8, True), (10, True), (12, True), (16, False)])
def test_fewer_bits_in_a_file_of_16_are_told_and_scaled(
    bits: int, said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    levels = np.linspace(0, 2**bits - 1, 32 * 32).reshape(32, 32).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "scan.png")
    with caplog.at_level(logging.WARNING, "trompe"):
        pixels = load_image(tmp_path / "scan.png", size=32, resize=32)
    expected = torch.from_numpy(levels.astype(np.float32) / (2**bits - 1))
    torch.testing.assert_close(pixels, expected.expand(3, 32, 32))
    assert (f"read as {bits}-bit data, white is {2**bits - 1}" in caplog.text) == said
