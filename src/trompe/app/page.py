"""The page: what stands where, and what happens when something is pressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from trompe.app import words
from trompe.app.handlers import Handlers, Shown
from trompe.app.sessions import BETA, Sessions
from trompe.app.wishes import (
    COPIED,
    DRAWN,
    LONGEST_TEXT,
    MOST_STEPS,
    OWN,
    PHOTOS,
    WRITTEN,
    offered_methods,
)
from trompe.attacks import presets

_HERE = Path(__file__).parent
_IMAGES = [".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"]
_AT_ONCE = 4
_CANVAS = """<div class="draw"><canvas width="280" height="280" aria-label="Draw the target here">
</canvas><div class="tools"><label>Pen <input type="range" min="4" max="60" value="22"
aria-label="Width of the pen"></label><button type="button">Clear</button></div></div>"""
_HEAD = """<div class="trompe-head"><h1>Change what an explanation shows</h1>
<p>The photo changes invisibly, the network's answer stays, and the explanation becomes what you
draw. Nothing leaves the machine that runs this page.</p></div>"""

_SEEN = """() => {
  if (window.innerWidth < 760)
    document.querySelector("#start").scrollIntoView({behavior: "smooth"});
}"""


def css() -> str:
    """The page's style."""
    return (_HERE / "page.css").read_text(encoding="utf-8")


def build(sessions: Sessions) -> gr.Blocks:
    """The page for a set of sessions."""
    page = gr.Blocks(title="trompe", analytics_enabled=False, delete_cache=(600, 3600))
    with page:
        gr.HTML(_HEAD)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=340):
                form = _Form(sessions)
            with gr.Column(scale=5, min_width=320):
                show = _Show()
        _connect(page, form, show, Handlers(sessions))
    return page


class _Form:
    """What a visitor chooses."""

    def __init__(self, sessions: Sessions) -> None:
        names = sessions.models.names
        self.photo = gr.Radio([*PHOTOS, OWN], value=PHOTOS[0], label="Photo", elem_id="photo")
        with gr.Row(elem_classes="beside"):
            self.preview = gr.HTML(min_width=100)
            self.upload = gr.UploadButton(
                "Upload a photo", file_types=_IMAGES, size="md", elem_id="upload", min_width=140
            )
        self.own = gr.State(None)
        self.source = gr.Radio(
            [DRAWN, WRITTEN, COPIED], value=DRAWN, label="What its explanation shall show",
            elem_id="source",
        )  # fmt: skip
        with gr.Column(visible=True) as self.drawn:
            self.drawing = gr.HTML(
                value="",
                html_template=_CANVAS,
                js_on_load=(_HERE / "canvas.js").read_text(encoding="utf-8"),
                elem_id="drawing",
            )
        with gr.Column(visible=False) as self.written:
            self.text = gr.Textbox(
                "fooled", label="Text", max_length=LONGEST_TEXT, lines=1, elem_id="text"
            )
        with gr.Column(visible=False) as self.copied:
            self.other = gr.Radio([*PHOTOS, OWN], value="rocket", label="Copy the explanation of")
            self.other_upload = gr.UploadButton("Upload a photo", file_types=_IMAGES, size="sm")
            self.other_own = gr.State(None)
        with gr.Accordion("Network, explanation and steps", open=False):
            self.model = gr.Dropdown(list(names), value=names[0], label="Network")
            self.method = gr.Dropdown(offered_methods(), value="gradient", label="Explanation")
            self.preset = gr.Dropdown(presets.names(), value="fast", label="Settings")
            self.steps = gr.Slider(1, MOST_STEPS, value=100, step=1, label="Steps", elem_id="steps")

    @property
    def inputs(self) -> list[Any]:
        """What ``Wish`` is made of, in its order."""
        return [
            self.photo, self.own, self.model, self.method, self.preset, self.steps, self.source,
            self.drawing, self.text, self.other, self.other_own,
        ]  # fmt: skip


