"""The rule for secrets: by name, inside texts, and by form."""

from __future__ import annotations

import json

import pytest

from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.secret_detection import (
    as_variable,
    exposed,
    is_secret,
    looks_secret,
    masked_data,
    masked_env,
    masked_text,
    masked_words,
    secret_texts,
)
from tests.core.growth import LINEAR, growth

TOKEN = "hf_" + "abcDEF123456789" * 2


@pytest.mark.parametrize(
    "name",
    ["DB_PASS", "SMTP_PASS", "db-pass", "SSHPASS", "PGPASSWORD", "MYSQL_PWD", "OPENAI_KEY", "KEY", "HFToken",
     "SENTRY_DSN", "AWS_SECRET_ACCESS_KEY", "privateKey", "connection_string", "SLACK_WEBHOOK_URL", "TOKEN2"],
)  # fmt: skip
def test_looks_secret_knows_usual_names(name):
    """In any spelling."""
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    ["PWD", "OLDPWD", "n_pass", "first_pass", "BYPASS", "eos_token", "pad-token", "max_tokens", "sort_key", "SORT_KEY",
     "PUBLIC_KEY", "POSTGRES_PASSWORD_FILE", "token_path", "secret_name", "password_length", "compass", ""],
)  # fmt: skip
def test_looks_secret_leaves_names_that_sound_alike(name):
    """Among them those of the place of a secret."""
    assert not looks_secret(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://me:hunter2@host/db", "postgres://me:***@host/db"),
        ("postgres://me:hun@ter2@host", "postgres://me:***@host"),
        ("https://:hunter2@host", "https://:***@host"),
        ("host=db password=hunter2 user=me", "host=db password=*** user=me"),
        ("https://api/?token=abc&n=1", "https://api/?token=***&n=1"),
        ("url=redis://:pw123@h?password=xyz", "url=redis://:***@h?password=***"),
        ("export HF_TOKEN='a b'; run", "export HF_TOKEN='***'; run"),
        ("run --password hunter2 --n 3", "run --password *** --n 3"),
        (f"login {TOKEN}", "login ***"),
        ("curl -H 'Authorization: Bearer abcdefgh12'", "curl -H 'Authorization: Bearer ***'"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "***"),
        ('{"user": "me", "password": "x"}', '{"user": "me", "password": "***"}'),
        ('[{"token": "x"}]', '[{"token": "***"}]'),
    ],
)
def test_masked_text_finds_secrets_inside(text, shown):
    """URLs, assignments, options, JSON, and well-known forms."""
    assert masked_text(text) == shown


@pytest.mark.parametrize(
    "text",
    ["postgres://host:5432/db", "https://me@host/", "git@host:project.git", "export TOKEN=$(cat ~/.token)",
     'TOKEN="$T"', "postgres://me:${PASSWORD}@host/", "postgres://me:{{conn.db.password}}@host/", "a=b",
     "--use-token --verbose", "time 12:30@noon", "PASSWORD=", "password = true", "/data/sk-2024/x.txt", "[brackets",
     "{{ ds }}"],
)  # fmt: skip
def test_masked_text_leaves_texts_without_secrets(text):
    """Among them references to secrets that are elsewhere."""
    assert masked_text(text) == text


def test_secret_texts_are_found_in_environment_words_and_data():
    """Each with the name of a variable."""
    env = {"TOKEN": "first-secret", "URL": "redis://:second@host", "N": "1", "USE_TOKEN": "true"}
    data = {"env": {"DB_PASS": "fourth"}, "args": ["--api-key", "fifth"], "setup": ["export PW_TOKEN=sixth"]}
    assert secret_texts(env, [["--password", "third", "x"], data]) == {
        "first-secret": "TOKEN",
        "second": "URL",
        "third": "PASSWORD",
        "fourth": "DB_PASS",
        "fifth": "API_KEY",
        "sixth": "PW_TOKEN",
    }


def test_is_secret_takes_a_variable_for_secret_that_is_so_in_part():
    """A URL with a password belongs with the secrets, a flag does not."""
    assert is_secret("DB_URL", "postgres://me:hunter2@host")
    assert not is_secret("DB_URL", "postgres://host")
    assert not is_secret("USE_TOKEN", "1")
    assert is_secret("PASSWORD", "$ecret-of-dollars")


