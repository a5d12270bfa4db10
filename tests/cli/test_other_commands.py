from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import trompe
from trompe.zoo.images import default_images, save_png

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
SQUEEZENET = SHARED / "models" / "squeezenet1_1_imagenet.safetensors"


@pytest.fixture
def photos(folder: Path) -> Path:
    (folder / "photos").mkdir()
    for name, pixels in default_images(64).items():
        save_png(folder / "photos" / f"{name}.png", pixels)
    return folder / "photos"


def test_without_arguments_there_is_help(run: Callable) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    for command in ("attack", "explain", "patterns", "models", "completion"):
        assert command in out


def test_version(run: Callable) -> None:
    assert trompe.__version__ in run("--version").out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run: Callable, shell: str) -> None:
    code, out, _ = run("completion", shell)
    assert code == 0
    assert "_TROMPE_COMPLETE" in out


def test_models_lists_the_embedded_and_torchvisions(run: Callable) -> None:
    table = {entry["name"]: entry for entry in json.loads(run("models", "--json").out)}
    assert table["tiny-vgg"]["embedded"]
    assert table["tiny-vgg"]["size"] == 64
    assert table["efficientnet-lite0"]["weights"] == "installed"
    assert table["vgg16"]["size"] == 224
    assert table["inception_v3"]["size"] == 299
    assert "tiny-resnet" in run("models").out


def test_explain_draws_a_figure_per_image(run: Callable, photos: Path) -> None:
    both = [photos / "cat.png", photos / "rocket.png"]
    code, out, err = run(
        "explain", *both, "--method", "gradient", "--method", "lrp", "--beta", 2, "--output", "o"
    )
    assert code == 0
    assert "left out" not in err
    assert "cat_explanations.png" in out
    assert {p.name for p in Path("o").iterdir()} == {
        "cat_explanations.png",
        "rocket_explanations.png",
        "maps.safetensors",
        "explanations.json",
    }
    maps = load_file("o/maps.safetensors")
    assert set(maps) == {"gradient", "gradient.beta2", "lrp", "lrp.beta2"}
    assert maps["lrp"].shape == (2, 64, 64)
    torch.testing.assert_close(maps["lrp"].sum(dim=(1, 2)), torch.ones(2))


def test_explain_json_and_another_class(run: Callable, photos: Path) -> None:
    code, out, err = run(
        "explain", photos / "cat.png", "--method", "gradient", "--target-class", 3, "--json"
    )
    assert code == 0
    assert "left out" not in err
    (entry,) = json.loads(out)["images"]
    assert entry["class_explained"] == 3
    assert entry["pcc_to_relu_map"]["gradient"] == pytest.approx(1)


def test_explain_refuses_a_class_that_there_is_not(refused: Callable) -> None:
    assert "50" in refused("explain", "--method", "gradient", "--target-class", 50)
    assert "-1" in refused("explain", "--method", "gradient", "--target-class", -1)


def test_explain_leaves_out_what_the_network_does_not_allow(run: Callable) -> None:
    code, _, err = run("explain", "--model", "tiny-resnet", "--beta", 1, "--output", "o")
    assert code == 0
    (said,) = [line for line in err.splitlines() if "left out" in line]
    assert "left out: pattern_attribution, pattern_net (needs patterns" in said
    assert "attention_rollout" not in err  # a network without attention has none, which is no news
    assert "gradient" in load_file("o/maps.safetensors")
    assert "smoothgrad" not in load_file("o/maps.safetensors")


