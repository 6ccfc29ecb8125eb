"""A review from beginning to end: its folder, its lock, the server, and judgements on their way to the dataset."""

from __future__ import annotations

import hashlib
import ipaddress
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from microg import storage
from microg.annotations.rows import DATASET, check_annotator
from microg.annotations.table import read_annotations
from microg.data.dataset import Dataset
from microg.errors import AnnotationError, ConfigError, MicrogError, RunConflictError
from microg.locks import exclusive
from microg.review.desk import Desk
from microg.review.guard import Hosts
from microg.review.material import read_material
from microg.review.proposals import read_proposals
from microg.review.rules import Rules
from microg.review.store import Store
from microg.review.sync import sync, unsynced
from microg.system.weights import cache_folder

_SYNC_EVERY_S = 60.0
_FILE = "review.sqlite"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be reviewed, by whom, and where it is served.

    Attributes:
        dataset: Folder or URI of the dataset.
        rules: How the review goes.
        annotator: Who judges where nobody needs a token.
        annotators: Who gets a token.
        adjudicators: Who gets a token and settles what others said, too.
        new_tokens: Whether all tokens are replaced.
        proposals: Run folders of models.
        threshold: Least probability of an action that is proposed.
        state: Folder of the SQLite file; None for the usual one.
        cache_bytes: What videos that were fetched or made may take.
        host: Address to listen on.
        port: Port to listen on; 0 for any.
        public_host: Name by which a proxy makes it known, with its port where that is not 443.
    """

    dataset: str
    rules: Rules
    annotator: str
    annotators: Sequence[str] = ()
    adjudicators: Sequence[str] = ()
    new_tokens: bool = False
    proposals: Sequence[str] = ()
    threshold: float = 0.5
    state: str | None = None
    cache_bytes: int = 10 * 10**9
    host: str = "127.0.0.1"
    port: int = 8765
    public_host: str | None = None

    @property
    def named(self) -> list[str]:
        """Who is named to judge."""
        return list(dict.fromkeys([*self.annotators, *self.adjudicators]))

    @property
    def local_only(self) -> bool:
        """Whether only this machine reaches the server."""
        if self.public_host is not None:
            return False
        with suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"

    def check(self) -> None:
        """Refuse what cannot be served.

        Raises:
            AnnotationError: A name is no name.
        """
        for name in [*self.named, self.annotator]:
            if check_annotator(name) == DATASET:
                raise AnnotationError(f"nobody may be called {DATASET!r}", "it stands for what the dataset held before")


@dataclass(frozen=True)
class Review:
    """An open review.

    Attributes:
        plan: What was planned.
        dataset: The dataset.
        store: The SQLite file.
        desk: Hands out tasks.
        folder: Where the file and the cache lie.
        links: By annotator, the link of a token that was made just now.
        saved_before: How many judgements there were at the start.
    """

    plan: Plan
    dataset: Dataset
    store: Store
    desk: Desk
    folder: Path
    links: dict[str, str] = field(default_factory=dict)
    saved_before: int = 0

    @property
    def saved(self) -> int:
        """How many judgements were saved since the start."""
        return self.store.count() - self.saved_before


def state_folder(plan: Plan) -> Path:
    """Return the folder of a review: below a local dataset, or in this user's cache for one elsewhere."""
    if plan.state is not None:
        return storage.local_path(plan.state)
    if storage.is_local(plan.dataset):
        return storage.local_path(plan.dataset) / "review"
    uri = storage.absolute(plan.dataset)
    name = "".join(each if each.isalnum() else "-" for each in uri.rpartition("/")[2])
    digest = hashlib.sha256(uri.encode()).hexdigest()[:12]
    return storage.join_local(cache_folder() / "review", f"{name[:80]}-{digest}")


