"""The HTTP application on a tiny model: what it answers, what it refuses, and how it bears a crowd."""

import asyncio
import json
import re
import resource
import signal
import socket
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from automoe.cli import main as cli
from automoe.data.vocabulary import EOS_ID
from automoe.evaluation.expert_use import ModelRouter
from automoe.evaluation.routing import route_sentences
from automoe.inference.backends import make_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.translator import Translator
from automoe.serving.app import create_app
from automoe.serving.limits import ServingLimits
from helpers.served import GatedEngine, running, serving, tiny_model, wait_until, write_tiny_model

MODEL, TOKENIZER = tiny_model()
ENGINE = make_engine(MODEL)
GREEDY = BeamSettings(beam_size=1)
TEXT = "the cat sat on the mat"
CLOSE = "\r\nHost: x\r\nConnection: close\r\n\r\n"


def app(engine=ENGINE, settings=GREEDY, **limits):
    return create_app(ModelRouter(MODEL), engine, TOKENIZER, settings, ServingLimits(**limits))


@pytest.fixture(scope="module")
def client():
    with TestClient(app(settings=BeamSettings(beam_size=2))) as client:
        yield client


@pytest.fixture(scope="module")
def address():
    """A server on a socket, for requests that must arrive as they are written."""
    with running(app()) as address:
        yield address


def post(address: str, body: object, path: str = "/translate") -> tuple[int, dict, dict]:
    """Status, JSON and headers of a real request."""
    request = urllib.request.Request(
        address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), dict(error.headers)


def waiting(address: str) -> int:
    with urllib.request.urlopen(f"{address}/healthz", timeout=60) as answer:
        return json.load(answer)["waiting_sentences"]


def test_translations_are_the_translators(client):
    texts = [TEXT, "a bird", "", "  \t ", "the dog"]
    expected = list(Translator(ENGINE, TOKENIZER, BeamSettings(beam_size=2)).translate(texts))
    assert any(expected)
    answer = client.post("/translate", json={"text": texts})
    assert answer.status_code == 200
    assert [t["text"] for t in answer.json()["translations"]] == expected
    (single,) = client.post("/translate", json={"text": TEXT}).json()["translations"]
    assert single["text"] == expected[0]


def test_lines_of_a_text_are_translated_one_by_one(client):
    lines = [TEXT, "", "a bird", ""]
    one_by_one = client.post("/translate", json={"text": lines}).json()["translations"]
    (joined,) = client.post("/translate", json={"text": "\r\n".join(lines)}).json()["translations"]
    assert joined["text"] == "\r\n".join(t["text"] for t in one_by_one)


def test_beam_and_n_best_of_a_request(client):
    (found,) = client.post("/translate", json={"text": TEXT, "beam_size": 4, "n_best": 3}).json()[
        "translations"
    ]
    translator = Translator(ENGINE, TOKENIZER, BeamSettings(beam_size=4, n_best=3))
    ids = [*TOKENIZER.encode([TEXT])[0], EOS_ID]
    expected = translator.search([ids], batch_tokens=100)[0]
    assert [h["score"] for h in found["hypotheses"]] == pytest.approx([h.score for h in expected])
    assert [h["text"] for h in found["hypotheses"]] == TOKENIZER.decode([h.tokens for h in expected])
    assert found["text"] == found["hypotheses"][0]["text"]


