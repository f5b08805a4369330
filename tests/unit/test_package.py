"""What `import automoe` offers."""

import subprocess
import sys

import pytest

import automoe


def test_every_name_on_offer_is_there_and_no_other():
    assert set(automoe.__all__) <= set(dir(automoe))
    for name in automoe.__all__:
        assert getattr(automoe, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = automoe.Nothing


def test_importing_the_package_imports_none_of_its_rooms():
    program = "import automoe, sys; print([name for name in sys.modules if name.startswith('automoe.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
