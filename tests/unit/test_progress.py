"""What a run says where nobody watches a terminal."""

from automoe.progress import Reporter


def test_a_message_in_a_log_is_one_line_however_long(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    reporter = Reporter()
    message = "supernet: " + "valid: largest 5.281, " * 20 + "[bold] /path with spaces/x.yaml"
    reporter.say(message)
    reporter.bar("train")(3, 3, "loss 1.2, " * 20)
    said, last = capsys.readouterr().err.splitlines()
    assert said == message
    assert last.startswith("train: 3/3 loss 1.2")
