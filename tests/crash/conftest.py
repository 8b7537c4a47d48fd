"""What tests of the daemon's starts, stops and losses share."""

import signal

import pytest


@pytest.fixture(autouse=True, scope="module")
def hanging_up_counts():
    """Also where the tests run under nohup, which a daemon takes as a wish to outlive its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(params=["uvloop", "asyncio"])
def loops_environment(request, tmp_path):
    """What a daemon is started with so that it has uvloop, or has not."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
        return {}
    folder = tmp_path / "without"
    folder.mkdir()
    (folder / "uvloop.py").write_text("raise ImportError")
    return {"PYTHONPATH": str(folder)}
