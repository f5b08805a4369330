"""What proxies, load balancers and browsers ask of the server, answered as HTTP says, under any path."""

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import Request as Asked
from urllib.request import urlopen

import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from automoe.errors import InputError
from automoe.evaluation.expert_use import ModelRouter
from automoe.inference.backends import make_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.serving import server
from automoe.serving.app import create_app
from automoe.serving.http_settings import HttpSettings
from helpers.served import running, serving, tiny_model, write_tiny_model

MODEL, TOKENIZER = tiny_model()
ENGINE = make_engine(MODEL)
BODY = {"text": "the cat sat on the mat"}
PAGES = ["/", "/docs", "/openapi.json", "/health", "/healthz", "/favicon.ico", "/robots.txt", "/page/page.js"]
GETS = [*PAGES, "/metrics"]
POSTS = ["/translate", "/explain"]


def app(**http: object) -> ASGIApp:
    return create_app(
        ModelRouter(MODEL), ENGINE, TOKENIZER, BeamSettings(beam_size=1), http=HttpSettings(**http)
    )


@pytest.fixture(scope="module")
def plain() -> Iterator[TestClient]:
    """The server without a proxy: what it answers is right under a proxy, too."""
    with TestClient(app(), follow_redirects=False) as client:
        yield client


# What the server gets of a request for PREFIX + path.
STRIPPED, WHOLE = "stripped", "whole"
PROXIES: dict[str, Callable[[str, str], str]] = {
    STRIPPED: lambda prefix, path: path,
    WHOLE: lambda prefix, path: prefix + path,
}


