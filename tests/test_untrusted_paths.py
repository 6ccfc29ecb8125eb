"""Data of strangers do not choose which files and hosts are read: what leads out of a dataset's folder is refused."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from microg import formats, storage
from microg.data import schema
from microg.data.dataset import Dataset
from microg.data.key_frames import key_frame_rows
from microg.data.places import external_reason, resolve
from microg.errors import DatasetError, FormatError, MicrogError
from microg.formats.base import collect
from microg.pipelines.curate.previews import missing_previews
from microg.pipelines.vlm.questions import read_questions
from microg.pipelines.vlm.settings import GenerateSettings
from microg.reports.pages.dataset_page import write_dataset_page
from microg.validation import validate
from tests.support.helpers import make_dataset
from tests.support.sources import modules

OUTSIDE = [
    "../secret.mp4",
    "videos/../../secret.mp4",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:9/a.mp4",
    "https://user:word@host/a.mp4",
    "s3://other/a.mp4",
    "hf://datasets/a/b/c.mp4",
    "zip://a.mp4::/etc/archive.zip",
    "simplecache::http://127.0.0.1:9/a.mp4",
]


@pytest.mark.parametrize("uri", OUTSIDE)
@pytest.mark.parametrize("root", ["local", "s3://bucket/data"])
def test_a_uri_that_leads_out_of_the_folder_is_refused_with_advice(uri: str, root: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "data") if root == "local" else root
    with pytest.raises(DatasetError, match=r"points out of .*--allow-external"):
        resolve(folder, uri, "the video of clip a_000")


@pytest.mark.parametrize("root", ["local", "s3://bucket/data"])
def test_what_lies_in_the_folder_is_inside_however_it_is_written(root: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "data") if root == "local" else root
    for uri in ("videos/a_000.mp4", "videos/a..b.mp4", f"{folder}/videos/a_000.mp4"):
        assert external_reason(folder, uri) is None
    assert external_reason(folder, f"{folder}-other/a.mp4") is not None
    assert resolve(folder, "videos/a.mp4", "it") == f"{folder}/videos/a.mp4"


def test_the_user_may_allow_what_is_external_but_nothing_climbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROG_ALLOW_EXTERNAL", "1")
    root = str(tmp_path)
    assert resolve(root, "/elsewhere/a..mp4", "it") == "/elsewhere/a..mp4"
    assert resolve(root, "s3://bucket/a.mp4", "it") == "s3://bucket/a.mp4"
    for uri in ("../a.mp4", "videos/../../a.mp4", "zip://a::/b.zip"):
        with pytest.raises(DatasetError):
            resolve(root, uri, "it")
    monkeypatch.setenv("MICROG_ALLOW_EXTERNAL", "0")
    with pytest.raises(DatasetError):
        resolve(root, "/elsewhere/a.mp4", "it")


def test_a_link_counts_as_what_it_points_at(tmp_path: Path) -> None:
    root, secret = tmp_path / "data", tmp_path / "secret"
    (root / "videos").mkdir(parents=True)
    secret.mkdir()
    (secret / "a.mp4").write_bytes(b"private")
    (root / "videos" / "a.mp4").symlink_to(secret / "a.mp4")
    (root / "more").symlink_to(secret)
    (root / "videos" / "b.mp4").write_bytes(b"ours")
    (root / "videos" / "c.mp4").symlink_to("b.mp4")
    (tmp_path / "alias").symlink_to(root)
    assert external_reason(str(root), "videos/a.mp4") == "it leaves the folder"
    assert external_reason(str(root), "more/a.mp4") == "it leaves the folder"
    assert external_reason(str(root), "videos/c.mp4") is None
    assert external_reason(str(tmp_path / "alias"), "videos/b.mp4") is None  # the dataset itself may be behind a link


@contextmanager
def _host() -> Iterator[tuple[str, list[str]]]:
    """Serve on this machine, and keep what is asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/a.mp4", asked
    finally:
        server.shutdown()


