"""Foreign runs, images and tables: nothing of them is run, imported or waited for."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trompe.atomic import atomic_path
from trompe.audit import open_run, run_audit
from trompe.audit.sources import open_source
from trompe.audit.store import Store
from trompe.cli import main
from trompe.cli.console import printable
from trompe.errors import ImageError, OutputError, StoreError, UsageError
from trompe.report.html import write_report
from trompe.report.tables import Table, as_csv
from trompe.types import Preprocessing
from trompe.zoo import npz_images
from trompe.zoo.images import load_image

from .conftest import NETWORK, small

pytestmark = pytest.mark.usefixtures("place")

TRAP = "\nfrom pathlib import Path\nPath('sprung').touch()\n"


@pytest.fixture
def foreign(place: Path) -> Path:
    """A run whose model is code that leaves a mark when it is imported, and no longer imported."""
    sys.modules.pop("trapnet", None)  # of an earlier test
    (place / "trapnet.py").write_text(NETWORK + TRAP)
    from trompe.audit import ModelSpec

    run_audit("run", small(models=(ModelSpec("trapnet:net", size=16),), pairs=2))
    (place / "sprung").unlink()
    sys.modules.pop("trapnet")
    return place


def test_what_a_run_names_is_not_run_unless_trusted(
    foreign: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for command in (
        ["audit", "--status", "--output", "run"],
        ["report", "run", "--output", "out", "--quiet"],
        ["verify", "run", "--arrays-only", "--quiet"],
    ):
        assert main(command) == 0, command
    capfd.readouterr()
    assert main(["verify", "run", "--quiet"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "trapnet:net is code" in line
    assert "--trust" in line
    assert main(["verify", "run", "--model", "another:net", "--quiet"]) == 2
    assert not (foreign / "sprung").exists()
    assert "trapnet" not in sys.modules
    assert str(foreign) not in sys.path
    assert main(["verify", "run", "--model", "trapnet:net", "--quiet"]) == 0
    assert (foreign / "sprung").exists()


def test_python_m_trompe_imports_nothing_of_the_current_folder(foreign: Path) -> None:
    (foreign / "safetensors.py").write_text(TRAP)
    (foreign / "jinja2.py").write_text(TRAP)
    command = [sys.executable, "-m", "trompe", "verify", "run", "--arrays-only", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (foreign / "sprung").exists()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW spy AS SELECT * FROM cells",
        "CREATE TRIGGER spy AFTER INSERT ON starts BEGIN DELETE FROM cells; END",
        "ALTER TABLE cells RENAME TO kept; CREATE VIEW cells AS SELECT * FROM kept",
        "CREATE TABLE more (x)",
        "DROP INDEX open_batches",
    ],
)
def test_a_store_with_other_tables_is_refused(statement: str) -> None:
    run_audit("run", small(pairs=1))
    with sqlite3.connect("run/run.sqlite") as db:
        db.executescript(statement)
    db.close()
    for reading in (True, False):
        with pytest.raises(StoreError, match="its tables are others"):
            Store(Path("run"), reading=reading)


def test_a_run_that_may_only_be_read_is_read_and_left_alone(place: Path) -> None:
    run_audit("run", small(pairs=1))
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in Path("run").rglob("*")}
    program = (
        "import os, sys; real = os.access\n"
        "run = os.path.abspath('run')\n"
        "mine = lambda p: os.path.abspath(p).startswith(run)\n"
        "os.access = lambda p, m, **k: False if m & os.W_OK and mine(p) else real(p, m, **k)\n"
        "from trompe.cli import main\n"
        "sys.exit(main(['report', 'run', '--output', 'out', '--quiet'])"
        " or main(['verify', 'run', '--arrays-only', '--quiet']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in Path("run").rglob("*")}
    assert after == before
    assert Path("out/leaderboard").exists()


def test_a_reading_store_writes_nothing() -> None:
    run_audit("run", small(pairs=1))
    with open_run("run").store as store, pytest.raises(OutputError), store.transaction() as db:
        db.execute("DELETE FROM cells")


def test_a_postscript_program_called_png_is_no_image(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin

    opened: list[object] = []
    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", lambda self: opened.append(self))
    (place / "images" / "evil.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n(%pipe%id) (r) file\n"
    )
    with pytest.raises(ImageError, match=r"evil\.png"):
        load_image("images/evil.png")
    assert not opened


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(place: Path) -> None:
    os.mkfifo("pipe.png")
    for read in (lambda: load_image("pipe.png"), lambda: open_source("pipe.npz")):
        if not Path("pipe.npz").exists():
            os.mkfifo("pipe.npz")
        with pytest.raises(ImageError, match="no ordinary file"):
            read()
    os.mkfifo("images/i0012.png")
    assert run_audit("run", small(pairs=30)).complete


def test_an_image_of_too_many_bytes_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from trompe import ordinary

    size = Path("images/i0000.png").stat().st_size
    assert len(ordinary.read_ordinary("images/i0000.png", size)) == size
    with pytest.raises(ImageError, match="too large"):
        ordinary.read_ordinary("images/i0000.png", size - 1)


def test_an_npz_that_expands_to_too_much_is_not_expanded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(10_000_000, np.uint8))
    with zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("jpeg", "offsets", "label"):
            packed.writestr(f"{name}.npy", stream.getvalue())
    assert Path("bomb.npz").stat().st_size < 100_000
    monkeypatch.setattr(npz_images, "MAX_EXPANDED", 20_000_000)
    with pytest.raises(ImageError, match="expands to"):
        open_source("bomb.npz")
    monkeypatch.setattr(npz_images, "MAX_EXPANDED", 8 << 30)
    monkeypatch.setattr(npz_images, "SMALL", 20_000_000)
    monkeypatch.setattr(npz_images, "_array", None)  # refused before anything is expanded
    with pytest.raises(ImageError, match=r"expands from .* as no images do"):
        open_source("bomb.npz")
    with zipfile.ZipFile("many.npz", "w") as packed:
        for number in range(200):
            packed.writestr(f"{number}.npy", b"")
    monkeypatch.setattr(npz_images, "MAX_CONTENTS", 5000)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(ImageError, match="list of contents"):
        open_source("many.npz")


@pytest.mark.parametrize("label", [[float("nan")], [0.5], [-1], [2**40], ["cat"]])
def test_labels_of_an_npz_are_class_numbers(label: list[object]) -> None:
    content = io.BytesIO()
    Image.new("RGB", (20, 20)).save(content, format="JPEG")
    jpeg = np.frombuffer(content.getvalue(), np.uint8)
    np.savez("a.npz", jpeg=jpeg, offsets=np.array([0, len(jpeg)]), label=np.array(label))
    with pytest.raises(ImageError, match=r"class numbers|broken"):
        open_source("a.npz")


def test_class_numbers_of_a_table_fit_the_store() -> None:
    Path("t.csv").write_text("file,class\nimages/i0000.png,12345678901234567890\n")
    with pytest.raises(ImageError, match="12345678901234567890"):
        open_source("t.csv")


def test_a_name_is_a_folder_or_the_photos_that_come_along_and_never_guessed(place: Path) -> None:
    with pytest.raises(ImageError, match="three photos are 'skimage-photos'"):
        open_source("photos")
    (place / "photos").mkdir()
    Image.new("RGB", (20, 20)).save("photos/a.png")
    assert open_source("photos").name(0) == open_source("./photos").name(0) == "a.png"
    assert len(open_source("skimage-photos")) == 3
    (place / "photos").rename("skimage-photos")
    with pytest.raises(UsageError, match=r"\./skimage-photos"):
        open_source("skimage-photos")
    assert open_source("./skimage-photos").name(0) == "a.png"


def test_cells_of_a_csv_are_no_formulas_and_numbers_stay_numbers() -> None:
    evil = ["=1+1", "+1", "-1+cmd", "@SUM(A1)", "\t=1", "\r=1", " =1", "fine"]
    text = as_csv(Table("t", "T", ("a", "n"), tuple((word, -0.5) for word in evil)))
    rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert [row[0] for row in rows] == [
        *("'" + word.replace("\r", " ") for word in evil[:-1]),
        "fine",
    ]
    assert {row[1] for row in rows} == {"-0.5"}


def test_what_a_terminal_would_obey_is_spelt_out(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert printable("a\x1b[2Jb\rc\u202ed\ne") == "a\\x1b[2Jb\\x0dc\\x202ed\ne"
    (place / "images" / "x\x1b[31m\r.png").write_bytes(b"no image")
    source = open_source("images")
    assert all(source.name(i).isprintable() for i in range(len(source)))
    assert main(["explain", "evil\x1b[31m.png", "--quiet"]) == 2
    assert "\x1b" not in capfd.readouterr().err


def test_a_name_that_is_no_text_can_be_stored(place: Path) -> None:
    raw = os.fsencode(place / "images") + b"/\xff\xfe.png"
    Path(os.fsdecode(raw)).write_bytes((place / "images/i0000.png").read_bytes())
    assert run_audit("run", small(pairs=30)).complete
    assert len(open_source("images").pixels(12, Preprocessing(16, 18))) == 3


def test_a_temporary_file_follows_no_link_and_all_have_one_mode(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import secrets

    (place / "precious").write_text("precious")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    (place / ".guessed.a.txt").symlink_to(place / "precious")
    with pytest.raises(OutputError), atomic_path("a.txt") as temporary:
        temporary.write_text("overwritten")
    assert (place / "precious").read_text() == "precious"
    monkeypatch.undo()
    os.chdir(place)
    run_audit("run", small(pairs=1))
    write_report(open_run("run"), "out", most=1)
    files = [p for p in [*Path("out").rglob("*"), *Path("run").rglob("*")] if p.is_file()]
    assert len({oct(p.stat().st_mode) for p in files}) == 1, [(p, p.stat().st_mode) for p in files]


def test_an_array_is_found_by_its_checksum_only(place: Path) -> None:
    run_audit("run", small(pairs=1))
    with pytest.raises(StoreError, match="no name of an array"):
        open_run("run").store.arrays.get("../../../etc/passwd")


def test_a_hostile_report_list_reads_nothing_elsewhere(place: Path) -> None:
    from trompe.audit import chain
    from trompe.report.manifest import check_manifest

    run_audit("run", small(pairs=1))
    write_report(open_run("run"), "run", most=0)
    path = place / "run" / "report.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    content["files"]["../smallnet.py"] = "00"
    text = json.dumps({**content, "checksum": chain.checksum(content)}, indent=2) + "\n"
    path.write_text(text)
    assert check_manifest(open_run("run"))[0] == ["../smallnet.py is not as the report wrote it"]


def test_a_file_that_was_moved_or_exchanged_is_noticed(place: Path) -> None:
    from trompe.audit.place import Place

    path = place / "file"
    path.write_text("one")
    known = Place(path)
    known.check()
    path.rename(place / "moved")
    with pytest.raises(StoreError, match="moved or deleted"):
        known.check()
    path.write_text("another")
    with pytest.raises(StoreError, match="moved or deleted"):
        known.check()


@pytest.mark.parametrize("end", ["wal", "shm", "journal"])
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_no_file_beside_the_database_is_refused_by_name(
    tmp_path: Path, end: str, kind: str
) -> None:
    Store(tmp_path / "run", create=True).close()
    beside = tmp_path / "run" / f"run.sqlite-{end}"
    beside.mkdir() if kind == "folder" else beside.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=f"-{end}' is no ordinary file: delete it"):
        Store(tmp_path / "run")
