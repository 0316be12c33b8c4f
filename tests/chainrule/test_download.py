import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from chainrule import cli, manifest, mirrors
from chainrule import download as downloading
from chainrule.download import DownloadFailed, download
from chainrule.errors import ChainruleError, WrongUsage
from chainrule.mirrors import Mirror, Patience, parse_mirror

QUICK = Patience(answer=1.0, others=0.5, block=0.5)
IMAGES = "train-images-idx3-ubyte"
FILES = [IMAGES, "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
ARCHIVES = sorted(f"{name}.gz" for name in FILES)


def below(root):
    """The name of every file below ``root``, temporary ones too."""
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def assert_complete(root, small, folder="mnist"):
    assert below(root) == ARCHIVES
    for name in ARCHIVES:
        assert (root / folder / name).read_bytes() == small.file(name)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def fetch(root):
    """Download and return the lines that were said."""

    def run(names=("mnist",), mirror=None, patience=QUICK):
        said = []
        download(names, root, mirror, say=said.append, patience=patience)
        return said

    return run


def closed_port():
    """An address that refuses connections."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.fixture
def black_hole():
    """A mirror that takes the connection and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def test_a_good_mirror_gives_every_file(write_manifest, server, small, root, fetch):
    write_manifest(server.mirror("good"))
    said = fetch()
    assert_complete(root, small)
    assert len(said) == 5
    assert all("verified" in line for line in said[1:])


def test_files_follow_the_umask_which_is_left_alone(write_manifest, server, root, fetch, monkeypatch):
    write_manifest(server.mirror("good"))
    previous = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "umask")  # it is the whole process's, and other threads make files too
            fetch()
    finally:
        os.umask(previous)
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*.gz")} == {0o640}


FAILURES = {
    "403": "403 Forbidden",
    "404": "404 Not Found",
    "503": "503 Service Unavailable",
    "loops": "redirects without end",
    "truncates": "bytes, expected",
    "truncates-unannounced": "bytes came, expected",
    "drops": "connection dropped",
    "page": "web page",
    "page-unannounced": "web page",
    "wrong-byte": "SHA-256",
    "too-long": "more than the expected",
    "stalls": "stalls",
    "mute": "stalls",
    "drips": "stalls",
    "drips-chunks": "stalls",
}


@pytest.mark.parametrize(("behaviour", "reason"), FAILURES.items())
def test_after_a_failure_the_next_mirror_is_taken(
    behaviour, reason, write_manifest, server, small, root, fetch
):
    write_manifest(server.mirror(behaviour), server.mirror("good"))
    said = fetch()
    good, first = said[1].split(" from ", 1)[1].split(", verified; tried first: ")
    assert good == server.mirror("good")
    assert first.startswith(f"{server.mirror(behaviour)}: ")
    assert reason in first
    assert_complete(root, small)


def test_a_mirror_is_shown_by_its_host_where_that_is_enough():
    first, second = (Mirror(f"https://me:secret@host/{place}/") for place in ("a", "b"))
    assert first.shown([first, Mirror("https://else/a/")]) == "https://host"
    assert first.shown([first, second]) == "https://host/a/"
    assert Mirror("/folder/").shown([first]) == "/folder/"


@pytest.mark.parametrize(("behaviour", "reason"), FAILURES.items())
def test_without_another_mirror_one_line_says_why_and_one_what_to_do(
    behaviour, reason, write_manifest, server, root, fetch
):
    write_manifest(server.mirror(behaviour))
    with pytest.raises(DownloadFailed) as failure:
        fetch()
    line, later = failure.value.lines
    assert IMAGES in line
    assert server.address in line
    assert reason in line
    assert "\n" not in line
    assert "`make download` brings it; `make download MIRROR=FOLDER`" in later
    assert "training uses the embedded digits" in later
    assert not root.exists()


@pytest.mark.parametrize("behaviour", ["redirects", "unannounced", "encoded"])
def test_these_ways_to_answer_are_fine(behaviour, write_manifest, server, small, root, fetch):
    write_manifest(server.mirror(behaviour))
    fetch()
    assert_complete(root, small)


def test_a_mirror_that_stalls_is_not_asked_again(write_manifest, server, fetch):
    write_manifest(server.mirror("stalls"), server.mirror("good"))
    fetch()
    assert sum(path.startswith("/stalls/") for path in server.asked) == 1