def test_explanations_are_the_routers(client):
    answer = client.post("/explain", json={"text": f"{TEXT}\n\na bird"}).json()
    plain = client.post("/translate", json={"text": f"{TEXT}\n\na bird"}).json()
    assert answer["translation"] == plain["translations"][0]["text"]
    assert len(answer["sentences"]) == 2
    for text, sentence in zip((TEXT, "a bird"), answer["sentences"], strict=True):
        ids = [*TOKENIZER.encode([text])[0], EOS_ID]
        (best,) = Translator(ENGINE, TOKENIZER, BeamSettings(beam_size=2)).search([ids], 100)[0]
        (expected,) = route_sentences(ModelRouter(MODEL), [ids], [best.tokens])
        for stack, layers in (("encoder", expected.encoder), ("decoder", expected.decoder)):
            assert [layer["name"] for layer in sentence[stack]["layers"]] == [x.layer for x in layers]
            assert [layer["experts"] for layer in sentence[stack]["layers"]] == [
                list(x.ffn_sizes) for x in layers
            ]
            assert [layer["chosen"] for layer in sentence[stack]["layers"]] == [
                [list(chosen) for chosen in x.chosen] for x in layers
            ]
            assert len(sentence[stack]["mean_ffn_sizes"]) == len(sentence[stack]["tokens"])
        assert "".join(sentence["encoder"]["tokens"]) == "▁" + text.replace(" ", "▁") + "</s>"
        assert sentence["decoder"]["tokens"][-1] == "</s>"


def test_an_empty_text_is_explained_by_nothing(client):
    assert client.post("/explain", json={"text": "\n"}).json() == {"translation": "\n", "sentences": []}


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        (b'{"text": ', 422, "not JSON"),
        (b"", 422, "body"),
        (b"null", 422, "JSON object"),
        (b'["text"]', 422, "JSON object"),
        (b"{}", 422, "text: Field required"),
        (b'{"text": 5}', 422, "text: Input should be a valid string"),
        (b'{"text": null}', 422, "text"),
        (b'{"text": ["a", 3]}', 422, "text.1"),
        (b'{"text": "a", "beam_size": "5"}', 422, "beam_size"),
        (b'{"text": "a", "beam_size": true}', 422, "beam_size"),
        (b'{"text": "a", "beam_size": 0}', 422, "beam_size"),
        (b'{"text": "a", "beam_size": 1e99}', 422, "beam_size"),
        (b'{"text": "a", "beam_size": 11}', 422, "at most 10"),
        (b'{"text": "a", "beam_size": 2, "n_best": 3}', 422, "n_best"),
        (b'{"text": "a", "colour": "red"}', 422, "colour"),
        (b'{"text": "a\\ud800"}', 422, "surrogate"),
        (b'{"text": "\xff"}', 400, "utf-8"),
        (b"[" * 100_000, 400, "cannot be read"),
        (b'{"text": "' + b"a" * 300_000 + b'"}', 413, "at most 262144 bytes"),
        (json.dumps({"text": "a " * 15_000}).encode(), 413, "at most 20000"),
        (json.dumps({"text": ["a"] * 65}).encode(), 413, "at most 64"),
        (json.dumps({"text": "a\n" * 300}).encode(), 413, "at most 256"),
    ],
)
def test_bad_input_is_refused_with_one_message(client, body, status, part):
    answer = client.post("/translate", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert part in answer.json()["error"]
    assert client.post("/translate", json={"text": TEXT}).status_code == 200


def test_a_large_body_is_refused_whether_or_not_it_declares_its_size(client):
    def pieces():
        for _ in range(300):
            yield b"a" * 1000

    answer = client.post("/translate", content=pieces(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_a_body_of_another_type_is_refused(client):
    answer = client.post("/translate", content=b'{"text": "a"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422
    assert "application/json" in answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/..%2fapp.py",
        "/page/....//app.py",
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/page/",
        "/static-offline-docs/../core.py",
        "/../model.safetensors",
        "/config.json",
    ],
)
def test_only_the_pages_files_can_be_read(address, path):
    assert raw(address, f"GET {path} HTTP/1.1{CLOSE}").startswith(b"HTTP/1.1 404")
    assert b"page.js" in raw(address, f"GET / HTTP/1.1{CLOSE}")


def raw(address: str, request: str) -> bytes:
    """The answer to exactly these bytes: clients tidy paths up."""
    with connect(address) as connection:
        connection.sendall(request.encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def connect(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1])), timeout=60)