def look(plan: Plan) -> Desk:
    """Return what there is to judge, without writing anything."""
    plan.check()
    dataset = Dataset.open(plan.dataset)
    file = state_folder(plan) / _FILE
    with TemporaryDirectory() as folder:
        copy = Path(folder) / _FILE
        if file.exists():
            with (
                closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
        with closing(Store(copy)) as store:
            return _desk(plan, dataset, store)


def _desk(plan: Plan, dataset: Dataset, store: Store) -> Desk:
    material, rows = read_material(dataset), read_annotations(dataset)
    return Desk(material, rows, store, plan.rules, read_proposals(material, plan.proposals, rows, plan.threshold))


@contextmanager
def opened(plan: Plan) -> Iterator[Review]:
    """Open a review that nobody else serves; at the end what was said is in the dataset, if it can be.

    Raises:
        RunConflictError: Another server has the dataset, or another process is writing to it.
        ConfigError: The state is of another dataset, or the plan cannot be served.
    """
    plan.check()
    dataset = Dataset.open(plan.dataset)
    with ExitStack() as until:
        try:
            until.enter_context(exclusive(storage.join(dataset.root, "review")))
        except RunConflictError as error:
            raise RunConflictError(
                f"another 'microg review' serves {plan.dataset}", "open its link, or stop it first"
            ) from error
        folder = state_folder(plan)
        store = until.enter_context(closing(Store(folder / _FILE)))
        _check_dataset(store, plan)
        sync(dataset, store)
        desk = _desk(plan, dataset, store)
        tokens = store.grant(plan.annotators, plan.adjudicators, anew=plan.new_tokens) if plan.named else {}
        if not plan.local_only and not store.people():
            raise ConfigError(
                f"--host {plan.host} lets others in, and nobody has a token", "name them: --annotators anna,ben"
            )
        yield Review(plan, dataset, store, desk, folder, tokens, store.count())


def _check_dataset(store: Store, plan: Plan) -> None:
    """Refuse a state that was given by hand and belongs to another dataset; one below its dataset may move with it."""
    if plan.state is None:
        return
    known, own = store.fact("dataset"), storage.absolute(plan.dataset)
    if known not in (None, own):
        raise ConfigError(f"--state {plan.state} is of the dataset {known}", "give each dataset a folder of its own")
    store.remember("dataset", own)


def serve(review: Review, started: Callable[[int], None], tick: Callable[[], None]) -> None:
    """Serve until the process is interrupted, and bring judgements to the dataset every minute.

    Args:
        review: The review.
        started: Called with the port once requests are answered.
        tick: Called every minute.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    import uvicorn

    from microg.review.media import Media
    from microg.review.server import Doors, make_app

    plan = review.plan
    listening = _listen(plan.host, plan.port)
    port = listening.getsockname()[1]
    tokens = bool(plan.named) or not plan.local_only
    doors = Doors(tokens=tokens, annotator=plan.annotator, hosts=_hosts(plan, port))
    media = Media(review.dataset, review.folder / "cache", plan.cache_bytes)
    app = make_app(review.desk, review.store, media, doors, plan.dataset)

    config = uvicorn.Config(
        app, access_log=False, log_level="warning", server_header=False, timeout_graceful_shutdown=2, lifespan="off"
    )
    ended = threading.Event()
    minutes = threading.Thread(target=_every_minute, args=(review, tick, ended), name="review-sync", daemon=True)
    minutes.start()
    try:
        started(port)
        # uvicorn ends cleanly and then hands the signal on
        with _interrupted_by_sigterm(), suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
    finally:
        ended.set()
        minutes.join()
        listening.close()


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, by which containers are stopped, do what Ctrl-C does: what was said last is brought home."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _every_minute(review: Review, tick: Callable[[], None], ended: threading.Event) -> None:
    while not ended.wait(_SYNC_EVERY_S):
        with suppress(MicrogError):  # another process writes to the dataset, or a store is away: the next time
            sync(review.dataset, review.store)
        tick()


def bring_home(review: Review) -> str | None:
    """Bring the last judgements to the dataset, and return why that cannot be done now, or None."""
    try:
        sync(review.dataset, review.store)
    except MicrogError as error:
        return f"{unsynced(review.store)} judgements wait in {review.store.path}: {error}"
    return None


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror or error}", "try --port 0") from error


def _hosts(plan: Plan, port: int) -> Hosts:
    names = ["127.0.0.1", "localhost", "[::1]"]
    everywhere = plan.host in ("0.0.0.0", "::")
    if everywhere:
        names += [socket.gethostname(), socket.getfqdn()]
    else:
        names.append(f"[{plan.host}]" if ":" in plan.host else plan.host)
    return Hosts(names, port, public=plan.public_host, any_address=everywhere)


def address(plan: Plan, port: int) -> str:
    """Return the address that people open."""
    if plan.public_host is not None:
        return f"https://{plan.public_host}"
    host = plan.host
    if host in ("0.0.0.0", "::"):
        host = _address_on_network()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _address_on_network() -> str:
    """Return this machine's address on its network; nothing is sent to find it."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # an address for documentation
        return probe.getsockname()[0]
    return socket.gethostname()