def _hostile(folder: Path, **values: Any) -> Dataset:
    """Return a dataset whose first clip was altered behind our back, as strangers do."""
    dataset = make_dataset(folder)
    rows = dataset.table("clips").to_pylist()
    rows[0].update(values)
    storage.write_parquet(dataset.table_path("clips"), pa.Table.from_pylist(rows, schema=schema.TABLES["clips"]))
    return dataset


def _uses(dataset: Dataset, out: Path) -> dict[str, Any]:
    """Return what opens a dataset's videos, by name: everything that may read or copy them."""
    settings = GenerateSettings(model="stub", dataset=dataset.root)

    def export(name: str) -> Callable[[], Any]:
        options = {"frames": True} if name == "ava" else {"copy_videos": True}
        return lambda: formats.write(name, dataset, str(out / name), **options)

    uses: dict[str, Any] = {
        f"export {name}": export(name) for name in formats.FORMATS if name not in ("ava", "jhmdb")
    }  # import only
    return uses | {
        "labelstudio without videos": lambda: formats.write("labelstudio", dataset, str(out / "tasks")),
        "previews": lambda: missing_previews(dataset),
        "training and prediction": lambda: key_frame_rows(dataset, "all"),
        "generation": lambda: read_questions(settings),
    }


def test_nothing_reads_copies_or_asks_a_host_for_a_video_outside_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"private")
    with _host() as (url, asked):
        for number, uri in enumerate((url, f"file://{tmp_path}/secret.mp4", str(tmp_path / "secret.mp4"))):
            dataset, out = _hostile(tmp_path / f"data{number}", uri=uri), tmp_path / f"out{number}"
            for name, use in _uses(dataset, out).items():
                with pytest.raises(DatasetError, match="the video of clip filmA_000 points out of"):
                    pytest.fail(f"{name} opened {uri}: {use()}")
            write_dataset_page(dataset, str(out / "page.html"), report=validate(dataset), max_clips=4)
            assert "points out of" in (out / "page.html").read_text()
            assert {"external_uri"} <= {item.check for item in validate(dataset).findings if item.severity == "error"}
        assert asked == []
    assert b"private" not in b"".join(path.read_bytes() for path in tmp_path.glob("out*/**/*") if path.is_file())


@pytest.mark.parametrize("value", ["../../../X", "/tmp/x", "movie/../..", "Movie", ""])
@pytest.mark.parametrize("column", ["origin", "status", "clip_id", "source_id"])
def test_values_that_become_paths_or_choose_what_is_done_are_refused_where_tables_are_read(
    column: str, value: str, tmp_path: Path
) -> None:
    if column in ("clip_id", "source_id") and value == "Movie":
        pytest.skip("an id")
    dataset = _hostile(tmp_path, **{column: value})
    with pytest.raises(DatasetError, match=f"table 'clips', column '{column}': .* is not allowed"):
        dataset.table("clips")
    with pytest.raises(DatasetError):
        formats.write("microg4m", dataset, str(tmp_path / "a" / "b" / "out"), copy_videos=True)
    assert not list(tmp_path.glob("a/**/*.mp4"))
    assert {"unknown_value", "invalid_id"} & {item.check for item in validate(dataset).findings}


