"""What the page does, without the page and without gradio."""

from __future__ import annotations

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import trompe
from trompe.app import live, words
from trompe.app.handlers import Handlers, Shown
from trompe.app.live import LiveAttack
from trompe.app.sessions import Models, Session, Sessions
from trompe.app.wishes import COPIED, DRAWN, OWN, WRITTEN, Wish, drawn_bytes, offered_methods
from trompe.errors import TargetError, UsageError
from trompe.zoo.targets import map_from_drawing


@pytest.fixture(scope="module")
def models() -> Models:
    return Models(["tiny-vgg"])


@pytest.fixture
def handlers(models: Models) -> Handlers:
    return Handlers(Sessions(models))


def drawing(drawn: bool = True) -> str:
    picture = Image.new("RGB", (280, 280), "black")
    if drawn:
        ImageDraw.Draw(picture).rectangle((0, 0, 139, 139), fill="#fcb519")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def wish(**changes: Any) -> list[Any]:
    form: dict[str, Any] = {
        "photo": "cat", "upload": None, "model": "tiny-vgg", "method": "gradient",
        "preset": "fast", "steps": 3, "source": WRITTEN, "drawing": None, "text": "x",
        "other": "rocket", "other_upload": None,
    }  # fmt: skip
    assert not changes.keys() - form.keys()
    return list({**form, **changes}.values())


def run(handlers: Handlers, page: str = "a", **changes: Any) -> list[Shown]:
    return list(handlers.start(page, *wish(**changes)))


@pytest.mark.parametrize(
    "target",
    [
        {"source": WRITTEN, "text": "fooled"},
        {"source": DRAWN, "drawing": drawing()},
        {"source": COPIED, "other": "rocket"},
    ],
    ids=["written", "drawn", "copied"],
)
def test_an_attack_from_start_to_download(
    handlers: Handlers, target: dict[str, Any], tmp_path: Path
) -> None:
    shown = []
    for one in handlers.start("a", *wish(steps=200, **target)):
        shown.append(one)
        if one.outcome is not None:
            with zipfile.ZipFile(one.outcome.download) as archive:
                names = set(archive.namelist())
                archive.extractall(tmp_path)
    assert shown[0].running is True
    assert shown[0].fresh
    frames = [one.live for one in shown if one.live]
    assert 'data-step="0"' in frames[0]
    assert 'data-step="200"' in frames[-1]
    assert "times as strong" in frames[-1]  # by how much the change is amplified
    for name in ("PCC", "PSNR", "Network: "):
        assert name in frames[-1]
    last = shown[-1]
    assert last.running is False
    assert last.outcome is not None
    assert "Done: 200 steps" in (last.status or "")
    assert not Path(last.outcome.download).exists()  # nothing piles up
    assert {"result.safetensors", "original.png", "manipulated.png", "overview.png"} <= names
    assert {"map_original.png", "map_manipulated.png", "map_target.png"} <= names
    result = trompe.load_result(tmp_path / "result.safetensors")
    pixels = result.input_space.to_pixels(result.x_adv)[0].mul(255)
    saved = torch.from_numpy(np.array(Image.open(tmp_path / "manipulated.png"))).permute(2, 0, 1)
    assert float((saved.float() - pixels).abs().max()) <= 0.501  # the nearest level, or one of two
    maps = handlers.smooth("a", 2.0)
    assert maps is not None
    assert maps.count("<img") == 3
    assert "beta 2" in maps
    again = run(handlers, **target)[-1].outcome
    assert again is not None
    assert "beta 2" in again.smoothed  # as the slider still says
    assert handlers.smooth("b", 2.0) is None  # another page has no result


CHOSEN = ("cat", None, "tiny-vgg", "gradient")


def test_the_photo_is_looked_at_before_the_start(handlers: Handlers) -> None:
    seen = handlers.look("a", *CHOSEN)
    assert seen is not None
    assert seen.count("<img") == 2
    assert "The network answers <b>" in seen
    assert "data-step" not in seen  # no attack is running
    net = trompe.load_model("tiny-vgg")
    x = Wish(*wish()).image(net)
    share, label = net.model(x).softmax(1)[0].max(0)
    assert f"{net.label(int(label))}</b> ({100 * float(share):.1f} %)" in seen
    assert handlers.look("a", OWN, None, "tiny-vgg", "gradient") is None  # nothing uploaded yet
    assert handlers.look("a", "cat", None, "tiny-vgg", "lime") is None  # takes long
    assert handlers.look("a", "cat", None, "tiny-vgg", "attention_rollout") is None  # has none
    assert handlers.look("a", "cat", None, "os:getcwd", "gradient") is None
    attack = handlers.start("a", *wish(steps=50))
    next(attack)
    assert handlers.look("a", *CHOSEN) is None  # an attack is running
    assert list(attack)[-1].outcome is not None
    assert handlers.look("a", *CHOSEN) is None  # its result is shown
    assert handlers.look("b", *CHOSEN) == seen  # nobody else is kept from it