def test_patterns_are_learned_and_used(run: Callable, photos: Path) -> None:
    code, out, err = run("patterns", "--data", photos, "--output", "p/v.safetensors", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["images"] == 3
    assert report["shapes"]["features.0.weight"] == [16, 3, 3, 3]
    code, _, err = run(
        "explain", "--method", "pattern_attribution", "--patterns", "p/v.safetensors", "--beta", 1
    )
    assert code == 0
    assert "left out" not in err


def test_patterns_bad_input(refused: Callable, photos: Path) -> None:
    assert "--data" in refused("patterns")
    assert "nowhere" in refused("patterns", "--data", "nowhere")
    assert "none.npz" in refused("patterns", "--data", "none.npz")
    assert ".safetensors" in refused("patterns", "--data", photos, "--output", "p.pth")
    line = refused("attack", "--method", "pattern_attribution", "--patterns", photos / "cat.png")
    assert "cat.png" in line


def program(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run one of the paper's programs; returns its exit code."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / name), run_name="__main__")
    return int(left.value.code or 0)


def test_the_papers_programs(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ("--output_dir", "o", "--model", "tiny-vgg")
    images = ("--img", photos / "cat.png", "--target_img", photos / "rocket.png")
    attack = (*common, *images, "--num_iter", 2)
    assert program("run_attack.py", monkeypatch, *attack) == 0
    assert program("run_attack.py", monkeypatch, *attack, "--method", "gradient") == 0
    growth = ("--method", "gradient", "--beta_growth", "--prefactors", 1e11, 1e6, "--lr", 0.001)
    assert program("run_attack.py", monkeypatch, *attack, *growth) == 0
    x = torch.load("o/x_gradient.pth", weights_only=True)
    assert x.shape == (1, 3, 64, 64)
    plot = ("--x", "o/x_gradient.pth", "--betas", 10, 3, 1)
    assert program("plot_expl.py", monkeypatch, *common, *plot) == 0
    assert program("plot_expl.py", monkeypatch, *common, *images[:2], "--method", "lrp") == 0
    assert {path.name for path in Path("o").iterdir()} == {
        "overview_lrp.png",
        "x_lrp.pth",
        "overview_gradient.png",
        "x_gradient.pth",
        "expls_gradient.png",
        "expls_lrp.png",
    }


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("run_attack.py", (), "--img"),
        ("plot_expl.py", (), "--img"),
        ("run_attack.py", ("--method", "astrology"), "astrology"),
        ("plot_expl.py", ("--model", "tiny-vgg", "--x", "none.pth"), "none.pth"),
    ],
)
def test_the_papers_programs_complain_in_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    (folder / "src").mkdir()
    monkeypatch.chdir(folder / "src")
    assert program(name, monkeypatch, *arguments) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("trompe: ")
    assert words in line
    assert not (folder / "output").exists()


def test_the_paper_network_without_a_download_names_the_way_out(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", str(photos.parent / "hub"))
    assert program("plot_expl.py", monkeypatch, "--img", photos / "cat.png") == 2
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "--model" in line
    assert "--weights" in line


@pytest.mark.skipif(not SQUEEZENET.exists(), reason="../shared is absent")
def test_squeezenet_with_all_methods(run: Callable, folder: Path) -> None:
    photos = sorted((SHARED / "data" / "imagenet_samples").glob("*.jpg"))[:1]
    code, _, err = run(
        "explain",
        *photos,
        "--model",
        "squeezenet1_1",
        "--weights",
        SQUEEZENET,
        "--classes",
        SHARED / "data" / "imagenet_classes.txt",
        "--size",
        96,
        "--beta",
        1,
        "--output",
        "o",
    )
    assert code == 0, err
    assert "left out: pattern_attribution, pattern_net (" in err
    found = {name for name in load_file("o/maps.safetensors") if ".beta" not in name}
    assert found >= {
        "grad_times_input",
        "gradient",
        "guided_backprop",
        "integrated_grad",
        "lrp",
    }


def test_every_command_and_function_that_attacks_has_the_same_default_preset() -> None:
    import inspect

    import trompe
    from trompe.attacks import adaptive_attack
    from trompe.attacks.presets import DEFAULT_PRESET
    from trompe.audit.settings import Settings
    from trompe.cli import command

    commands = command.commands
    for one in (
        *(commands[n] for n in ("attack", "audit")),
        *commands["animate"].commands.values(),
        *commands["smooth"].commands.values(),
    ):
        options = [o for o in one.params if "--preset" in o.opts]
        assert options or one.name not in ("attack", "audit")
        for option in options:
            default = option.default if isinstance(option.default, str) else option.default[0]
            assert default == DEFAULT_PRESET, one.name
    for function in (trompe.manipulate, adaptive_attack):
        assert inspect.signature(function).parameters["preset"].default == DEFAULT_PRESET
    assert inspect.signature(Settings).parameters["presets"].default == (DEFAULT_PRESET,)


def test_explain_says_how_far_it_is(run: Callable) -> None:
    command = ("explain", "cat", "--model", "tiny-vgg", "--method", "gradient", "--beta", 1)
    assert "2/2" in run(*map(str, command)).err
    assert run(*map(str, command), "--quiet", "--output", "other").err == ""