@pytest.mark.parametrize("depth", [100, 900, 100_000])
def test_masked_text_takes_json_of_any_depth(depth):
    """Text that is too deep to be looked through is not shown."""
    text = "[" * depth + '{"password": "hunter2"}' + "]" * depth
    list(secret_texts({"DATA": text}))
    assert depth == 100_000 or "hunter2" not in masked_text(text)


def test_masked_words_names_variables_for_secrets():
    """After an option, behind an equals sign, in a URL, and where a known secret stands."""
    words = ["--db-password", "hunter2", "--api-key=abc", "--url", "redis://:pw123@host", "x-open-sesame", "y"]
    assert masked_words(words, Secrets({"open-sesame": "TOKEN"}), as_variable) == [
        "--db-password", "${env:DB_PASSWORD}", "--api-key=${env:API_KEY}", "--url", "redis://:${env:URL_SECRET}@host",
        "x-${env:TOKEN}", "y",
    ]  # fmt: skip


def test_masked_env_writes_a_secret_variable_as_a_whole():
    """The name of the variable is that of the secret; its value in another variable as well."""
    env = {"TOKEN": "open-sesame", "URL": "redis://:pw123@host", "COPY": "x open-sesame", "N": "1"}
    assert masked_env(env, as_variable) == {
        "TOKEN": "${env:TOKEN}",
        "URL": "${env:URL}",
        "COPY": "x ${env:TOKEN}",
        "N": "1",
    }


def test_masked_data_reads_lists_as_words():
    """A list of arguments may hold an option and its value."""
    data = {"args": ["--password", "hunter2", 3, {"token": "x", "n": None}], "of": ("a",)}
    assert masked_data(data) == {"args": ["--password", "***", 3, {"token": "***", "n": None}], "of": ["a"]}


def test_exposed_names_parameters_and_lines_and_shows_no_value():
    """With the way to pass them."""
    reported = list(
        exposed(
            {"password": "hunter2", "n": 3, "use_token": True, "dsn": {"url": "redis://:hunter2@h"}},
            ["fit", "--api-key=hunter2"],
            {"db_pass": ["hunter2"]},
            {"setup": ["module load x", "export HF_TOKEN=hunter2", 'export OTHER_TOKEN="$(cat t)"']},
        )
    )
    assert [line.partition(" looks like a secret")[0] for line in reported] == [
        "parameter 'password'", "parameter 'dsn'", "argument 'db_pass'", "a value in args", "line 2 of setup",
    ]  # fmt: skip
    assert "as env={'HF_TOKEN': …} or in secret_env of the connection, and read $HF_TOKEN" in reported[-1]
    assert "hunter2" not in json.dumps(reported)


@pytest.mark.parametrize("value", ["{{ conn.db.password }}", None, True, 7, ""])
def test_exposed_leaves_values_that_are_no_secret(value):
    """A template, a flag and a number expose nothing."""
    assert list(exposed({"password": value}, (), {}, {"setup": "export TOKEN=$X"})) == []


def test_secret_texts_looks_through_long_text_in_linear_time() -> None:
    """Text like the beginnings of tokens, all of which are one word."""

    def look_through(count: int) -> None:
        assert secret_texts({}, ["eyJaaaaaaaa-" * count]) == {}

    assert growth(look_through, 50_000) <= LINEAR


@pytest.mark.parametrize("value", ["password=", "password=$x,", "password={{"])
def test_secret_texts_looks_through_nested_assignments_in_linear_time(value) -> None:
    """The rest of the text is the value of the first assignment, and of the second one, and so on."""

    def look_through(count: int) -> None:
        secret_texts({}, [f"x {value * count}"])

    assert growth(look_through, 2_000) <= LINEAR


def test_masked_text_masks_assignment_in_quoted_secret() -> None:
    """A value in quotation marks is a secret as a whole, and a value that it assigns is one as well."""
    assert secret_texts({}, ["x PASSWORD='curl --token hunter22'"]) == {
        "curl --token hunter22": "PASSWORD",
        "hunter22": "TOKEN",
    }
