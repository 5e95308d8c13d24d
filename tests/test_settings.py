"""Settings: every mistake in penstock.toml is one clear error, and no secret is in it."""

import os
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest

from penstock.core.codes import CODES
from penstock.core.errors import SettingsError
from penstock.core.toml_lines import Places, lines_of
from penstock.settings import CHOICES, DOCS, KINDS, RANGES, Settings, load_settings, parse_settings

SECRET = "canary-secret-7f3a"


def refused(raw: dict[str, Any]) -> SettingsError:
    with pytest.raises(SettingsError) as failed:
        parse_settings(raw)
    error = failed.value
    assert error.code in CODES
    assert error.fix
    assert error.where
    assert SECRET not in str(error)
    return error


def names(struct: type[msgspec.Struct], prefix: str = "") -> list[str]:
    """Every dotted name of the tree, as DOCS and CHOICES write them."""
    found = []
    for field in msgspec.structs.fields(struct):
        kind, name = field.type, f"{prefix}{field.name}"
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            found += names(kind, f"{name}.")
            continue
        inner = get_args(kind)[1] if get_origin(kind) is dict else None
        found.append(name)
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            found += names(inner, f"{name}.*.")
    return found


def test_every_setting_is_described_and_nothing_else() -> None:
    assert sorted(DOCS) == sorted(names(Settings))
    assert all(
        (text.endswith(".") and text[0].isupper()) or text[0] == "`" for text in DOCS.values()
    )
    assert set(CHOICES) | set(RANGES) <= set(DOCS)


def test_every_default_is_within_choices_and_ranges() -> None:
    assert parse_settings({}) == Settings()
    assert parse_settings({"sources": {"web": {}}}).sources["web"].kind == "browser"


@pytest.mark.parametrize(
    ("raw", "place", "fix"),
    [
        ({"projct": {}}, "projct", "did you mean `project`?"),
        ({"server": {"prot": 1}}, "server.prot", "did you mean `server.port`?"),
        ({"sources": {"web": {"write_kye": SECRET}}}, "sources.web.write_kye",
         "did you mean `sources.web.write_key`?"),
        ({"esp": {"zzz": SECRET}}, "esp.zzz", "known are kind"),
        ({"": 1}, "``", "remove it"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest(raw: dict[str, Any], place: str, fix: str) -> None:
    error = refused(raw)
    assert error.code == "E202"
    assert place in error.what
    assert fix in error.fix


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        ({"server": {"port": SECRET}}, "server.port"),
        ({"server": {"read_keys": SECRET}}, "server.read_keys"),
        ({"server": {"read_keys": [SECRET, 7]}}, "server.read_keys[1]"),
        ({"server": SECRET}, "server"),
        ({"sources": SECRET}, "sources"),
        ({"sources": {"web": SECRET}}, "sources[...]"),
        ({"sources": {"web": {"write_key": 17, "kind": SECRET}}}, "sources[...].write_key"),
        ({"esp": {"password": 12345}}, "esp.password"),
        ({"consent": {"categories": {"C1": SECRET}}}, "consent.categories[...]"),
        ({"decision": {"holdout_share": SECRET}}, "decision.holdout_share"),
        ({"data_dir": 1}, "data_dir"),
    ],
)
def test_a_wrong_type_names_its_place_and_not_its_value(raw: dict[str, Any], place: str) -> None:
    error = refused(raw)
    assert error.code == "E203"
    assert f"$.{place}`" in error.what


def test_secrets_may_stand_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(
        '[server]\nread_keys = ["plain", "env:T_READ"]\nadmin_key = "env:T_ADMIN"\n'
        '[sources.web]\nwrite_key = "env:T_WRITE"\nidentity_keys = { k1 = "env:T_TOKEN" }\n'
        '[esp]\nusername = "env:T_USER"\npassword = "env:T_PASSWORD"\nhost = "env:T_READ"\n'
    )
    for name in ("READ", "ADMIN", "WRITE", "TOKEN", "USER", "PASSWORD"):
        monkeypatch.setenv(f"T_{name}", f"{name} {SECRET}")

    settings = load_settings(file)

    web = settings.sources["web"]
    assert settings.server.read_keys == ["plain", f"READ {SECRET}"]
    assert settings.server.admin_key == f"ADMIN {SECRET}"
    assert (web.write_key, web.identity_keys) == (f"WRITE {SECRET}", {"k1": f"TOKEN {SECRET}"})
    assert (settings.esp.username, settings.esp.password) == (f"USER {SECRET}", f"PASSWORD {SECRET}")  # fmt: skip
    assert settings.esp.host == "env:T_READ", "what is no secret is as it is written"


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ('[server]\nport = 1\nadmin_key = "env:T_NONE"\n', "server.admin_key", 3),
        ('[server]\nread_keys = ["a", "env:T_NONE"]\n', "server.read_keys", 2),
        ('[sources.web]\nwrite_key = "env:T_EMPTY"\n', "sources.web.write_key", 2),
        ('[esp]\npassword = "env:"\n', "esp.password", 2),
    ],
)
def test_a_secret_that_the_environment_lacks_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str, line: int
) -> None:
    monkeypatch.setenv("T_EMPTY", "")
    monkeypatch.delenv("T_NONE", raising=False)
    file = tmp_path / "penstock.toml"
    file.write_text(text)

    with pytest.raises(SettingsError) as failed:
        load_settings(file)

    assert failed.value.code == "E217"
    assert f"`{name}`" in failed.value.what
    assert failed.value.where.endswith(f":{line}")


