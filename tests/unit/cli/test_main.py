"""The command as a whole."""

from importlib.metadata import version

from typer.testing import CliRunner

from automoe.cli.main import app


def test_version_is_printed_and_nothing_else_done():
    result = CliRunner().invoke(app, ["--version", "run", "no-such-recipe.yaml"])
    assert result.exit_code == 0
    assert result.output == f"automoe {version('automoe')}\n"