def test_each_mirrors_reason_stands_in_the_one_line(write_manifest, server, root, fetch):
    write_manifest(server.mirror("503"), server.mirror("wrong-byte"), closed_port())
    with pytest.raises(DownloadFailed) as failure:
        fetch()
    line, _ = failure.value.lines
    assert "503" in line
    assert "SHA-256" in line
    assert "connection refused" in line
    assert below(root) == []


def test_a_black_hole_before_a_good_mirror_costs_little(
    write_manifest, server, black_hole, small, root, fetch
):
    write_manifest(black_hole, server.mirror("good"))
    said = fetch(patience=Patience(answer=5.0, others=0.2, block=5.0))
    assert not any("no answer" in line for line in said)  # its answer was not waited for
    assert_complete(root, small)


def test_no_mirror_reached_is_two_lines(write_manifest, black_hole, root, fetch):
    write_manifest(closed_port(), black_hole)
    with pytest.raises(DownloadFailed) as failure:
        fetch(["mnist", "kmnist"])
    reached, later = failure.value.lines
    assert "No mirror of MNIST or KMNIST could be reached" in reached
    assert "connection refused" in reached
    assert "no answer in 1 seconds" in reached
    assert "--mirror FOLDER" in later
    assert not root.exists()


def test_a_name_server_that_never_answers_is_not_waited_for(write_manifest, root, fetch, monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait())
    write_manifest("http://mirror.example/", "https://mirror.example/")
    with pytest.raises(DownloadFailed, match="no answer in"):
        fetch()
    answer.set()
    assert not root.exists()


def test_a_proxy_is_used_and_may_be_the_one_that_fails(write_manifest, fetch, monkeypatch):
    write_manifest("http://mirror.example/", "https://mirror.example/")
    monkeypatch.setenv("http_proxy", closed_port())
    monkeypatch.setenv("https_proxy", closed_port())
    with pytest.raises(DownloadFailed, match="the proxy does not let it through"):
        fetch()


def test_by_default_no_network_is_known_within_fifteen_seconds(root, monkeypatch):
    """Every mirror of every set hangs; the waiting is counted on a clock that stands still otherwise."""
    silent = threading.Event()
    waited = 0.0

    def wait_for(_, done, timeout):
        nonlocal waited
        if not done():
            waited += timeout
        return done()

    monkeypatch.setattr(requests, "get", lambda *_, **__: silent.wait())
    monkeypatch.setattr(threading.Condition, "wait_for", wait_for)
    monkeypatch.setattr(mirrors, "time", SimpleNamespace(monotonic=lambda: waited))
    names = [name for name, source in manifest.sources().items() if source.mirrors]
    with pytest.raises(DownloadFailed, match="could be reached") as failure:
        download(names, root)
    silent.set()
    assert len(failure.value.lines) == 2
    assert 5 < waited < 10  # the rest is for starting, on a slow machine