def test_what_takes_time_is_done_ahead(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers.warm("gone", *CHOSEN)
    assert len(handlers.sessions) == 0  # who has left is not remembered anew
    handlers.look("a", *CHOSEN)
    done: list[trompe.AttackResult] = []
    manipulate = live.manipulate

    def counted(*args: Any, **settings: Any) -> trompe.AttackResult:
        done.append(manipulate(*args, **settings))
        return done[-1]

    monkeypatch.setattr(live, "manipulate", counted)
    handlers.warm("a", *CHOSEN)
    session = handlers.sessions.of("a")
    assert [1 <= one.iterations < 50 for one in done] == [True]
    assert session.finished is None
    assert not session.running
    assert run(handlers)[-1].outcome is not None
    handlers.warm("a", *CHOSEN)  # the result stays
    assert len(done) == 2
    assert session.finished is not None


def test_who_looks_makes_way_for_an_attack(models: Models) -> None:
    session = Session(models)
    with session.looking() as ended:
        assert ended is not None
        assert not ended.is_set()
        with session.attacking():
            assert ended.is_set()
            assert not session.alone.acquire(blocking=False)  # the attack waits until it is over
    assert session.alone.acquire(blocking=False)
    session.alone.release()
    with session.attacking(), session.alone, session.looking() as ended:
        assert ended is None
    with session.looking() as ended:
        session.stop()  # the page was left
        assert ended is not None
        assert ended.is_set()


def test_a_failed_second_start_leaves_no_result_behind(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(handlers)[-1].outcome is not None
    assert handlers.smooth("a", 2.0) is not None
    shown = run(handlers, source=WRITTEN, text="")
    assert shown[0].fresh  # what was shown goes
    assert "wrong" in (shown[-1].status or "")
    assert handlers.smooth("a", 3.0) is None

    def another_start(*_: object) -> str:  # while the maps are computed
        handlers.sessions.of("a").finished = None
        return "of the result before"

    assert run(handlers)[-1].outcome is not None
    monkeypatch.setattr("trompe.app.words.smoothed", another_start)
    assert handlers.smooth("a", 2.0) is None


def test_a_slow_explanation_is_said_to_be_slow(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(one for one in run(handlers) if one.live)
    assert first.status == ""
    monkeypatch.setattr(words, "PATIENT", 0.0)
    first = next(one for one in run(handlers) if one.live)
    assert "3 steps take" in (first.status or "")
    assert "Stop keeps the best so far" in (first.status or "")


def test_how_long_is_left_is_said_until_it_is_over(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "NEAR", 0.0)
    frames = []
    for one in handlers.start("a", *wish(steps=500)):
        frames += [one.live] if one.live else []
        if len(frames) == 2:
            handlers.stop("a")
    assert "left" not in frames[0]
    assert " left" in frames[1]
    assert "of 500" in frames[-1]
    assert " left" not in frames[-1]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.42, "0.4 s"), (12.3, "12 s"), (300, "5 min"), (36000, "10 h")]
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said
    assert (said in words.pace(seconds, 1)) == (seconds >= 60)


def test_a_second_start_is_refused_and_the_first_goes_on(handlers: Handlers) -> None:
    first = handlers.start("a", *wish(steps=4))
    next(first)
    next(first)
    (refused,) = run(handlers, "a")
    assert "is running" in (refused.status or "")
    assert (refused.running, refused.live, refused.outcome) == (None, None, None)
    assert run(handlers, "b")[-1].outcome is not None  # nobody else is kept waiting
    assert list(first)[-1].outcome is not None


def test_stop_shows_what_was_found(handlers: Handlers) -> None:
    shown = handlers.start("a", *wish(steps=500))
    for one in shown:
        if one.live and 'data-step="0"' not in one.live:
            handlers.stop("a")
            break
    *_, last = shown
    assert last.running is False
    assert last.outcome is not None
    assert "Stopped after" in (last.status or "")


def test_leaving_the_page_ends_the_work(handlers: Handlers) -> None:
    shown = handlers.start("a", *wish(steps=500))
    next(shown)
    next(shown)
    session = handlers.sessions.of("a")
    handlers.sessions.close("a")
    *_, last = shown
    assert "Stopped after" in (last.status or "")
    assert not session.running
    assert len(handlers.sessions) == 0


def test_a_page_closed_in_the_middle_leaves_nothing_running(handlers: Handlers) -> None:
    shown = handlers.start("a", *wish(steps=500))
    for _ in range(3):
        next(shown)
    shown.close()  # type: ignore[attr-defined]
    assert not handlers.sessions.of("a").running


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "os:getcwd"}, "this page has no model"),
        ({"method": "../x"}, "this page has no method"),
        ({"method": "smoothgrad"}, "this page has no method"),
        ({"preset": "none"}, "unknown preset"),
        ({"steps": 0}, "steps must be"),
        ({"steps": 10**9}, "steps must be"),
        ({"photo": "/etc/passwd"}, "there is no photo"),
        ({"photo": OWN}, "no photo is uploaded"),
        ({"text": "  "}, "text is empty"),
        ({"text": "x" * 201}, "at most 200"),
        ({"source": DRAWN}, "nothing is drawn"),
        ({"source": DRAWN, "drawing": drawing(drawn=False)}, "nothing is drawn"),
        ({"source": DRAWN, "drawing": "data:text/html;base64,AA=="}, "cannot be read"),
        ({"source": DRAWN, "drawing": "data:image/png;base64,%%"}, "cannot be read"),
        ({"source": DRAWN, "drawing": "data:image/png;base64,AAAA"}, "drawing"),
        ({"source": COPIED, "other": OWN}, "no photo is uploaded"),
        ({"source": "guess"}, "unknown source"),
    ],
)
def test_a_wish_that_makes_no_sense(
    handlers: Handlers, changes: dict[str, Any], words: str
) -> None:
    last = run(handlers, **changes)[-1]
    assert words in (last.status or "")
    assert (last.status or "").count("<div") == 1
    assert "\n" not in (last.status or "")
    assert last.outcome is None
    assert not last.running
    assert run(handlers)[-1].outcome is not None  # and the page works on


