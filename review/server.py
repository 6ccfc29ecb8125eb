"""The web application: routes, who is who, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from microg.annotations.rows import MAX_ACTIONS
from microg.errors import AnnotationError, DatasetError, MicrogError, StorageError, VideoError
from microg.review.desk import Desk
from microg.review.forms import clip_form, find, people_form, task_form, time_form
from microg.review.guard import COOKIE, Guard, Hosts
from microg.review.items import Mode, RefusedError
from microg.review.media import FRAME_WIDTH, MAX_WIDTH, THUMB_WIDTH, Media
from microg.review.rules import Annotator
from microg.review.store import Store

REASONS = ("no person", "cartoon", "not weightless", "scene cut", "duplicate", "bad picture")
MAX_TASKS = 24
_PAGE_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_NAME = Field(min_length=1, max_length=300)


@dataclass(frozen=True, kw_only=True)
class Doors:
    """Who may come in.

    Attributes:
        tokens: Whether annotators need a token; else everybody who reaches the server is `annotator`.
        annotator: Who judges where nobody needs a token; they also adjudicate.
        hosts: The server's names.
    """

    tokens: bool
    annotator: str
    hosts: Hosts


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Login(_Body):
    """Body of /api/login."""

    token: str = Field(max_length=200)


class Next(_Body):
    """Body of /api/next."""

    mode: Mode
    count: int = Field(default=1, ge=1, le=MAX_TASKS)
    again: bool = False
    have: list[str] | None = Field(default=None, max_length=1000)


class Save(_Body):
    """Body of /api/save."""

    task_id: str = _NAME
    annotation_id: str = Field(pattern="^[0-9a-f]{32}$")
    value: dict[str, Any]
    seconds: float | None = Field(default=None, ge=0, le=86_400, allow_inf_nan=False)
    person_id: int | None = Field(default=None, ge=0, le=2**31 - 1)


class Done(_Body):
    """Body of /api/done."""

    task_id: str = _NAME
    seconds: float | None = Field(default=None, ge=0, le=86_400, allow_inf_nan=False)


class Undo(_Body):
    """Body of /api/undo."""

    annotation_id: str = Field(pattern="^[0-9a-f]{32}$")


class Renew(_Body):
    """Body of /api/renew."""

    task_ids: list[str] = Field(max_length=100)


class Release(_Body):
    """Body of /api/release and /api/open."""

    task_id: str = _NAME


class WrittenNote(_Body):
    """Body of /api/note."""

    task_id: str = _NAME
    text: str = Field(max_length=2_000)


def _who(request: Request) -> Annotator:
    """Return who sends a request. Raises `RefusedError` for somebody who did not log in."""
    doors: Doors = request.app.state.doors
    if not doors.tokens:
        found = Annotator(doors.annotator, adjudicator=True)
    else:
        known = request.app.state.store.session(request.cookies.get(COOKIE, ""))
        if known is None:
            raise RefusedError("who are you?", "open the link with your token", 401)
        found = Annotator(*known)
    request.state.annotator = found.name
    return found


Who = Annotated[Annotator, Depends(_who)]


def make_app(desk: Desk, store: Store, media: Media, doors: Doors, source: str = "") -> Guard:
    """Return the ASGI application.

    Args:
        desk: Hands out tasks and takes judgements.
        store: The SQLite file.
        media: Videos and pictures.
        doors: Who may come in.
        source: Where the dataset lies, to be shown.
    """
    app = FastAPI(title="microg review", docs_url=None, redoc_url=None, openapi_url=None)
    log = _log_refusals(store)
    _refuse_kindly(app, log)

    app.state.doors, app.state.store = doors, store

    @app.post("/api/login")
    def login(body: Login, request: Request, response: Response) -> dict[str, Any]:
        if not doors.tokens:
            return {"annotator": doors.annotator}
        known = store.log_in(body.token)
        if known is None:
            raise RefusedError("this token is nobody's", "ask for a new link", 401)
        annotator, secret = known
        secure = request.headers.get("x-forwarded-proto", "").lower() == "https"
        response.set_cookie(
            COOKIE, secret, max_age=180 * 86_400, httponly=True, samesite="strict", secure=secure, path="/"
        )
        return {"annotator": annotator}

    @app.get("/api/session")
    def session(who: Who) -> dict[str, Any]:
        vocabulary, rules = desk.material.vocabulary, desk.rules
        shown = ("id", "name", "group", "definition", "note")
        return {
            "annotator": who.name,
            "adjudicator": who.adjudicator,
            "dataset": {"name": desk.material.name, "clips": len(desk.material.clips), "source": source},
            "vocabulary": {
                "name": vocabulary.name,
                "actions": [{name: getattr(action, name) for name in shown} for action in vocabulary.actions],
            },
            "max_actions": MAX_ACTIONS,
            "reasons": list(REASONS),
            "modes": desk.progress(who),
            "order": rules.order,
            "rule": {
                "each": rules.each,
                "second": rules.second,
                "round": rules.round,
                "lease_s": rules.lease_s,
                "seed": rules.seed,
            },
        }

    @app.post("/api/next")
    def following(body: Next, who: Who) -> dict[str, Any]:
        tasks, left = desk.next(who, body.mode, body.count, again=body.again, have=body.have)
        return {"tasks": [task_form(task, desk, who) for task in tasks], "left": left}

    @app.post("/api/save")
    def save(body: Save, who: Who) -> dict[str, Any]:
        saved = desk.save(who, body.task_id, body.annotation_id, body.value, body.seconds, body.person_id)
        return {"annotation_id": saved.annotation_id, "progress": {"modes": desk.progress(who)}}

    @app.post("/api/done")
    def done(body: Done, who: Who) -> dict[str, Any]:
        desk.done(who, body.task_id, body.seconds)
        return {"progress": {"modes": desk.progress(who)}}

    @app.post("/api/undo")
    def undo(body: Undo, who: Who) -> dict[str, Any]:
        return {"task": task_form(desk.undo(who, body.annotation_id), desk, who)}

    @app.post("/api/open")
    def reopen(body: Release, who: Who) -> dict[str, Any]:
        return {"task": task_form(desk.reopen(who, body.task_id), desk, who)}

    @app.post("/api/renew")
    def renew(body: Renew, who: Who) -> dict[str, Any]:
        until, held, lost = desk.renew(who, body.task_ids)
        return {"until": time_form(until), "held": held, "lost": lost}

    @app.post("/api/release")
    def release(body: Release, who: Who) -> dict[str, Any]:
        desk.release(who, body.task_id)
        return {}

    @app.post("/api/note")
    def note(body: WrittenNote, who: Who) -> dict[str, Any]:
        desk.note(who, body.task_id, body.text)
        return {}

    @app.get("/api/progress")
    def progress(who: Who) -> dict[str, Any]:
        return {"modes": desk.progress(who), "annotators": [vars(pace) for pace in store.paces()]}

    @app.get("/api/clip/{clip_id}")
    def clip(clip_id: str, who: Who) -> dict[str, Any]:
        found = find(desk, clip_id)
        return {"clip": clip_form(found), "people": people_form(desk.tracks(who, found.clip_id))}

    @app.get("/video/{clip_id}")
    def video(clip_id: str, who: Who) -> FileResponse:
        return FileResponse(media.video(find(desk, clip_id)), media_type="video/mp4", headers=_KEEP_A_WHILE)

    @app.get("/thumb/{clip_id}.jpg")
    def thumb(clip_id: str, who: Who) -> Response:
        found = find(desk, clip_id)
        return _picture(media.picture(found, max(1, found.num_frames // 2), THUMB_WIDTH))

    @app.get("/frame/{clip_id}/{frame}.jpg")
    def frame(
        clip_id: str, frame: int, who: Who, width: Annotated[int, Query(ge=16, le=MAX_WIDTH)] = FRAME_WIDTH
    ) -> Response:
        found = find(desk, clip_id)
        if not 1 <= frame <= (found.num_frames or frame):
            raise RefusedError(f"clip {clip_id} has no frame {frame}", "frames count from 1", 404)
        return _picture(media.picture(found, frame, width))

    @app.get("/")
    def page() -> Response:
        return _page_file("index.html")

    @app.get("/page/{name}")
    def page_file(name: str) -> Response:
        return _page_file(name)

    return Guard(app, doors.hosts, lambda scope, status, what: log(_of_scope(scope), status, what))


_KEEP_A_WHILE = {"cache-control": "private, max-age=3600"}


def _page_file(name: str) -> Response:
    folder = files("microg.review").joinpath("page")
    known = {each.name: each for each in folder.iterdir() if each.is_file()}
    kind = _PAGE_TYPES.get(Path(name).suffix)
    if name not in known or kind is None:
        raise RefusedError(f"there is no page {name[:100]!r}", status=404)
    return Response(known[name].read_bytes(), media_type=kind, headers={"cache-control": "no-cache"})


def _picture(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg", headers=_KEEP_A_WHILE)


Log = Callable[[tuple[str | None, str, str, str], int, str], None]


def _log_refusals(store: Store) -> Log:
    def log(request: tuple[str | None, str, str, str], status: int, what: str) -> None:
        store.refuse(*request, status, what)

    return log


def _of_scope(scope: Mapping[str, Any]) -> tuple[str | None, str, str, str]:
    """Return who asks, from where, how and for what; without the query, in which people may paste a token."""
    annotator = (scope.get("state") or {}).get("annotator")
    client = scope.get("client") or ("", 0)
    return annotator, str(client[0]), scope["method"], scope["path"]


def _refuse_kindly(app: FastAPI, log: Log) -> None:
    """Answer every error with what is wrong and how to fix it, and log it where the request is to blame."""
    from starlette.concurrency import run_in_threadpool

    async def refused(request: Request, status: int, what: str, fix: str | None) -> JSONResponse:
        await run_in_threadpool(log, _of_scope(request.scope), status, what)
        return JSONResponse({"error": what, "fix": fix}, status)

    @app.exception_handler(RequestValidationError)
    async def unfit(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"][1:]) or "the request"
        return await refused(request, 422, f"{where}: {first['msg']}", None)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        return await refused(request, error.status_code, str(error.detail), None)

    @app.exception_handler(MicrogError)
    async def impossible(request: Request, error: MicrogError) -> JSONResponse:
        status = _status(error)
        if isinstance(error, (RefusedError, AnnotationError)):
            return await refused(request, status, error.what, error.fix)
        await run_in_threadpool(log, _of_scope(request.scope), status, error.what)
        # what is wrong with files names folders of this machine, which are not annotators' business
        what = "this clip cannot be shown" if status == 404 else "the server cannot do this now"
        return JSONResponse(
            {"error": what, "fix": "the review's owner finds the reason in its log of refusals"}, status
        )


def _status(error: MicrogError) -> int:
    if isinstance(error, RefusedError):
        return error.status
    if isinstance(error, AnnotationError):
        return 422
    if isinstance(error, (VideoError, DatasetError)):
        return 404
    return 503 if isinstance(error, StorageError) else 500