@pytest.mark.parametrize("dotted", CHOICES)
def test_a_value_that_is_no_choice_lists_the_choices(dotted: str) -> None:
    error = refused(nested(dotted, SECRET))
    assert error.code == "E204"
    assert dotted.replace("*", "web") in error.what
    assert all(choice in error.fix for choice in CHOICES[dotted])
    for choice in CHOICES[dotted]:
        # What a choice needs besides: a feed's formats a registry.
        parse_settings({"registry": {"url": "http://127.0.0.1:8080"}} | nested(dotted, choice))


@pytest.mark.parametrize("dotted", KINDS)
def test_an_adapter_that_does_not_exist_is_refused_when_settings_load(dotted: str) -> None:
    error = refused(nested(dotted, SECRET))
    assert error.code == "E206"
    assert dotted in error.what
    assert all(kind in error.fix for kind in KINDS[dotted])
    for kind in KINDS[dotted]:
        parse_settings(nested(dotted, kind))


@pytest.mark.parametrize(
    ("dotted", "said", "meant"),
    [("esp.kind", "foldr", ""), ("esp.kind", "smpt", "smtp"), ("esp.kind", "directry", "directory"),
     ("log.kind", "sqllite", "sqlite"), ("store.kind", "memry", "memory"), ("esp.tls", "startls", "starttls")],
)  # fmt: skip
def test_a_choice_misspelt_is_told_with_the_one_that_was_meant(
    dotted: str, said: str, meant: str
) -> None:
    assert (f"did you mean `{meant}`?" in refused(nested(dotted, said)).fix) == bool(meant)


@pytest.mark.parametrize("dotted", RANGES)
def test_a_value_out_of_its_range_names_the_range(dotted: str) -> None:
    least, most = RANGES[dotted]
    for value in (least - 1, most + 1):
        error = refused(nested(dotted, value))
        assert error.code == "E207"
        assert dotted.replace("*", "web") in error.what
        assert str(least) in error.fix
    for value in (least, most):
        parse_settings(nested(dotted, value))


def nested(dotted: str, value: Any) -> dict[str, Any]:
    head, _, rest = dotted.replace("*", "web").partition(".")
    return {head: nested(rest, value)} if rest else {head: value}


def test_two_sources_may_not_share_a_key() -> None:
    both = {name: {"write_key": SECRET} for name in ("web", "app")}
    assert refused({"sources": both}).code == "E205"
    # A source without a key is for files and may be many.
    parse_settings({"sources": {"crm": {}, "files": {}}})


def write(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("raw", "code", "what"),
    [
        (b"[server\nport = 1", "E201", "line 1"),
        (b"[server]\nport = 1\nport = 2\n", "E201", "line 3"),
        (b"[a]\nx = 1\n[a]\n", "E201", "line 3"),
        (b'password = "' + SECRET.encode(), "E201", "penstock.toml is not TOML"),
        (b"\xff\xfe\x00", "E201", "not UTF-8 text, from byte 0"),
    ],
)
def test_a_file_that_is_no_toml_says_where(
    tmp_path: Path, raw: bytes, code: str, what: str
) -> None:
    with pytest.raises(SettingsError) as failed:
        load_settings(write(tmp_path / "penstock.toml", raw))
    assert failed.value.code == code
    assert what in failed.value.what
    assert failed.value.where.endswith("penstock.toml")
    assert SECRET not in str(failed.value)


def test_a_file_that_is_missing_or_no_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as missing:
        load_settings(tmp_path / "penstock.toml")
    assert (missing.value.code, missing.value.fix[:13]) == ("E200", "run `penstock")
    (tmp_path / "penstock.toml").mkdir()
    with pytest.raises(SettingsError) as folder:
        load_settings(tmp_path / "penstock.toml")
    assert folder.value.code == "E201"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "penstock.toml", b"")
    path.chmod(0)
    with pytest.raises(SettingsError) as failed:
        load_settings(path)
    assert failed.value.code == "E201"


