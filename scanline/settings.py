"""How a command's options are declared: once, as the fields of a frozen settings model.

A field is a flag (`max_images` is `--max-images`), an environment variable (`SCANLINE_MAX_IMAGES`) and a documented
default. A flag beats the variable, the variable beats the default. A SCANLINE_* variable that no command knows stops
the start, so that a misspelt one is never ignored.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar, get_args, get_origin

from pydantic import AfterValidator, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from scanline.errors import UsageError

ENVIRONMENT_PREFIX: Final = "SCANLINE_"
POSITIONAL: Final = "positional"
# What Kubernetes sets beside a Service called scanline, or scanline-metrics. SCANLINE_PORT=50051 would be a mistake.
SERVICE_LINK: Final = re.compile(
    r"SCANLINE_(\w+_)?(SERVICE_(HOST|PORT\w*)=.*|PORT=\w+://.*|PORT_\d+_[A-Z]+(_[A-Z]+)?=.*)"
)


def _no_file(path: Path) -> Path:
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise ValueError("is a file or lies in one; expected a folder")
    return path


OutputFolder = Annotated[Path, AfterValidator(_no_file)]  # there or still to be made


class Settings(BaseSettings):
    """The base of every command's options; a subclass's docstring is the command's help.

    A field with `json_schema_extra={POSITIONAL: True}` is a positional argument and takes no variable. A field with a
    `validation_alias` is read from the variable of that name instead. A field of several values takes one of them from
    its variable, or several as a JSON list.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _several(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str) or not _is_repeated(cls.model_fields[str(info.field_name)]):
            return value
        if not value.startswith("["):
            return [value]
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError('should be one value, or several as a JSON list such as ["a", "b"]') from None

    @classmethod
    def variables(cls) -> set[str]:
        """Name the environment variables that this command reads."""
        return {variable(cls, name) for name, field in cls.model_fields.items() if not _is_positional(field)}


S = TypeVar("S", bound=Settings)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def parse(settings: type[S], command: str, arguments: Sequence[str]) -> S:
    """Read a command's options from its arguments, the environment and the defaults.

    Args:
        settings: the command's options.
        command: its name, such as ``serve``.
        arguments: what follows the name on the command line.

    Raises:
        UsageError: naming the option and what it takes.
    """
    parser = _Parser(
        prog=f"scanline {command}",
        description=inspect.getdoc(settings),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, field in settings.model_fields.items():
        _add(parser, settings, name, field)
    try:
        flags = vars(parser.parse_args(arguments))
    except UsageError:  # options between files, perhaps; for those alone, since `-- -x.png` fails this way
        flags = vars(parser.parse_intermixed_args(arguments))
    try:
        return settings(**flags)
    except ValidationError as error:
        # a default that follows from other fields can't be made where one of these is wrong: that one is what to mend
        problems = [problem for problem in error.errors() if problem["type"] != "default_factory_not_called"]
        wrong = "; ".join(_explain(settings, problem, flags) for problem in problems)
        see = f"; see `{parser.prog} --help`" if any(problem["type"] == "missing" for problem in problems) else ""
        raise UsageError(f"{wrong}{see}") from None


def refuse_unknown(environment: Mapping[str, str], known: set[str], settings: type[Settings]) -> None:
    """Check the environment's SCANLINE_* names against those that the commands read.

    Args:
        environment: names and values.
        known: the variables of all commands.
        settings: the options of the command that runs.

    Raises:
        UsageError: naming each that no command knows.
    """
    unknown = sorted(
        name
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known and not SERVICE_LINK.fullmatch(f"{name}={value}")
    )
    if unknown:
        # Compared without what they all begin with, which would make any two alike. Who leaves out the command's name
        # means the command that runs: SCANLINE_SERVER is SCANLINE_CLASSIFY_SERVER there.
        own = settings.model_config["env_prefix"]
        spelt = {name.removeprefix(ENVIRONMENT_PREFIX): name for name in known}
        spelt |= {name.removeprefix(own): name for name in settings.variables()}
        tails = [name.removeprefix(ENVIRONMENT_PREFIX) for name in unknown]
        meant = sorted({spelt[match] for tail in tails for match in difflib.get_close_matches(tail, spelt, n=1)})
        hint = f"; did you mean {' or '.join(meant)}?" if meant else ";"
        raise UsageError(f"no such setting: {', '.join(unknown)}{hint} `scanline COMMAND --help` lists them")


def _is_positional(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and POSITIONAL in field.json_schema_extra


def _is_repeated(field: FieldInfo) -> bool:
    return get_origin(field.annotation) in {list, tuple}


def variable(settings: type[Settings], name: str) -> str:
    """Name the environment variable of a field."""
    alias = settings.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else f"{settings.model_config['env_prefix']}{name}".upper()


def _value(text: str) -> str:
    if not text:  # a variable of the shell that is not set; as a path it would be the working folder
        raise argparse.ArgumentTypeError("expected a value, not ''")
    return text


def _add(parser: argparse.ArgumentParser, settings: type[Settings], name: str, field: FieldInfo) -> None:
    kinds = {kind for kind in get_args(field.annotation) if kind is not type(None)} or {field.annotation}
    repeated = _is_repeated(field)
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": field.description}
    if field.annotation is not bool:
        options["type"] = _value
    if _is_positional(field):
        options |= {"nargs": "+" if repeated else None, "metavar": name.upper().removesuffix("S")}
        parser.add_argument(name, **options)
        return
    value = None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
    default = "required; " if field.is_required() else "" if value in (None, ()) else f"default: {_show(value)}; "
    options["help"] = f"{field.description} ({default}{variable(settings, name)})"
    if field.annotation is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif get_origin(field.annotation) is Literal:
        options["metavar"] = "|".join(str(value) for value in get_args(field.annotation))
    else:
        options["metavar"] = "N" if kinds & {int, float} else "PATH" if Path in kinds else "TEXT"
        options["action"] = "append" if repeated else "store"
    parser.add_argument(flag(name), dest=name, **options)


def given(settings: Settings, names: Sequence[str]) -> str:
    """Name fields as whoever set them may know them: by their flags, and by their variables where these are set."""
    variables = [found for name in names if (found := variable(type(settings), name)) in os.environ]
    return ", ".join([*map(flag, names), *variables])


def flag(name: str) -> str:
    """Name the flag of a field."""
    # a field whose name pydantic keeps for itself ends in an underscore, as Python names do: json_ is --json
    return f"--{name.rstrip('_').replace('_', '-')}"


def _show(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _explain(settings: type[Settings], problem: Any, flags: dict[str, Any]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else ""
    if name not in settings.model_fields:  # pydantic names an aliased field by its alias
        by_alias = {variable(settings, field): field for field in settings.model_fields}
        name = by_alias.get(name, name)
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if name not in settings.model_fields:
        return message
    option = name if _is_positional(settings.model_fields[name]) else flag(name)
    if problem["type"] == "missing":
        return f"{option} is missing"
    source = option if name in flags else variable(settings, name)
    expected = message.partition(", unable to")[0]  # pydantic goes on with how it tried
    return f"{source} {expected}, not {problem['input']!r}"