def test_no_page_of_ours_names_another_host(client):
    pages = ("page.js", "style.css", "look.css", "expert_grid.js", "expert_grid.css")
    for path in ("/", "/docs", *(f"/page/{name}" for name in pages)):
        answer = client.get(path)
        assert answer.status_code == 200
        assert re.findall(r"""(?:src|href|url)\s*[=(:]\s*["']?(?:https?:)?//[^"']*""", answer.text) == []
    assert set(client.get("/openapi.json").json()["paths"]) == {
        "/translate",
        "/explain",
        "/healthz",
        "/metrics",
    }


def test_metrics_count_requests_batches_and_the_queue():
    with TestClient(app()) as client:
        for text in (TEXT, "a bird"):
            client.post("/translate", json={"text": [text, text]})
        client.post("/translate", json={"text": 5})
        client.get("/nowhere/1")
        client.get("/nowhere/2")
        answer = client.get("/metrics")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["automoe_requests_total", "/translate", "200"] == 2
    assert samples["automoe_requests_total", "/translate", "422"] == 1
    assert samples["automoe_requests_total", "other", "404"] == 2
    assert samples["automoe_request_seconds_count", "/translate"] == 3
    assert samples["automoe_request_seconds_sum", "/translate"] > 0
    assert samples["automoe_batch_sentences_sum",] == 4
    assert samples["automoe_batch_sentences_count",] == 2
    assert samples["automoe_waiting_sentences",] == 0


def test_a_server_fault_is_said_to_be_one_and_the_server_goes_on():
    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("secret detail")

    with TestClient(app(engine=Broken()), raise_server_exceptions=False) as client:
        answer = client.post("/translate", json={"text": TEXT})
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert list(answer.json()) == ["error"]
        assert client.get("/healthz").json()["status"] == "ok"
        assert client.post("/translate", json={"text": ""}).status_code == 200


def test_what_takes_too_long_is_given_up_and_leaves_the_queue():
    engine = GatedEngine(ENGINE)
    with running(app(engine, request_seconds=2)) as address:
        with ThreadPoolExecutor() as threads:
            answers = list(
                threads.map(lambda text: post(address, {"text": text}), [TEXT, "a bird", "the dog"])
            )
        assert [status for status, _, _ in answers] == [504] * 3
        assert "2 s" in answers[0][1]["error"]
        assert waiting(address) == 0
        engine.gate.set()
        wait_until(lambda: post(address, {"text": TEXT})[0] == 200)