LINES = """# a project
data_dir = "data"
[project]
name = "x"

[server]
  read_keys = [
    "one", # and a [bracket]
    "two",
  ]
port = 8_080
[email]
caps = { marketing = "3 in 7 days", "a.b" = "1 in 1 days" }
sender_name = '''
[not.a.table]
x = 1'''
consent.regime = "opt_in"
[sources."my.shop"]
rank = 1
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (["data_dir"], 2),
        (["project"], 3),
        (["project", "name"], 4),
        (["server", "read_keys"], 7),
        (["server", "port"], 11),
        (["email", "caps", "marketing"], 13),
        (["email", "caps", "a.b"], 13),
        (["email", "sender_name"], 14),
        (["email", "consent", "regime"], 17),
        (["sources", "my.shop", "rank"], 19),
        (["sources", "my.shop", "kind"], 18),
        (["email", "reply_to"], 12),
    ],
)
def test_a_key_is_found_on_its_line(path: list[str], line: int) -> None:
    assert Places("f", lines_of(LINES)).of(*path) == f"f:{line}"


def test_what_is_not_there_is_in_the_file() -> None:
    assert Places("f", lines_of(LINES)).of("nothing") == "f"


@pytest.mark.parametrize(
    ("text", "code", "word", "fix"),
    [
        ('gpc_denies = ["advertizing"]', "E252", "advertizing", "advertising"),
        ('gpc_denies = [\n"marketing"]', "E252", "marketing", ""),
        ('categories = { C1 = ["personalization"] }', "E252", "personalization", "personalisation"),
        ('purposes = ["insights"]\ncategories = { C1 = ["insight"] }', "E252", "insight", "insights"),
        ('[sources.crm]\nbasis = { measurements = "contract" }', "E252", "measurements", "measurement"),
        ('[sources.crm]\nbasis = { measurement = "legitimate_interests" }', "E251",
         "legitimate_interests", "legitimate_interest"),
        ('[sources.crm.basis]\nmeasurement = "because"', "E251", "because", ""),
    ],
)  # fmt: skip
def test_a_purpose_or_basis_that_is_none_is_named(
    tmp_path: Path, text: str, code: str, word: str, fix: str
) -> None:
    path = tmp_path / "penstock.toml"
    path.write_text(f"[consent]\n{text}\n")
    with pytest.raises(SettingsError) as failed:
        load_settings(path)
    error = failed.value
    assert (error.code, error.code in CODES) == (code, True)
    assert f"`{word}`" in error.what
    assert (f"did you mean `{fix}`?" in error.fix) == bool(fix)
    line = 2 if text.startswith("gpc") else 2 + text.count("\n")
    assert error.where == f"{path}:{line}"


def test_a_purpose_of_ones_own_is_declared() -> None:
    parse_settings(
        {"consent": {"purposes": ["insight"], "gpc_denies": ["insight"], "categories": {"C1": ["insight"]}},
         "sources": {"crm": {"basis": {"insight": "consent"}}}}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("[server]\nport = 1\nprot = 1\n", "E202", 3),
        ('\n[server]\nport = "x"\n', "E203", 3),
        ('[sources.a]\n[sources.b]\nkind = "server"\nrank = "x"\n', "E203", 4),
        ('[log]\n[consent]\nregime = "maybe"\n', "E204", 3),
        ('[sources.a]\nwrite_key = "k"\n[sources.b]\nwrite_key = "k"\n', "E205", 4),
        ("[server]\nhost = 'x'\nport = 70_000\n", "E207", 3),
        ('[server]\npublic_url = "mail.shop.example"\n', "E261", 2),
        ('[server]\npublic_url = "ftp://mail.shop.example"\n', "E261", 2),
        ('[server]\npublic_url = "https://"\n', "E261", 2),
        ('[server]\npublic_url = "https://shop.example:port"\n', "E261", 2),
        ('[server]\npublic_url = "https://shop.example/?a=1"\n', "E261", 2),
        ('[email]\nsender = "shop"\n', "E260", 2),
        ('[email]\nsender_name = "a<b"\n', "E260", 2),
        ('[email]\nreply_to = "us"\n', "E260", 2),
        ('[email]\ntopics = []\nseeds = ["qa@shop.example", "qa"]\n', "E260", 3),
    ],
)
def test_a_wrong_setting_is_named_by_its_line(
    tmp_path: Path, text: str, code: str, line: int
) -> None:
    path = tmp_path / "penstock.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as failed:
        load_settings(path)
    assert (failed.value.code, failed.value.where) == (code, f"{path}:{line}")
