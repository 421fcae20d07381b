"""Settings come from PATRONUS_* variables; a bad one stops the service and names itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from model.bundle_address import HubAddress
from service.settings import SHIPPED_BUNDLES, Settings, SettingsError, cache_directory, state_directory

NUMBERS = [
    "CACHE_BYTES",
    "CACHE_TTL_S",
    "MAX_BATCH",
    "NUM_THREADS",
    "MAX_QUEUE",
    "MAX_STEPS",
    "MAX_IMAGES",
    "MAX_BODY_BYTES",
    "MAX_BODIES_BYTES",
    "MAX_PIXELS",
    "REQUEST_TIMEOUT_S",
    "DRAIN_TIMEOUT_S",
    "STEP_TIMEOUT_S",
    "CACHE_TIMEOUT_MS",
    "RATE_BURST",
    "MAX_ROW_STEPS_PER_KEY",
    "PORT",
]


def test_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.bundle == SHIPPED_BUNDLES
    assert settings.cache_url == "memory://"
    assert settings.host == "127.0.0.1"
    assert settings.api_keys == ()


def test_each_setting_is_read_from_its_variable() -> None:
    environment = {
        "PATRONUS_BUNDLE": "/srv/bundle, /srv/other",
        "PATRONUS_BACKEND": "torch",
        "PATRONUS_DEVICE": "cuda",
        "PATRONUS_PRECISION": "bf16",
        "PATRONUS_CACHE_URL": "redis://:secret@cache:6379/1",
        "PATRONUS_CACHE_BYTES": "1024",
        "PATRONUS_CACHE_TTL_S": "60",
        "PATRONUS_CACHE_TIMEOUT_MS": "20",
        "PATRONUS_MAX_BATCH": "64",
        "PATRONUS_NUM_THREADS": "2",
        "PATRONUS_MAX_QUEUE": "128",
        "PATRONUS_MAX_STEPS": "100",
        "PATRONUS_MAX_IMAGES": "16",
        "PATRONUS_MAX_BODY_BYTES": "2048",
        "PATRONUS_MAX_BODIES_BYTES": "8192",
        "PATRONUS_MAX_PIXELS": "65536",
        "PATRONUS_REQUEST_TIMEOUT_S": "2.5",
        "PATRONUS_DRAIN_TIMEOUT_S": "0",
        "PATRONUS_STEP_TIMEOUT_S": "7.5",
        "PATRONUS_TUNE_BATCH": "off",
        "PATRONUS_API_KEYS": "first-key, second-key,",
        "PATRONUS_RATE_LIMIT": "300/m",
        "PATRONUS_RATE_BURST": "20",
        "PATRONUS_MAX_ROW_STEPS_PER_KEY": "64000",
        "PATRONUS_CORS_ORIGINS": "https://a.example, http://localhost:3000",
        "PATRONUS_HOST": "0.0.0.0",
        "PATRONUS_PORT": "80",
        "PATRONUS_LOG_LEVEL": "warning",
        "PATRONUS_LOG_FORMAT": "JSON",
        "PATRONUS_STATE_DIR": "/var/lib/patronus",
        "PATRONUS_TRACING": "OTLP",
    }
    assert len(environment) == len(dataclasses.fields(Settings))
    assert Settings.from_environment(environment) == Settings(
        bundle=(Path("/srv/bundle"), Path("/srv/other")),
        backend="torch",
        device="cuda",
        precision="bf16",
        cache_url="redis://:secret@cache:6379/1",
        cache_bytes=1024,
        cache_ttl_s=60,
        cache_timeout_ms=20,
        max_batch=64,
        num_threads=2,
        max_queue=128,
        max_steps=100,
        max_images=16,
        max_body_bytes=2048,
        max_bodies_bytes=8192,
        max_pixels=65536,
        request_timeout_s=2.5,
        drain_timeout_s=0.0,
        step_timeout_s=7.5,
        tune_batch="off",
        api_keys=("first-key", "second-key"),
        rate_limit="300/m",
        rate_burst=20,
        max_row_steps_per_key=64_000,
        cors_origins=("https://a.example", "http://localhost:3000"),
        host="0.0.0.0",
        port=80,
        log_level="WARNING",
        log_format="json",
        state_dir=Path("/var/lib/patronus"),
        tracing="otlp",
    )


def test_a_bundle_may_be_one_of_the_hub() -> None:
    environment = {"PATRONUS_BUNDLE": "hf://lab/faces@v1, bundles/mine"}
    assert Settings.from_environment(environment).bundle == (
        HubAddress("lab/faces", "v1"),
        Path("bundles/mine"),
    )
    with pytest.raises(SettingsError, match=r"PATRONUS_BUNDLE must be directories or hf://.*'hf://faces'"):
        Settings.from_environment({"PATRONUS_BUNDLE": "hf://faces"})


def test_variables_of_other_programs_are_left_alone() -> None:
    assert Settings.from_environment({"PATH": "/bin", "PATRON": "x", "MAX_BATCH": "x"}) == Settings()


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["", "many", "-1", "nan", "inf", "1e40", "0x10"])
def test_bad_number_names_its_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"PATRONUS_{name} must be"):
        Settings.from_environment({f"PATRONUS_{name}": value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BACKEND", "tensorflow"),
        ("DEVICE", "tpu"),
        ("PRECISION", "fp8"),
        ("PRECISION", "bf16"),  # with the onnx backend
        ("LOG_LEVEL", "loud"),
        ("CACHE_URL", "memcached://cache"),
        ("CACHE_URL", ""),
        ("API_KEYS", "short"),
        ("API_KEYS", "long-enough,short"),
        ("API_KEYS", "schlüssel-lang"),
        ("MAX_BATCH", "0"),
        ("MAX_BATCH", "2.5"),
        ("MAX_BATCH", "4097"),
        ("PORT", "65536"),
        ("RATE_LIMIT", "10"),
        ("RATE_LIMIT", "0/s"),
        ("RATE_LIMIT", "10/d"),
        ("RATE_LIMIT", " "),
        ("CORS_ORIGINS", "gallery.example"),
        ("CORS_ORIGINS", "https://gallery.example/"),
        ("CORS_ORIGINS", "https://a.example https://b.example"),
        ("CORS_ORIGINS", ","),
        ("LOG_FORMAT", "xml"),
        ("CACHE_TIMEOUT_MS", "0"),
        ("REQUEST_TIMEOUT_S", "0"),
    ],
)
def test_bad_value_names_its_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"PATRONUS_{name} must"):
        Settings.from_environment({f"PATRONUS_{name}": value})


def test_bad_number_is_quoted_with_what_is_allowed() -> None:
    with pytest.raises(SettingsError, match=r"^PATRONUS_MAX_BATCH must be 1 to 4096, not 5000$"):
        Settings.from_environment({"PATRONUS_MAX_BATCH": "5000"})


@pytest.mark.parametrize("name", ["PATRONUS_MAX_BACH", "PATRONUS_", "PATRONUS_max_batch"])
def test_unknown_setting_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"unknown settings: {name} \(known: .*PATRONUS_MAX_BATCH"):
        Settings.from_environment({name: "8"})


def test_rate_limit_is_off_unless_it_is_set() -> None:
    assert Settings().rate is None
    rate = Settings(rate_limit="300/m", rate_burst=20).rate
    assert rate is not None
    assert (rate.per_second, rate.burst) == (5.0, 20)


def test_any_origin_may_be_let_in() -> None:
    assert Settings.from_environment({"PATRONUS_CORS_ORIGINS": "*"}).cors_origins == ("*",)


def test_api_keys_are_shown_neither_in_errors_nor_in_print() -> None:
    assert "first-key" not in repr(Settings(api_keys=("first-key",)))
    with pytest.raises(SettingsError) as failure:
        Settings.from_environment({"PATRONUS_API_KEYS": "secret"})
    assert "secret" not in str(failure.value)


def test_password_of_the_cache_is_shown_neither_in_errors_nor_in_print() -> None:
    assert "secret" not in repr(Settings(cache_url="redis://:secret@cache"))
    with pytest.raises(SettingsError) as failure:
        Settings(cache_url="http://:secret@cache")
    assert "secret" not in str(failure.value)


def test_settings_made_in_code_are_checked_too() -> None:
    with pytest.raises(SettingsError, match="PATRONUS_MAX_QUEUE"):
        Settings(max_queue=0)


def test_cache_directory_is_the_users() -> None:
    assert cache_directory({"XDG_CACHE_HOME": "/var/cache/me"}) == Path("/var/cache/me/patronus")
    for environment in ({}, {"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": "relative"}):
        assert cache_directory(environment) == Path.home() / ".cache" / "patronus"


def test_state_directory_is_the_users() -> None:
    assert state_directory({"XDG_STATE_HOME": "/var/state/me"}) == Path("/var/state/me/patronus")
    for environment in ({}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "relative"}):
        assert state_directory(environment) == Path.home() / ".local" / "state" / "patronus"


def test_state_directory_is_not_nothing() -> None:
    with pytest.raises(SettingsError, match="PATRONUS_STATE_DIR must name a directory"):
        Settings.from_environment({"PATRONUS_STATE_DIR": " "})


def test_secrets_are_read_from_files(tmp_path: Path) -> None:
    keys, url = tmp_path / "keys", tmp_path / "url"
    keys.write_text("first-key-of-all\n\nsecond-key-of-all, third-key-of-all\n")
    url.write_text("redis://:secret@cache:6379/1\n")
    settings = Settings.from_environment(
        {"PATRONUS_API_KEYS_FILE": str(keys), "PATRONUS_CACHE_URL_FILE": str(url)}
    )
    assert settings.api_keys == ("first-key-of-all", "second-key-of-all", "third-key-of-all")
    assert settings.cache_url == "redis://:secret@cache:6379/1"


@pytest.mark.parametrize("name", ["PATRONUS_API_KEYS_FILE", "PATRONUS_CACHE_URL_FILE"])
@pytest.mark.parametrize("content", [b"", b" \n\n", b",\n,\n", b"\xff\xfe"])
def test_file_that_holds_no_secret_leaves_nothing_open(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"{name} names '{path}', which"):
        Settings.from_environment({name: str(path)})


def test_secrets_file_that_is_missing_names_its_setting() -> None:
    with pytest.raises(SettingsError, match=r"PATRONUS_API_KEYS_FILE names '/nowhere', which cannot be read"):
        Settings.from_environment({"PATRONUS_API_KEYS_FILE": "/nowhere"})


def test_secret_is_given_once(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://from-the-file")
    with pytest.raises(SettingsError, match="set PATRONUS_CACHE_URL or PATRONUS_CACHE_URL_FILE, not both"):
        Settings.from_environment(
            {"PATRONUS_CACHE_URL": "memory://", "PATRONUS_CACHE_URL_FILE": str(tmp_path / "url")}
        )


def test_url_is_one_line_and_bad_secrets_of_files_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("redis://:hidden@a\nredis://:hidden@b\n")
    with pytest.raises(SettingsError, match="must be of one line, not 2") as failure:
        Settings.from_environment({"PATRONUS_CACHE_URL_FILE": str(path)})
    assert "hidden" not in str(failure.value)
    path.write_text("hidden")
    for name in ("PATRONUS_CACHE_URL_FILE", "PATRONUS_API_KEYS_FILE"):
        with pytest.raises(SettingsError) as failure:
            Settings.from_environment({name: str(path)})
        assert "hidden" not in str(failure.value)


def test_only_secrets_have_files() -> None:
    with pytest.raises(SettingsError, match="unknown settings: PATRONUS_PORT_FILE"):
        Settings.from_environment({"PATRONUS_PORT_FILE": "/dev/null"})
