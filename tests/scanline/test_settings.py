"""Options: one declaration, read from flags, from the environment, from the default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from scanline.errors import UsageError
from scanline.settings import POSITIONAL, Settings, parse, refuse_unknown


class Options(Settings):
    """Do a thing."""

    model_config = SettingsConfigDict(env_prefix="SCANLINE_THING_")

    files: list[Path] = Field(description="files", json_schema_extra={POSITIONAL: True})
    count: int = Field(3, ge=1, description="how many")
    manner: Literal["fast", "slow"] = Field("fast", description="how")
    place: Path | None = Field(None, validation_alias="SCANLINE_PLACE", description="where")
    data: list[str] = Field(["a"], description="what")
    quiet: bool = Field(False, description="say less")


def test_a_flag_beats_the_variable_and_the_variable_beats_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(Options, "thing", ["f"]).count == 3
    monkeypatch.setenv("SCANLINE_THING_COUNT", "4")
    assert parse(Options, "thing", ["f"]).count == 4
    assert parse(Options, "thing", ["f", "--count", "5"]).count == 5


def test_a_field_can_have_a_variable_of_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANLINE_PLACE", "/there")
    assert parse(Options, "thing", ["f"]).place == Path("/there")
    assert parse(Options, "thing", ["f", "--place", "/here"]).place == Path("/here")


def test_lists_are_repeated_flags_and_take_any_name() -> None:
    options = parse(Options, "thing", ["a,b.png", "[c].png", "--data", "x,y", "--data", "z"])
    assert options.files == [Path("a,b.png"), Path("[c].png")]
    assert options.data == ["x,y", "z"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["f", "--count", "0"], "--count should be greater than or equal to 1, not '0'"),
        (
            ["f", "--count", "many"],
            "--count should be a valid integer, not 'many'",
        ),
        (["f", "--manner", "odd"], "--manner should be 'fast' or 'slow', not 'odd'"),
        (["f", "--cuont", "1"], "unrecognized arguments: --cuont 1"),
        (["f", "--coun", "1"], "unrecognized arguments: --coun 1"),
        ([], "the following arguments are required: FILE"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(Options, "thing", arguments)
    assert message in str(error.value)


def test_a_wrong_variable_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANLINE_THING_COUNT", "none")
    with pytest.raises(UsageError, match="SCANLINE_THING_COUNT should be a valid integer"):
        parse(Options, "thing", ["f"])


@pytest.mark.parametrize(("value", "data"), [("a,b", ["a,b"]), ('["a", "b"]', ["a", "b"]), ("[]", [])])
def test_a_variable_of_several_values_is_one_of_them_or_a_json_list(
    monkeypatch: pytest.MonkeyPatch, value: str, data: list[str]
) -> None:
    monkeypatch.setenv("SCANLINE_THING_DATA", value)
    assert parse(Options, "thing", ["f"]).data == data
    assert parse(Options, "thing", ["f", "--data", "[c"]).data == ["[c"]


@pytest.mark.parametrize("value", ['["a"', "[1]"])
def test_a_broken_list_in_a_variable_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SCANLINE_THING_DATA", value)
    with pytest.raises(UsageError, match=r"SCANLINE_THING_DATA should be .*, not "):
        parse(Options, "thing", ["f"])


def test_help_names_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(Options, "thing", ["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--count N how many (default: 3; SCANLINE_THING_COUNT)" in text
    assert "--manner fast|slow how (default: fast; SCANLINE_THING_MANNER)" in text
    assert "--place PATH where (SCANLINE_PLACE)" in text
    assert "--quiet, --no-quiet" in text


def test_a_variable_that_nobody_reads_is_refused() -> None:
    refuse_unknown({"SCANLINE_PLACE": "x", "PATH": "x"}, Options.variables(), Options)
    with pytest.raises(UsageError, match=r"no such setting: SCANLINE_PLAEC; did you mean SCANLINE_PLACE\?"):
        refuse_unknown({"SCANLINE_PLAEC": "x", "PATH": "x"}, Options.variables(), Options)


def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_setting() -> None:
    port = {"SCANLINE_PORT": "tcp://10.0.0.1:50051", "SCANLINE_PORT_50051_TCP": "tcp://10.0.0.1:50051"}
    parts = {"PROTO": "tcp", "PORT": "50051", "ADDR": "10.0.0.1"}
    port |= {f"SCANLINE_PORT_50051_TCP_{name}": value for name, value in parts.items()}
    host = {"SCANLINE_SERVICE_HOST": "10.0.0.1", "SCANLINE_METRICS_SERVICE_HOST": "10.0.0.2"}
    host |= {"SCANLINE_SERVICE_PORT": "50051", "SCANLINE_SERVICE_PORT_GRPC": "50051"}
    refuse_unknown(host | port, Options.variables(), Options)
    with pytest.raises(UsageError, match="no such setting: SCANLINE_PORT"):
        refuse_unknown(host | {"SCANLINE_PORT": "50051"}, Options.variables(), Options)