def test_uploads(handlers: Handlers, tmp_path: Path) -> None:
    good, broken, odd = tmp_path / "a.png", tmp_path / "<b>.png", tmp_path / "c.png"
    Image.new("RGB", (80, 60), "red").save(good)
    broken.write_text("no picture")
    Image.new("RGB", (80, 60), "red").save(odd, format="EPS")  # whatever it is called
    assert handlers.uploaded(str(good)) == ""
    for bad in (broken, odd):
        line = handlers.uploaded(str(bad))
        assert "broken or of an unknown kind" in line
        assert str(tmp_path) not in line  # no place on this machine is told
        assert "<b>" not in line
    picture, wrong = handlers.preview(OWN, str(good))
    assert "<img" in picture
    assert wrong == ""
    assert run(handlers, photo=OWN, upload=str(good))[-1].outcome is not None


def test_a_huge_picture_is_refused_by_its_header(handlers: Handlers, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert "too large" in handlers.uploaded(str(path))


def test_a_bug_is_one_line(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a\nb <i>")

    monkeypatch.setattr(LiveAttack, "_work", broken)
    monkeypatch.setattr(Wish, "image", broken)
    last = run(handlers)[-1]
    assert "unexpected ZeroDivisionError: a b &lt;i&gt;" in (last.status or "")
    assert last.running is False
    assert not handlers.sessions.of("a").running


def test_each_page_has_networks_of_its_own(models: Models) -> None:
    one, other = Session(models), Session(models)
    a, b = one.model("tiny-vgg"), other.model("tiny-vgg")
    assert a.model is not b.model
    assert one.model("tiny-vgg") is a
    pairs = zip(a.model.parameters(), b.model.parameters(), strict=True)
    assert all(p.data_ptr() == q.data_ptr() for p, q in pairs)  # the weights are shared
    with pytest.raises(UsageError, match="no model"):
        one.model("timm:resnet18")


def test_a_drawing_becomes_a_map() -> None:
    heat = map_from_drawing(drawn_bytes(drawing()), 64, 64)
    assert heat.shape == (64, 64)
    assert float(heat.sum()) == pytest.approx(1, abs=1e-5)
    assert float(heat[:33, :33].sum()) == pytest.approx(1, abs=1e-5)
    assert float(heat[34:, :].sum()) == pytest.approx(0, abs=1e-6)
    with pytest.raises(TargetError, match="nothing is drawn"):
        drawn_bytes("")


def test_the_methods_offered_can_be_made(models: Models) -> None:
    from trompe.geometry.smoothed_method import make_method

    net = models.load("tiny-vgg")
    for name in offered_methods():
        make_method(name, net)