def test_the_command_without_a_network(write_manifest, root, capsys):
    write_manifest(closed_port(), closed_port())
    assert cli.run(["download", "--root", str(root)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    reached, later = err.splitlines()
    assert "could be reached" in reached
    assert "make download" in later
    assert "training uses the embedded digits" in later
    assert cli.run(["download", "--root", str(root), "--or-embedded"]) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines(), err) == ([reached, later], "")
    assert not root.exists()


def test_or_embedded_goes_on_after_a_refusal_with_the_honest_line(write_manifest, server, root, capsys):
    write_manifest(server.mirror("403"))
    assert cli.run(["download", "--root", str(root)]) == 1
    assert "403 Forbidden" in capsys.readouterr().err
    assert cli.run(["download", "--root", str(root), "--or-embedded"]) == 0
    assert "403 Forbidden" in capsys.readouterr().out
    assert below(root) == []


def test_files_that_are_here_are_kept(write_manifest, server, small, root, fetch):
    write_manifest(server.mirror("good"))
    small.put(root / "mnist")
    (line,) = fetch()
    assert "nothing to download" in line
    assert server.asked == []


def test_only_what_is_missing_or_damaged_is_fetched(write_manifest, server, small, root, fetch):
    write_manifest(server.mirror("good"))
    small.put(root / "mnist")
    (root / "mnist" / ARCHIVES[0]).unlink()
    (root / "mnist" / ARCHIVES[1]).write_bytes(b"damaged")
    said = "\n".join(fetch())
    assert len(server.asked) == 2
    assert "here already, verified" in said
    assert "not the published file" in said
    assert_complete(root, small)


def test_an_unknown_name_stops_before_anything_is_asked(write_manifest, server, fetch):
    write_manifest(server.mirror("good"))
    with pytest.raises(WrongUsage, match=r"expected mnist, kmnist\. Did you mean 'mnist'"):
        fetch(["mnist", "mnits"])
    assert server.asked == []


def test_one_set_that_fails_does_not_keep_another_away(write_manifest, server, small, root, fetch):
    def only_kmnist(handler, data):
        server.behaviours["503" if len(server.asked) == 1 else "good"](handler, data)

    server.behaviours["only-kmnist"] = only_kmnist
    write_manifest(server.mirror("only-kmnist"))
    with pytest.raises(DownloadFailed, match=r"MNIST: .*503.*`make download` brings it"):
        fetch(["mnist", "kmnist"])
    assert_complete(root, small, "kmnist")


def test_of_sets_that_fail_in_two_ways_the_last_line_names_both(write_manifest, server, fetch, monkeypatch):
    write_manifest(server.mirror("503"))
    mnist, kmnist = (manifest.sources()[name] for name in ("mnist", "kmnist"))
    lost = {"mnist": mnist, "kmnist": replace(kmnist, mirrors=(closed_port(),))}
    monkeypatch.setattr(downloading, "sources", lambda: lost)
    with pytest.raises(DownloadFailed) as failure:
        fetch(["kmnist", "mnist"])
    refused, unreached, later = failure.value.lines
    assert "503" in refused
    assert "No mirror of KMNIST" in unreached
    assert "`chainrule download mnist kmnist`" in later


def test_a_torchvision_tree_below_the_root_is_used(write_manifest, server, small, root, fetch):
    write_manifest(server.mirror("good"))
    small.put(root / "MNIST" / "raw", packed=False)
    (line,) = fetch()
    assert str(Path("MNIST", "raw")) in line
    assert server.asked == []


@pytest.mark.parametrize("place", ["", "raw", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_a_folder_as_mirror(place, packed, form, write_manifest, small, root, fetch, tmp_path):
    write_manifest(closed_port())
    small.put(tmp_path / "a copy" / place, packed)
    fetch(mirror=form.format(tmp_path / "a copy").replace(" ", "%20" if "file" in form else " "))
    assert below(root) == (ARCHIVES if packed else sorted(FILES))
    for path in (root / "mnist").iterdir():
        assert path.read_bytes() == small.file(path.name)


def test_a_mirror_may_be_relative_or_in_the_home_folder(
    write_manifest, small, root, fetch, tmp_path, monkeypatch
):
    write_manifest(closed_port())
    small.put(tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    fetch(mirror="copy")
    assert_complete(root, small)
    assert parse_mirror("~/copy").address == f"{tmp_path / 'copy'}/"


def test_a_web_address_as_mirror(write_manifest, server, small, root, fetch):
    write_manifest(closed_port())
    fetch(mirror=server.mirror("good").rstrip("/").replace("http", "HTTP"))
    assert_complete(root, small)


def test_a_torchvision_tree_on_the_web(write_manifest, server, small, root, fetch):
    def tree(handler, data):
        if handler.path.endswith(".gz") or "/MNIST/raw/" not in handler.path:
            handler.send_error(404)
        else:
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(data)

    server.behaviours["tree"] = tree
    write_manifest(closed_port())
    fetch(mirror=server.mirror("tree"))
    assert below(root) == sorted(FILES)


def test_a_mirror_folder_with_another_file_is_refused(write_manifest, small, root, fetch, tmp_path):
    write_manifest(closed_port())
    folder = small.put(tmp_path / "copy")
    (folder / f"{IMAGES}.gz").write_bytes(small.packed["train_labels"])
    with pytest.raises(DownloadFailed, match=r"train-images.*bytes came, expected"):
        fetch(mirror=str(folder))
    assert below(root) == []


def test_uncompressed_files_without_a_published_sum_are_refused(write_manifest, small, root, fetch, tmp_path):
    write_manifest(closed_port())
    folder = small.put(tmp_path / "copy", packed=False)
    with pytest.raises(DownloadFailed, match="uncompressed files of this set cannot be verified"):
        fetch(["kmnist"], mirror=str(folder))
    assert below(root) == []


@pytest.mark.parametrize(
    "mirror",
    [
        "",
        "file:",
        "file://",
        "http://host/x?y=1",
        "http://host/x#y",
        "file:///?x",
        "nosuch",
        "~/nosuch",
        "file:///nosuch",
        "file://host/folder",
        "ftp://host/x",
        "http://",
        "http://[",
        "http://host:port/",
        __file__,
    ],
)
def test_a_mirror_that_is_none_is_one_line(mirror, root, capsys):
    assert cli.run(["download", "--root", str(root), "--mirror", mirror, "--or-embedded"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert mirror in line
    assert not root.exists()


def test_the_embedded_digits_need_no_download(write_manifest, fetch):
    write_manifest(closed_port())
    (line,) = fetch(["digits"])
    assert "nothing to download" in line


def test_a_root_that_cannot_be_written_is_one_line(write_manifest, server, tmp_path, capsys):
    write_manifest(server.mirror("good"))
    (tmp_path / "file").write_text("in the way")
    assert cli.run(["download", "--root", str(tmp_path / "file"), "--or-embedded"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written: Not a directory" in line


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere"
)
def test_a_read_only_root_is_one_line(write_manifest, server, root, fetch):
    write_manifest(server.mirror("good"))
    root.mkdir(mode=0o555)
    with pytest.raises(ChainruleError, match="cannot be written: Permission denied"):
        fetch()


def start(manifest, arguments, before=""):
    """Run the command in a process of its own, reading this manifest."""
    program = (
        "import pathlib, sys, chainrule.manifest, chainrule.cli\n"
        f"chainrule.manifest.MANIFEST = pathlib.Path({str(manifest)!r})\n{before}\n"
        "sys.exit(chainrule.cli.run(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_full_disk_is_one_line(write_manifest, server, root):
    manifest = write_manifest(server.mirror("good"))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    process = start(manifest, ["download", "--root", root], limit)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = err.splitlines()
    assert "cannot be written: File too large" in line
    assert below(root) == []


def test_two_downloads_at_once_do_not_harm_each_other(write_manifest, server, small, root):
    both = threading.Barrier(2, timeout=60)

    def together(handler, data):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        both.wait()
        handler.wfile.write(data[len(data) // 2 :])
        handler.wfile.flush()
        both.wait()

    server.behaviours["together"] = together
    manifest = write_manifest(server.mirror("together"))
    processes = [start(manifest, ["download", "--root", root]) for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
    assert_complete(root, small)
    assert len(server.asked) == 8


def test_one_download_that_fails_does_not_harm_another(write_manifest, server, small, root):
    turn = itertools.count()
    second = threading.Event()

    def one_bad(handler, data):
        if next(turn) == 0:
            second.wait(60)
            server.behaviours["wrong-byte"](handler, data)
        else:
            second.set()
            server.behaviours["good"](handler, data)

    server.behaviours["one-bad"] = one_bad
    manifest = write_manifest(server.mirror("one-bad"))
    processes = [start(manifest, ["download", "--root", root]) for _ in range(2)]
    for process in processes:
        process.communicate(timeout=60)
    assert sorted(process.returncode for process in processes) == [0, 1]
    assert_complete(root, small)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_and_leaves_nothing_behind(number, status, write_manifest, server, root):
    halfway = threading.Event()

    def half(handler, data):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        halfway.set()
        server.closing.wait()

    server.behaviours["half"] = half
    manifest = write_manifest(server.mirror("half"))
    # A shell that starts the tests in the background has SIGINT ignored: set it back.
    before = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = start(manifest, ["download", "--root", root], before)
    assert halfway.wait(60)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, "chainrule: stopped\n")
    assert not root.exists()


@pytest.mark.parametrize("here", [True, False])
def test_what_a_killed_download_left_is_removed_when_it_is_old(
    here, write_manifest, server, small, root, fetch
):
    write_manifest(server.mirror("good"))
    if here:
        small.put(root / "mnist")
    hours_ago = time.time() - 7200
    for name, written in (("old", hours_ago), ("running", time.time())):
        part = root / "mnist" / f".download-{name}"
        part.mkdir(parents=True)
        (part / "tmp").write_bytes(b"half")
        os.utime(part / "tmp", (written, written))
        os.utime(part, (hours_ago, hours_ago))
    fetch()
    assert sorted(path.name for path in (root / "mnist").iterdir()) == [".download-running", *ARCHIVES]


def test_a_folder_that_was_here_before_stays(write_manifest, server, root, fetch):
    write_manifest(server.mirror("403"))
    root.mkdir()
    with pytest.raises(DownloadFailed):
        fetch()
    assert list(root.iterdir()) == []


def test_real_mnist_from_the_shared_folder(shared, root, fetch):
    assert len(fetch(mirror=str(shared / "mnist"))) == 5
    assert below(root) == ARCHIVES
    (line,) = fetch(mirror=str(shared / "mnist"))
    assert "nothing to download" in line