@pytest.fixture(params=["/translator", "/a/b.c/v1", "/translate", "/page", "/übersetzer", "/health"])
def prefix(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def behind(prefix: str) -> Iterator[TestClient]:
    with TestClient(app(root_path=prefix), follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("proxy", PROXIES)
def test_under_a_prefix_everything_is_answered_as_without(
    plain: TestClient, behind: TestClient, prefix: str, proxy: str
) -> None:
    for path in GETS:
        if prefix == path and proxy == STRIPPED:
            continue  # cannot be told from the page under a prefix of this name
        for method in ("GET", "HEAD", "OPTIONS"):
            mine = behind.request(method, PROXIES[proxy](prefix, path))
            assert mine.status_code == plain.request(method, path).status_code, (method, path)
            if path not in ("/", "/docs", "/openapi.json", "/metrics"):  # these name the prefix, or count
                assert mine.content == plain.request(method, path).content
    for path in POSTS:
        mine = behind.post(PROXIES[proxy](prefix, path), json=BODY)
        assert (mine.status_code, mine.json()) == (200, plain.post(path, json=BODY).json())
    assert behind.get(PROXIES[proxy](prefix, "/nowhere")).status_code == 404


class Links(HTMLParser):
    """What a page loads and links to, and what that is relative to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.base = ""
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if tag == "base" and name == "href":
                self.base = value or ""
            elif name in ("href", "src"):
                self.links.append(value or "")


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("end", ["", "/"])
def test_what_the_page_and_the_documentation_link_to_is_found_under_the_prefix(
    behind: TestClient, prefix: str, proxy: str, end: str
) -> None:
    for path in (end, "/docs" + end):
        answer = behind.get(PROXIES[proxy](prefix, path))
        assert answer.status_code == 200
        found = Links(answer.text)
        base = urljoin(f"https://example.org{prefix}{path}", found.base)
        addresses = [urlsplit(urljoin(base, link)) for link in found.links]
        if path == end:
            assert {address.path.rpartition("/")[2] for address in addresses} >= {
                "page.js",
                "docs",
                "metrics",
            }
            addresses.append(urlsplit(urljoin(base, "explain")))
        assert len(addresses) >= 2
        for address in addresses:
            assert address.netloc == "example.org"
            own = unquote(address.path)
            assert own.startswith(f"{prefix}/")
            asked = PROXIES[proxy](prefix, own.removeprefix(prefix))
            assert behind.get(asked).status_code == (405 if own.endswith("/explain") else 200), own
    specification = behind.get(PROXIES[proxy](prefix, "/openapi.json")).json()
    assert specification["servers"] == [{"url": prefix}]
    assert f"{prefix}/openapi.json" in behind.get(PROXIES[proxy](prefix, "/docs")).text


def test_a_server_that_knows_the_prefix_itself_needs_no_option() -> None:
    with TestClient(app(), root_path="/translator") as client:
        for path in ("/translator/translate", "/translate"):
            assert client.post(path, json=BODY).status_code == 200
        assert '<base href="/translator/">' in client.get("/translator").text


def test_without_a_prefix_the_page_is_relative_to_itself(plain: TestClient) -> None:
    found = Links(plain.get("/").text)
    for link in found.links:
        address = urljoin(urljoin("https://example.org/unknown/to/the/server/", found.base), link)
        assert address.startswith("https://example.org/unknown/to/the/server/")
        assert plain.get(link).status_code == 200


def test_requests_under_a_prefix_are_counted_under_their_own_names() -> None:
    with TestClient(app(root_path="/translator")) as client:
        client.post("/translator/translate", json=BODY)
        client.post("/translate/", json=BODY)
        client.get("/translator/page/page.js")
        client.head("/translator")
        families = list(text_string_to_metric_families(client.get("/translator/metrics").text))
    counted = {
        (sample.labels["path"], sample.labels["status"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == "automoe_requests_total"
    }
    assert counted == {("/translate", "200"): 2, ("other", "200"): 1, ("/", "200"): 1}


@pytest.mark.parametrize("slashes", ["/", "//"])
def test_a_slash_at_the_end_is_forgiven(plain: TestClient, slashes: str) -> None:
    for path in (path for path in GETS if path not in ("/", "/metrics")):
        assert plain.get(path + slashes).status_code == 200
        assert plain.get(path + slashes).content == plain.get(path).content
    for path in POSTS:
        assert plain.post(path + slashes, json=BODY).json() == plain.post(path, json=BODY).json()
    assert plain.get(f"/nowhere{slashes}").status_code == 404


@pytest.mark.parametrize("prefix", ["", "/translator", "//translator/"])
def test_a_slash_of_the_address_and_one_of_the_path_are_one(prefix: str) -> None:
    """As where somebody joins `http://host/` and `/translate`."""
    with TestClient(app(root_path=prefix.strip("/") and "/translator")) as client:
        for path in POSTS:
            assert client.post(f"http://testserver{prefix}/{path}", json=BODY).status_code == 200
        assert client.get(f"http://testserver{prefix}//healthz").json()["status"] == "ok"
        assert client.get(f"http://testserver{prefix}//nowhere").status_code == 404


def test_a_compressed_body_is_refused_by_its_coding(plain: TestClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = plain.post("/translate", content=gzip.compress(json.dumps(BODY).encode()), headers=headers)
    assert answer.status_code == 415
    assert "Content-Encoding, gzip, is not supported" in answer.json()["error"]
    for coding, status in (("br", 415), ("Identity", 400)):
        answer = plain.post("/translate", content=b"\xff", headers=headers | {"Content-Encoding": coding})
        assert answer.status_code == status


def test_head_is_get_without_the_body(plain: TestClient) -> None:
    for path in [*PAGES, "/nowhere", "/translate", "/page"]:
        with_body, head = plain.get(path), plain.head(path)
        assert head.status_code == with_body.status_code
        assert head.content == b""
        volatile = ("date",)
        assert {k: v for k, v in head.headers.items() if k not in volatile} == {
            k: v for k, v in with_body.headers.items() if k not in volatile
        }
        assert int(head.headers["content-length"]) == len(with_body.content)


def test_options_and_refusals_tell_the_methods(plain: TestClient) -> None:
    for paths, allowed in ((GETS, {"GET", "HEAD", "OPTIONS"}), (POSTS, {"POST", "OPTIONS"})):
        for path in paths:
            options = plain.options(path)
            assert (options.status_code, options.content) == (204, b"")
            refused = plain.delete(path)
            assert refused.status_code == 405
            assert list(refused.json()) == ["error"]
            for answer in (options, refused):
                assert set(answer.headers["allow"].split(", ")) == allowed
    assert plain.get("/translate").status_code == 405
    assert plain.post("/docs").status_code == 405
    assert plain.options("/nowhere").status_code == 404


@pytest.mark.parametrize("prefix", ["", "/translator"])
def test_requests_that_no_client_library_sends(prefix: str) -> None:
    with running(app(root_path=prefix)) as address:
        port = int(address.rpartition(":")[2])
        for line, status, part in (
            ("OPTIONS * HTTP/1.1", 204, b"allow: GET, HEAD, OPTIONS, POST"),
            ("OPTIONS / HTTP/1.0", 204, b"allow: GET, HEAD, OPTIONS"),
            (f"GET http://other.example{prefix}/health HTTP/1.1", 200, b'"status":"ok"'),
            ("HEAD /health HTTP/1.0", 200, b"content-type: application/json"),
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(f"{line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                answer = b"".join(iter(lambda c=connection: c.recv(65536), b""))
            assert answer.split()[1] == str(status).encode(), line
            assert part in answer
            assert answer.endswith(b"\r\n\r\n") == (not line.startswith("GET"))


def test_what_browsers_ask_unasked(plain: TestClient) -> None:
    icon = plain.get("/favicon.ico")
    assert icon.headers["content-type"].startswith("image/svg+xml")
    assert icon.content == plain.get("/page/icon.svg").content
    robots = plain.get("/robots.txt")
    assert robots.headers["content-type"].startswith("text/plain")
    assert "Disallow: /" in robots.text.splitlines()


ORIGIN = "https://a.example"


def preflight(client: TestClient, origin: str, path: str = "/translate"):
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    return client.options(path, headers=headers)


@pytest.mark.parametrize("given", [[ORIGIN], ["https://A.example/", "http://localhost:3000"]])
def test_pages_of_the_origins_named_may_ask(given: list[str]) -> None:
    with TestClient(app(cors_origins=tuple(given), root_path="/translator")) as client:
        for path in ("/translate", "/translator/translate", "/translate/"):
            allowed = preflight(client, ORIGIN, path)
            assert allowed.status_code == 200
            assert allowed.headers["access-control-allow-origin"] == ORIGIN
            assert "POST" in allowed.headers["access-control-allow-methods"]
            assert "content-type" in allowed.headers["access-control-allow-headers"].lower()
        for body, status in ((BODY, 200), ({"text": 5}, 422)):
            answer = client.post("/translate", json=body, headers={"Origin": ORIGIN})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-origin" not in preflight(client, "https://b.example").headers
        stranger = client.post("/translate", json=BODY, headers={"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in stranger.headers
        assert client.options("/translate").status_code == 204  # no preflight


def test_any_page_may_ask_where_all_are_allowed_and_none_by_default(plain: TestClient) -> None:
    with TestClient(app(cors_origins=("*",))) as client:
        assert preflight(client, "https://b.example").headers["access-control-allow-origin"] == "*"
    for answer in (preflight(plain, ORIGIN), plain.post("/translate", json=BODY, headers={"Origin": ORIGIN})):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_impossible_settings_are_all_named() -> None:
    with pytest.raises(InputError) as caught:
        HttpSettings(root_path="translator?x", cors_origins=("example.org", ORIGIN, "https://a.example/page"))
    problems = "\n".join(caught.value.problems)
    for part in ("root_path", "'translator?x'", "cors_origins[0]", "cors_origins[2]", "/page"):
        assert part in problems
    assert "cors_origins[1]" not in problems


@pytest.mark.parametrize(("given", "path"), [("", ""), ("/", ""), ("/a/", "/a"), ("/%C3%A9", "/é")])
def test_a_prefix_has_no_slash_at_its_end(given: str, path: str) -> None:
    assert HttpSettings(root_path=given).root_path == path


@pytest.mark.parametrize(
    ("trusted", "client", "seen"),
    [
        (None, "127.0.0.1", ["https", "203.0.113.9"]),
        (None, "10.0.0.7", ["http", "10.0.0.7"]),
        ("10.0.0.0/8", "10.0.0.7", ["https", "203.0.113.9"]),
        ("10.0.0.8", "10.0.0.7", ["http", "10.0.0.7"]),
        ("*", "10.0.0.7", ["https", "203.0.113.9"]),
    ],
)
def test_only_trusted_proxies_are_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: str | None, client: str, seen: list[str]
) -> None:
    async def echo(request: Request) -> JSONResponse:
        assert request.client is not None
        return JSONResponse([request.url.scheme, request.client.host])

    configured: list[uvicorn.Config] = []
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    monkeypatch.setattr(server, "create_app", lambda *arguments: Starlette(routes=[Route("/", echo)]))
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: configured.append(self.config))
    model = write_tiny_model(tmp_path)
    http = HttpSettings(forwarded_allow_ips=trusted)
    server.serve(model, "127.0.0.1", 0, BeamSettings(), http=http)
    configured[0].load()
    asking = TestClient(configured[0].loaded_app, client=(client, 5000))
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
    assert asking.get("/", headers=headers).json() == seen


@pytest.mark.slow
def test_the_command_takes_prefix_origins_and_a_wide_beam(tmp_path: Path) -> None:
    options = ["--root-path", "/translator/", "--cors-origin", ORIGIN, "--cors-origin", "http://b.example"]
    with serving(write_tiny_model(tmp_path), *options, "--beam-size", "12") as (address, _):
        for path in ("/translate", "/translator/translate/"):
            for origin in (ORIGIN, "http://b.example"):
                asked = Asked(
                    address + path, b'{"text": "a"}', {"Content-Type": "application/json", "Origin": origin}
                )
                with urlopen(asked, timeout=60) as answer:  # with the server's own beam
                    assert answer.headers["Access-Control-Allow-Origin"] == origin
        for path in ("/", "/health"):
            with urlopen(Asked(address + path, method="HEAD"), timeout=60) as answer:
                assert (answer.status, answer.read()) == (200, b"")
