"""The `scanline` command: finds the module of the command that was named, reads its options, runs it.

Only that module is imported, so that a command needs no other's packages. A command's module has a `Settings` class
(scanline.settings) and a function `run(settings) -> exit code`; where the command needs an extra, a module `settings`
beside it, which does not, has the class. Exit codes: 0 done, 1 the work failed, 2 wrong use or configuration, 3 the
server could not start, 130 and 143 ended by Ctrl-C and by SIGTERM.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from scanline import streams
from scanline.errors import MissingExtraError, ScanlineError, UsageError


@dataclass(frozen=True, slots=True)
class Command:
    """A command: where it lives, what it is for, and the extra that it needs."""

    module: str
    summary: str
    extra: str | None = None


COMMANDS: Final = {
    "demo": Command("scanline.commands.demo", "serve the shipped model and read sample images through it"),
    "classify": Command("scanline.commands.classify", "read the digits in image files"),
    "score": Command("scanline.commands.score", "read folders of image files into a table"),
    "preprocess": Command("scanline.commands.preprocess", "show what the network sees of an image file"),
    "serve": Command("serve.command", "answer over gRPC"),
    "health": Command("scanline.commands.health", "ask a server whether it is serving"),
    "info": Command("scanline.commands.info", "show a model's card"),
    "verify": Command("scanline.commands.verify", "prove that this machine computes a model's right numbers"),
    "train": Command("train.command", "fit a network", extra="train"),
    "export": Command("export.command", "turn a checkpoint into verified ONNX files", extra="export"),
}
# What each extra brings, by the name it is imported under: a missing one is told apart from a broken import.
EXTRA_MODULES: Final = {
    "train": {"torch", "safetensors", "sklearn", "matplotlib"},
    "export": {"torch", "safetensors", "sklearn", "onnx", "matplotlib"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give its exit code.

    Args:
        arguments: the command line without the program's name; None for the process's own.
    """
    # gRPC's C core writes lines of its own to stderr; what matters of them reaches us as errors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    streams.prepare()
    try:
        try:
            return _run(given)
        finally:
            sys.stdout.flush()  # here, where it can still be said that it can't be printed
    except ScanlineError as error:
        from scanline import console

        console.error(str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone (`scanline ... | head`)
        streams.drop(sys.stdout)
        return 1
    except OSError as error:  # a model without the right to read it, a full disk
        from scanline import console

        # the one file that is missing without a name is the working folder, when its name is asked for
        what = error.filename or ("the working folder" if isinstance(error, FileNotFoundError) else None)
        console.error(f"{what}: {error.strerror}" if what else str(error.strerror))
        streams.drop(sys.stdout)
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    finally:
        streams.settle_errors()


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["help"] and len(arguments) > 1:
        return _run([arguments[1], "--help", *arguments[2:]])
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        _help()
        return 0 if arguments else UsageError.exit_code
    if arguments[0] == "--version":
        from scanline import __version__

        sys.stdout.write(f"scanline {__version__}\n")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise UsageError(f"no such command: {name}; there are {', '.join(COMMANDS)}")
    settings = _settings(name)
    if settings is None:  # `health` is called every few seconds: it does without the settings model
        return int(_load(name).run(rest))

    from scanline.settings import parse

    _check_environment(settings)
    given = parse(settings, name, rest)  # ends here for --help, which so needs no extra
    return int(_load(name).run(given))


def _settings(name: str) -> Any:
    """Give a command's options, or None where it has no settings model, without importing the command's extra."""
    command = COMMANDS[name]
    module = import_module(command.module.removesuffix("command") + "settings" if command.extra else command.module)
    return getattr(module, "Settings", None)


def _load(name: str) -> Any:
    command = COMMANDS[name]
    try:
        return import_module(command.module)
    except ModuleNotFoundError as error:
        if command.extra is None or error.name not in EXTRA_MODULES[command.extra]:
            raise
        raise MissingExtraError(f"`scanline {name}`", command.extra, error.name or "") from None


def _check_environment(settings: Any) -> None:
    from scanline.settings import ENVIRONMENT_PREFIX, refuse_unknown

    known = settings.variables()
    if all(name in known for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)):
        return
    for name in COMMANDS:  # another command's variable is no mistake
        other = _settings(name)
        known = known | (other.variables() if other else set())
    refuse_unknown(os.environ, known, settings)


def _help() -> None:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    sys.stdout.write("usage: scanline COMMAND [OPTION ...]\n\n" + "\n".join(lines))
    sys.stdout.write("\n\n`scanline COMMAND --help` lists a command's options.\n")