class _Show:
    """What a visitor sees."""

    def __init__(self) -> None:
        with gr.Row():
            self.start = gr.Button("Start", variant="primary", elem_id="start", min_width=120)
            self.stop = gr.Button("Stop", interactive=False, elem_id="stop", min_width=120)
        self.status = gr.HTML(elem_id="status")
        self.live = gr.HTML(words.EMPTY, elem_id="live")
        with gr.Column(visible=False) as self.after, gr.Row():
            self.images = gr.ImageSlider(
                label="Image: before | after", interactive=False, buttons=[], format="png",
                min_width=260, max_height=380, elem_id="images",
            )  # fmt: skip
            self.maps = gr.ImageSlider(
                label="Explanation: before | after", interactive=False, buttons=[],
                format="png", min_width=260, max_height=380, elem_id="maps",
            )  # fmt: skip
        with gr.Column(visible=False) as self.smoothing:
            self.beta = gr.Slider(
                0.5, 40, value=BETA, step=0.5, label="Smoothing of the network (beta)",
                info="The smaller, the smoother, and the less is left of the manipulation.",
                elem_id="beta",
            )  # fmt: skip
            self.smoothed = gr.HTML(elem_id="smoothed")
        self.download = gr.DownloadButton(
            "Download the result (zip)", visible=False, elem_id="download"
        )


def _connect(page: gr.Blocks, form: _Form, show: _Show, handlers: Handlers) -> None:
    hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    chosen = [form.photo, form.own, form.model, form.method]
    page.load(handlers.preview, [form.photo, form.own], [form.preview, show.status], **hidden)
    form.photo.change(
        handlers.preview, [form.photo, form.own], [form.preview, show.status], **hidden
    )
    for button, own, radio in (
        (form.upload, form.own, form.photo),
        (form.other_upload, form.other_own, form.other),
    ):
        button.upload(_taken(handlers), [button], [own, radio, show.status], **hidden)
    form.own.change(handlers.preview, [form.photo, form.own], [form.preview, show.status], **hidden)
    form.source.change(
        lambda source: [gr.update(visible=source == one) for one in (DRAWN, WRITTEN, COPIED)],
        [form.source],
        [form.drawn, form.written, form.copied],
        **hidden,
    )
    outputs = [
        show.status, show.live, show.start, show.stop, show.after, show.images, show.maps,
        show.smoothing, show.smoothed, show.download,
    ]  # fmt: skip

    def start(request: gr.Request, *form: Any) -> Any:
        for shown in handlers.start(request.session_hash, *form):
            yield _updates(shown)

    def look(request: gr.Request, *chosen: Any) -> Any:
        shown = handlers.look(request.session_hash, *chosen)
        return gr.skip() if shown is None else shown

    def warm(request: gr.Request, *chosen: Any) -> None:
        handlers.warm(request.session_hash, *chosen)

    def stop(request: gr.Request) -> None:
        handlers.stop(request.session_hash)

    def smooth(beta: float, request: gr.Request) -> Any:
        maps = handlers.smooth(request.session_hash, beta)
        return gr.skip() if maps is None else maps

    def leave(request: gr.Request) -> None:
        handlers.sessions.close(request.session_hash)

    gr.on(
        [page.load, *(one.change for one in chosen)], look, chosen, [show.live],
        trigger_mode="always_last", concurrency_limit=_AT_ONCE, **hidden,
    ).then(warm, chosen, None, concurrency_limit=_AT_ONCE, **hidden)  # fmt: skip
    show.start.click(None, js=_SEEN)
    show.start.click(
        start, form.inputs, outputs, trigger_mode="once", concurrency_limit=_AT_ONCE, **hidden
    )
    show.stop.click(stop, queue=False, **hidden)
    show.beta.change(smooth, [show.beta], [show.smoothed], trigger_mode="always_last", **hidden)
    page.unload(leave)


def _taken(handlers: Handlers) -> Any:
    """What an upload changes: the file kept, the choice of it, and what is wrong with it."""

    def taken(upload: str) -> tuple[Any, Any, str]:
        wrong = handlers.uploaded(upload)
        return (gr.skip(), gr.skip(), wrong) if wrong else (upload, OWN, "")

    return taken


def _updates(shown: Shown) -> list[Any]:
    """What changes on the page, in the order of the outputs of ``start``."""
    keep = gr.skip()
    buttons = (
        (keep, keep)
        if shown.running is None
        else (gr.update(interactive=not shown.running), gr.update(interactive=shown.running))
    )
    results: list[Any] = [keep] * 6
    if shown.outcome is not None:
        found = shown.outcome
        results = [
            gr.update(visible=True), found.images, found.maps, gr.update(visible=True),
            found.smoothed, gr.update(visible=True, value=found.download),
        ]  # fmt: skip
    elif shown.fresh:
        results = [gr.update(visible=False), keep, keep, gr.update(visible=False), keep,
                   gr.update(visible=False)]  # fmt: skip
    texts = [keep if text is None else text for text in (shown.status, shown.live)]
    return [*texts, *buttons, *results]