def test_a_split_that_is_none_is_refused_where_it_is_read(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    rows = pa.table({"clip_id": ["filmA_000"], "split": ["../train"], "scheme": ["published"]})
    storage.write_parquet(dataset.table_path("splits"), rows)
    with pytest.raises(DatasetError, match=r"column 'split': '\.\./train' is not allowed"):
        dataset.table("splits")


@pytest.mark.parametrize("name", ["../x_000", "/etc/x_000", "a/b_000", "..", "x_000\0", "c:\\x_000", "."])
def test_clip_names_of_annotations_that_would_become_paths_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(MicrogError):
        collect({"captions": pa.table({"clip_id": [name], "caption": ["a"]})})


def test_import_links_videos_into_the_dataset_and_refuses_links_that_leave_the_source(tmp_path: Path) -> None:
    source = make_dataset(tmp_path / "data")
    formats.write("microg4m", source, str(tmp_path / "hub"), copy_videos=True)
    result = formats.read("microg4m", str(tmp_path / "hub"), dataset_root=str(tmp_path / "mine"))
    uris = result.tables["clips"]["uri"].to_pylist()
    assert uris == [f"videos/{clip_id}.mp4" for clip_id in result.tables["clips"]["clip_id"].to_pylist()]
    taken = tmp_path / "mine" / "videos" / "filmA_000.mp4"
    assert taken.stat().st_nlink == 2
    assert [path.name for path in taken.parent.iterdir() if path.name.startswith(".")] == []
    video = next((tmp_path / "hub").rglob("filmA_000.mp4"))
    (tmp_path / "secret.mp4").write_bytes(video.read_bytes())
    video.unlink()
    video.symlink_to(tmp_path / "secret.mp4")
    with pytest.raises(FormatError, match="is a link out of"):
        formats.read("microg4m", str(tmp_path / "hub"), dataset_root=str(tmp_path / "yours"))


# Joins of paths whose last part is no constant, and why it cannot lead out of its folder.
_JOINS_OF_OUR_OWN = {
    "cache_folder() / 'folders' / hashlib.sha256(listing.encode()).hexdigest()[:16]",
    "cache_folder() / 'folders' / hashlib.sha256(digests.encode()).hexdigest()[:16]",
    "cache_folder() / 'folders' / hashlib.sha256(digests.encode()).hexdigest()[:16] / source.name",  # the last part
    "cache_folder() / 'api' / hashlib.sha256(root.encode()).hexdigest()[:16]",
    "cache_folder() / 'weights' / f'by-content-{digest[:16]}'",
    "cache_folder() / 'weights' / f'by-content-{digest[:16]}' / name",  # the last part of what the user gave
    "cache_folder() / 'onnx' / f'{path.stem}-{storage.sha256(path)[:16]}-v{_VERSION}-{kind}'",
    "cache_folder() / f'meteor-paraphrases-{key}'",
    "Path(temporary) / kind",
    "Path(tempfile.gettempdir()) / f'microg-gpus-{os.getuid()}'",
    "folder / f'boxes{level}.onnx'",
    "folder / f'{name}.lock'",  # of GPUs
    "folder / f'.{uuid.uuid4().hex[:8]}.tmp'",
    "folder / f'.{name}.{os.getpid()}-{uuid.uuid4().hex[:8]}'",
    "folder.parent / f'{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp'",
    "folder / _PARTS / f'{file.key}-{place}.part'",  # hashes
    "folder / name",  # what the user names, and what a folder of this machine lists
    "_PROMPTS / f'{name}.yaml'",
    "resources.files(__name__).joinpath(f'{name}.yaml')",
    "storage.local_path(folder).joinpath(name)",
    "storage.local_path(root) / folder",
    "storage.local_path(base) / (storage.local_path(uri) if '://' in uri else uri)",  # the door itself
}


def test_paths_are_made_of_data_at_one_door_only() -> None:
    joins = set()
    for _, file in modules():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            text = ""
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and not _is_constant(node.right):
                left = ast.unparse(node.left).lower()
                of_paths = any(word in left for word in ("folder", "path", "root", "dir", "parent", "temp", "prompts"))
                text = ast.unparse(node) if of_paths or isinstance(node.right, ast.JoinedStr) else ""
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("joinpath", "os.path.join")):
                text = "" if all(map(_is_constant, node.args)) else ast.unparse(node)
            if text:
                joins.add(text)
    assert joins - _JOINS_OF_OUR_OWN == set(), "join with storage.join or storage.join_local, which keep to the folder"
    assert _JOINS_OF_OUR_OWN - joins == set(), "no longer there"


def _is_constant(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else "a"
    return isinstance(node, ast.Constant) or name.isupper()