def test_the_work_of_a_client_that_leaves_is_dropped():
    engine = GatedEngine(ENGINE)
    with running(app(engine)) as address, ThreadPoolExecutor() as threads:
        first = threads.submit(post, address, {"text": "the dog"})
        wait_until(lambda: batches(address) == 1)
        body = json.dumps({"text": "a bird"})
        leaver = connect(address)
        leaver.sendall(
            f"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        wait_until(lambda: waiting(address) == 1)
        leaver.close()
        wait_until(lambda: waiting(address) == 0)
        engine.gate.set()
        assert first.result()[0] == 200
        assert engine.encoded == [[*TOKENIZER.encode(["the dog"])[0], EOS_ID]]


def batches(address: str) -> int:
    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
        return int(float(re.search(rb"automoe_batch_sentences_count (\S+)", answer.read())[1]))


def test_a_thousand_requests_at_once_are_answered_or_asked_to_come_back():
    # Both ends of a thousand connections are in this process.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    body = json.dumps({"text": "the cat"})
    request = (
        f"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()
    engine = GatedEngine(ENGINE)

    async def ask(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer

    async def crowd(port: int) -> list[bytes]:
        asking = [asyncio.create_task(ask(port)) for _ in range(1000)]
        while sum(task.done() for task in asking) < 1000 - 256 - 32:  # all that cannot be held
            await asyncio.sleep(0.01)
        engine.gate.set()
        return await asyncio.gather(*asking)

    with running(app(engine)) as address:
        answers = asyncio.run(crowd(int(address.rsplit(":", 1)[1])))
        served = [answer for answer in answers if answer.startswith(b"HTTP/1.1 200")]
        busy = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503")]
        assert len(served) + len(busy) == 1000
        # The queue holds 256, and the batch that had begun when it was full between 1 and 32.
        assert 257 <= len(served) <= 288
        assert all(b"\r\nretry-after: 1\r\n" in answer.lower() for answer in busy)
        (expected,) = Translator(ENGINE, TOKENIZER, GREEDY).translate(["the cat"])
        assert {json.loads(a.partition(b"\r\n\r\n")[2])["translations"][0]["text"] for a in served} == {
            expected
        }
        assert post(address, {"text": TEXT})[0] == 200


def test_a_line_of_more_sentences_than_the_queue_holds_is_never_refused_for_its_size():
    """While one that waits takes a place of the queue, and others come while it is being translated."""
    engine = GatedEngine(ENGINE)
    limits = {"waiting_sentences": 4, "batch_sentences": 2, "characters": 200_000, "request_seconds": 600}
    line = "the cat sat on the mat, the dog ran, " * 200
    with running(app(engine, **limits)) as address, ThreadPoolExecutor(8) as threads:
        first = threads.submit(post, address, {"text": "the"})
        wait_until(lambda: batches(address) == 1)
        second = threads.submit(post, address, {"text": "a bird"})
        wait_until(lambda: waiting(address) == 1)
        long = threads.submit(post, address, {"text": line})
        wait_until(lambda: waiting(address) > 100)
        status, answer, headers = post(address, {"text": "the dog"})
        assert (status, headers["retry-after"]) == (503, "1")
        assert "try again later" in answer["error"]
        engine.gate.set()
        assert [asked.result()[0] for asked in (first, second, long)] == [200, 200, 200]
        (expected,) = Translator(ENGINE, TOKENIZER, GREEDY).translate([line])
        assert len(expected) > 100
        assert long.result()[1]["translations"][0]["text"] == expected
        assert post(address, {"text": "the dog"})[0] == 200


def test_concurrent_clients_share_batches_and_get_their_own_translations():
    engine = GatedEngine(ENGINE)
    texts = [TEXT, "a bird", "the dog ran", "every bird sings", "a mat", "words are read"]
    expected = list(Translator(ENGINE, TOKENIZER, GREEDY).translate(texts))
    with running(app(engine)) as address, ThreadPoolExecutor(8) as threads:
        first = threads.submit(post, address, {"text": "the"})
        wait_until(lambda: batches(address) == 1)
        answers = [threads.submit(post, address, {"text": text}) for text in texts]
        wait_until(lambda: waiting(address) == len(texts))
        engine.gate.set()
        assert first.result()[0] == 200
        assert [a.result()[1]["translations"][0]["text"] for a in answers] == expected
        assert batches(address) == 2


def test_a_terminated_server_finishes_what_it_was_asked(tmp_path):
    with serving(write_tiny_model(tmp_path)) as (address, process), ThreadPoolExecutor() as threads:
        long = {"text": ["a cat sat on the mat " * 10] * 24, "beam_size": 10}
        asked = threads.submit(post, address, long)
        wait_until(lambda: batches(address) == 1)
        process.send_signal(signal.SIGTERM)
        status, answer, _ = asked.result()
        assert status == 200
        assert len(answer["translations"]) == 24
        process.wait(timeout=30)
        with pytest.raises(urllib.error.URLError):
            post(address, {"text": "a"})


def refused(monkeypatch, capsys, *arguments: object) -> str:
    """Run `automoe serve`, which must refuse; its message."""
    monkeypatch.setattr(sys, "argv", ["automoe", "serve", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    return capsys.readouterr().err


def test_the_command_refuses_what_it_cannot_serve(tmp_path, monkeypatch, capsys):
    assert "is not a model folder" in refused(monkeypatch, capsys, tmp_path)
    model = write_tiny_model(tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in refused(monkeypatch, capsys, model, "--port", port)
    assert "port 99999" in refused(monkeypatch, capsys, model, "--port", 99999)


def test_without_the_extra_the_command_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "automoe.serving.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # as if it were not installed
    assert "pip install 'automoe[serve]'" in refused(monkeypatch, capsys, tmp_path)
