"""A small data set with a manifest of its own, and an HTTP server that misbehaves as asked."""

import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule import manifest

NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX bytes of a uint8 array, made here so that these tests do not lean on ``idx.write``."""
    header = bytes([0, 0, 8, array.ndim])
    return header + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


@dataclass
class SmallSet:
    """Four files of random images; ``raw`` and ``packed`` map a role to its bytes."""

    raw: dict[str, bytes]
    packed: dict[str, bytes]

    def file(self, name: str) -> bytes:
        for role, stem in NAMES.items():
            if name in (stem, f"{stem}.gz"):
                return self.packed[role] if name.endswith(".gz") else self.raw[role]
        raise KeyError(name)

    def put(self, folder: Path, packed: bool = True) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for role, stem in NAMES.items():
            path = folder / (f"{stem}.gz" if packed else stem)
            path.write_bytes((self.packed if packed else self.raw)[role])
        return folder


@pytest.fixture
def small() -> SmallSet:
    random = np.random.default_rng(1)
    raw = {}
    for half, count in (("train", 120), ("test", 40)):
        raw[f"{half}_images"] = idx_bytes(random.integers(0, 256, (count, 28, 28), np.uint8))
        raw[f"{half}_labels"] = idx_bytes(random.integers(0, 10, count, np.uint8))
    return SmallSet(raw, {role: gzip.compress(data, mtime=0) for role, data in raw.items()})


@pytest.fixture
def write_manifest(
    small: SmallSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Path]]:
    """Make the product read a manifest whose ``mnist`` is the small set, with these mirrors.

    ``kmnist`` is the same files without the sums of the uncompressed ones.
    """

    def write(*mirrors: str) -> Path:
        text = ""
        for name, folder in (("mnist", "MNIST"), ("kmnist", "KMNIST")):
            text += f'[{name}]\ntitle = "{folder}"\ntorchvision = "{folder}"\n'
            text += f'page = ""\nmirrors = {list(mirrors)}\n'
            text += f"classes = {[str(digit) for digit in range(10)]}\n"
            for role, stem in NAMES.items():
                text += f'[{name}.files.{role}]\nname = "{stem}.gz"\n'
                forms = {"": small.packed[role]} | ({"raw_": small.raw[role]} if name == "mnist" else {})
                for prefix, data in forms.items():
                    text += (
                        f'{prefix}size = {len(data)}\n{prefix}sha256 = "{hashlib.sha256(data).hexdigest()}"\n'
                    )
        real = manifest.MANIFEST.read_text(encoding="utf-8")
        path = tmp_path / "manifest.toml"
        path.write_text(text + real[real.index("[digits]") :], encoding="utf-8")
        monkeypatch.setattr(manifest, "MANIFEST", path)
        for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        manifest.sources.cache_clear()
        return path

    yield write
    manifest.sources.cache_clear()


Behaviour = Callable[[BaseHTTPRequestHandler, bytes], Any]


def send(
    handler: BaseHTTPRequestHandler, data: bytes, length: int | None = -1, kind: str = "application/gzip"
) -> None:
    """Answer 200 with ``data``, announcing ``length`` bytes (None: none announced)."""
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    if length is not None:
        handler.send_header("Content-Length", str(len(data) if length == -1 else length))
    handler.end_headers()
    handler.wfile.write(data)
    handler.wfile.flush()


@dataclass
class Server:
    """``/<behaviour>/<path>`` answers for the small set's file ``<path>`` as the behaviour says."""

    address: str
    behaviours: dict[str, Behaviour]
    asked: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def mirror(self, behaviour: str) -> str:
        return f"{self.address}/{behaviour}/"


@pytest.fixture
def server(small: SmallSet) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            made.closing.wait()  # a mirror need not answer it

        def do_GET(self) -> None:
            if self.path.endswith("/"):  # is anyone there? The headers must do: the body never comes.
                self.send_response(200)
                self.end_headers()
                made.closing.wait()
                return
            made.asked.append(self.path)
            _, behaviour, path = self.path.split("/", 2)
            if "/" in path and not path.startswith("MNIST/raw/"):
                self.send_error(404)
                return
            made.behaviours[behaviour](self, small.file(path.rpartition("/")[2]))

        def log_message(self, *_: Any) -> None:
            pass

    def drip(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        for byte in data[:100]:  # for two seconds: a client that does not mind gets the file in the end
            handler.wfile.write(bytes([byte]))
            if made.closing.wait(0.02):
                return
        handler.wfile.write(data[100:])

    def drip_chunks(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for byte in data[:100]:
            handler.wfile.write(b"1\r\n" + bytes([byte]) + b"\r\n")
            if made.closing.wait(0.02):
                return
        handler.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data) - 100, data[100:]))

    def stall(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        send(handler, data[: len(data) // 2], len(data))
        made.closing.wait()

    def mute(_: BaseHTTPRequestHandler, __: bytes) -> None:
        made.closing.wait()

    def redirect(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(302)
        handler.send_header("Location", handler.path.replace("/redirects/", "/good/"))
        handler.end_headers()

    def loop(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.end_headers()

    def encoded(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        handler.wfile.write(data)

    def wrong_byte(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        middle = len(data) // 2
        send(handler, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])

    page = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"
    behaviours: dict[str, Behaviour] = {
        "good": lambda handler, data: send(handler, data),
        "unannounced": lambda handler, data: send(handler, data, None),
        "encoded": encoded,
        "redirects": redirect,
        "loops": loop,
        "403": lambda handler, _: handler.send_error(403),
        "404": lambda handler, _: handler.send_error(404),
        "503": lambda handler, _: handler.send_error(503),
        "truncates": lambda handler, data: send(handler, data[:-5]),
        "truncates-unannounced": lambda handler, data: send(handler, data[:-5], None),
        "drops": lambda handler, data: send(handler, data[: len(data) // 2], len(data)),
        "page": lambda handler, _: send(handler, page, kind="text/html"),
        "page-unannounced": lambda handler, _: send(handler, page, None),
        "wrong-byte": wrong_byte,
        "too-long": lambda handler, data: send(handler, data + b"more", None),
        "stalls": stall,
        "mute": mute,
        "drips": drip,
        "drips-chunks": drip_chunks,
    }
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.handle_error = lambda *_: None  # type: ignore[method-assign]  # the client went away: that is the point
    made = Server(f"http://127.0.0.1:{http.server_port}", behaviours)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    made.closing.set()
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Make the folder of a run on the embedded digits, after a few steps and without pictures: quickly."""
    from chainrule import datasets, engines, records
    from chainrule.recipe import load
    from chainrule.runs import RunFolder

    def make(path: Path, recipe: str = "simplenet", engine: str = "numpy", steps: int = 3) -> Path:
        plan, data = load(recipe), datasets.load("digits")
        built = engines.build(plan, engine, seed=plan.seed)
        images = built.put(plan.examples(data.train_images), data.train_labels, plan.mean, plan.std)
        for step in range(steps):
            built.train_step(images, np.arange(step * 32, step * 32 + 32))
        with RunFolder(path) as folder:
            folder.write_json("config.json", records.config(plan, [engine], data, "cpu", 1))
            folder.write_model("model.safetensors", built.state_dict())
        return path

    return make
