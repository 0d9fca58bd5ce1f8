from __future__ import annotations

import pytest

from iris_api.settings import Settings, SettingsError

MINIMAL = {"IRIS_API_MODEL_DIR": "/model"}


def test_only_the_model_must_be_given() -> None:
    settings = Settings.from_environ(MINIMAL | {"PATH": "/bin"})
    assert (settings.bind, settings.name) == ("127.0.0.1:8001", "iris-api@1")


def test_each_instance_has_its_own_port_and_name() -> None:
    settings = Settings.from_environ(MINIMAL | {"IRIS_API_INSTANCE": "3", "IRIS_API_BASE_PORT": "9000"})
    assert (settings.bind, settings.name) == ("127.0.0.1:9002", "iris-api@3")


def test_an_ipv6_address_is_put_in_brackets() -> None:
    assert Settings.from_environ(MINIMAL | {"IRIS_API_BIND_ADDRESS": "::1"}).bind == "[::1]:8001"


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({}, "IRIS_API_MODEL_DIR is not set"),
        (
            MINIMAL | {"IRIS_API_LOGLEVEL": "info"},
            "IRIS_API_LOGLEVEL is not a setting; did you mean IRIS_API_LOG_LEVEL?",
        ),
        (MINIMAL | {"IRIS_API_COLOUR": "red"}, "IRIS_API_COLOUR is not a setting; known are INSTANCE, "),
        (MINIMAL | {"IRIS_API_INSTANCE": "0"}, "IRIS_API_INSTANCE='0': "),
        (MINIMAL | {"IRIS_API_BASE_PORT": "http"}, "IRIS_API_BASE_PORT='http': "),
        (MINIMAL | {"IRIS_API_BIND_ADDRESS": "localhost"}, "IRIS_API_BIND_ADDRESS='localhost': "),
        (MINIMAL | {"IRIS_API_LOG_LEVEL": "loud\nly"}, "IRIS_API_LOG_LEVEL='loud\\nly': "),
        (
            MINIMAL | {"IRIS_API_BASE_PORT": "65535", "IRIS_API_INSTANCE": "2"},
            "IRIS_API_BASE_PORT + IRIS_API_INSTANCE - 1 is 65536, above 65535",
        ),
        (
            MINIMAL | {"IRIS_API_REQUEST_DEADLINE": "20"},
            "IRIS_API_REQUEST_DEADLINE is 20 s, which must be less than IRIS_API_GRACEFUL_TIMEOUT, 15 s",
        ),
        (MINIMAL | {"IRIS_API_MAX_VALUES": "0"}, "IRIS_API_MAX_VALUES='0': "),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_names_the_variable(environ: dict[str, str], complaint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(environ)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_trusted_types_are_separated_by_commas() -> None:
    settings = Settings.from_environ(MINIMAL | {"IRIS_API_SKOPS_TRUSTED": "a.B, c.D"})
    assert settings.skops_trusted == ("a.B", "c.D")
    assert Settings.from_environ(MINIMAL | {"IRIS_API_SKOPS_TRUSTED": ""}).skops_trusted == ()
