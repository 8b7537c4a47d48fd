"""Settings: one table, three sources, and refusals that name what is wrong."""

import tomllib
from pathlib import Path

import pytest

from valqd.config import SETTINGS, load
from valqd.errors import SettingError

ROOT = Path(__file__).parent.parent.parent


def test_the_file_names_every_setting_with_its_default():
    path = ROOT / "config" / "valqd.toml"
    table = tomllib.loads(path.read_text())
    assert list(table) == [setting.name for setting in SETTINGS]
    assert load(["--config", str(path)], {}) == load([], {})
    text = path.read_text().replace("\n# ", " ")
    assert [setting.name for setting in SETTINGS if f"{setting.summary}\n{setting.name} = " not in text] == []


def test_the_readme_names_every_setting_with_its_default():
    text = (ROOT / "README.md").read_text()
    for setting in SETTINGS:
        default = f"`{setting.default}` " if setting.default else ""
        assert f"| `{setting.name}` | {default}| {setting.summary} |" in text


def test_command_line_beats_environment_beats_file_beats_default(tmp_path):
    path = tmp_path / "valqd.toml"
    path.write_text("max_clients = 7\nworkers = 2\nshutdown_timeout = 3\n")
    environment = {"VALQD_CONFIG": str(path), "VALQD_WORKERS": "3", "VALQD_SHUTDOWN_TIMEOUT": "4"}
    settings = load(["--shutdown-timeout", "5"], environment)
    assert (settings.max_clients, settings.workers, settings.shutdown_timeout) == (7, 3, 5)
    assert settings.listen == "127.0.0.1:6390"
    assert load([], {"VALQD_CONFIG": ""}) == load([], {})


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["--max-clients", "0"], {}, "--max-clients"),
        (["--max-clients", "12x"], {}, "--max-clients"),
        (["--workers", "65"], {}, "--workers"),
        (["--listen", "6390"], {}, "--listen"),
        (["--listen", "localhost:99999"], {}, "--listen"),
        (["--listen", "[::1:6390"], {}, "--listen"),
        (["--listen", "[]:6390"], {}, "--listen"),
        (["--auto-create", "maybe"], {}, "--auto-create"),
        (["--retention-period", "59"], {}, "--retention-period"),
        (["--appendfsync", "sometimes"], {}, "--appendfsync"),
        (["--nonsense", "1"], {}, "--nonsense"),
        ([], {"VALQD_WORKERS": "-1"}, "VALQD_WORKERS"),
        ([], {"VALQD_NONSENSE": "1"}, "VALQD_NONSENSE"),
        (["--config", "/nowhere/valqd.toml"], {}, "/nowhere/valqd.toml"),
        (["--config", ""], {}, "--config"),
        (["--workers", "1"], {"VALQD_WORKERS": "x"}, "VALQD_WORKERS"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line_that_names_it(arguments, environment, named):
    with pytest.raises(SettingError) as refused:
        load(arguments, environment)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense = 1",
        "[valqd]\nworkers = 1",
        "workers = [1]",
        "workers = 0",
        "workers = ",
        "workers = " + "9" * 5000,
        "workers = 0x" + "f" * 5000,
        "workers = " + "[" * 3000,
    ],
)
def test_a_bad_file_is_refused(tmp_path, text):
    path = tmp_path / "valqd.toml"
    path.write_text(text)
    with pytest.raises(SettingError) as refused:
        load(["--config", str(path)], {})
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_functions_are_told_about_missing_queues():
    assert load([], {}).auto_create_argument == b"30000:5:86400000"
    assert load(["--auto-create", "no"], {}).auto_create_argument == b""


def test_a_nul_in_a_setting_is_refused(tmp_path):
    path = tmp_path / "valqd.toml"
    path.write_text('data_dir = "a\\u0000b"')
    with pytest.raises(SettingError, match=r"data_dir in .* must hold no NUL"):
        load(["--config", str(path)], {})
