"""From the command line to a config, and from an exception to an exit status. Flags live here."""

import argparse
import contextlib
import inspect
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from absl import logging

from jaxdl.console import say
from jaxdl.errors import TrainingError, UserError, first_line
from jaxdl.flags import Config, flags_help, parse_flags
from jaxdl.signals import Stopped, prompt

# Scatters and reductions in one order; no choice of kernels by timing them, for it is another in
# each process.
DETERMINISTIC = "--xla_gpu_exclude_nondeterministic_ops=true --xla_gpu_autotune_level=0"
LONGEST_ERROR = 1000  # characters


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything here does."""

    def error(self, message: str) -> NoReturn:
        """Raises what the command line's guard turns into status 2."""
        raise UserError(f"{message} ({self.prog} --help)")


def main(run: Callable[[Config], dict[str, float]], config_class: type[Config]) -> None:
    """Runs an experiment from the command line: flags in, the summary's figures out, then exits."""

    def command() -> None:
        config = parse_flags(config_class, sys.argv[1:])
        if config is None:
            doc = inspect.getdoc(sys.modules[config_class.__module__]) or ""
            print(f"{doc}\n\n{flags_help(config_class)}")
            return
        # They import jax, as experiments do, but `jaxdl --help` need not.
        from jaxdl.distributed import collectives, watchdog
        from jaxdl.run import workdir

        if watchdog.several(config):
            _python_alone()
        else:  # of several the first looks, when they have met
            workdir.refuse_if_used(config)
        set_up_jax(config.deterministic)
        watchdog.join(config)
        check_devices()
        silent = contextlib.nullcontext() if collectives.is_host0() else _silence()
        with watchdog.watched(config), silent:
            for name, value in run(config).items():
                print(f"{name} = {value:.6g}" if isinstance(value, float) else f"{name} = {value}")

    status = guard(command)
    if status and "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        sys.stdout.flush()
        os._exit(status)  # else JAX waits for the others, and then ends in the middle of C++
    # All is said and done, and it ends anyway. Python would undo another handler at its end.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


def _python_alone() -> None:
    """From here on Python alone prints to stdout, and nothing of what libraries print in C is seen.

    Such as what carries sums between processes on CPUs, which tells each connection.
    """
    sys.stdout.flush()
    ours = os.dup(1)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    was = sys.stdout
    sys.stdout = open(ours, "w", encoding=was.encoding, errors=was.errors)  # noqa: SIM115


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Within it nothing is printed: of several processes the first speaks for all."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def set_up_jax(deterministic: bool = False) -> None:
    """Keeps compiled programs across processes (a second start of a run begins in seconds).

    Args:
      deterministic: whether a GPU may use only operations that give the same bits each time. A
        CPU and a TPU have no others.

    Raises:
      UserError: there is no home folder to keep them in.
    """
    import jax

    from jaxdl import compilation_cache
    from jaxdl.data import cache

    if deterministic:  # read when the first device is asked for
        known = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{known} {DETERMINISTIC}".strip()

    directory = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if directory != "":  # with which JAX turns its cache off
        compilation_cache.enable(directory or str(cache.folder() / "xla"))
    # From a thread of its own, a call would take its memory where `memory.keep` cannot keep it.
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def check_devices() -> None:
    """Asks JAX for its devices; of several processes, when they have met.

    Raises:
      UserError: there are none of the kind that JAX_PLATFORMS names, or of any.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        named = os.environ.get("JAX_PLATFORMS", "")
        why = f" ({first_line(error)})" if str(error) else ""
        raise UserError(
            f"JAX_PLATFORMS={named}: JAX finds no such device{why}: unset it to take what is "
            "there, write it in lower case, or install the JAX that knows it (the README's extras)"
        ) from error


def guard(command: Callable[[], None]) -> int:
    """Calls `command` and returns its exit status: 0, 1, 2, 129, 130 or 143 (see the README)."""
    # Orbax logs some 45 lines a save, and TFDS its doubts; what goes wrong is raised all the same.
    logging.set_verbosity(logging.FATAL)
    _open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a locale may lack letters of what is printed
        sys.stdout.reconfigure(errors="backslashreplace")
    status = _status(command)
    return _flushed() or status


def _status(command: Callable[[], None]) -> int:
    """Calls `command`; returns its exit status."""
    try:
        with prompt():
            command()
        return 0
    except UserError as error:
        return _fail(error, 2)
    except TrainingError as error:
        return _fail(error, 1)
    except Stopped as stop:
        say(str(stop))
        return stop.status
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        _to_nowhere(sys.stdout)
        return 0
    except OSError as error:
        if error.filename is None and not _takes_more():
            return _not_printed(error)
        raise


def _open_standard_streams() -> None:
    """Opens those that are closed (`2>&-`) on nothing.

    Else the next file that is opened takes their number, and what libraries print goes into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            mode = os.O_WRONLY if number else os.O_RDONLY
            os.open(os.devnull, mode)  # takes the smallest number that is free: this one
        if getattr(sys, name) is None:
            kind = "w" if number else "r"
            stream = open(number, kind, closefd=False, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)


def _flushed() -> int:
    """Writes out what was printed; returns the exit status."""
    status = 0
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _to_nowhere(sys.stdout)
    except OSError as error:
        status = _not_printed(error)
    try:
        sys.stderr.flush()
    except OSError:  # else Python would fail with it at its end
        _to_nowhere(sys.stderr)
    return status


def _takes_more() -> bool:
    """True if standard output can be written."""
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except OSError as error:
        return error.errno is None  # it is none of the system's, and takes all
    return True


def _not_printed(error: OSError) -> int:
    _to_nowhere(sys.stdout)
    return _fail(TrainingError(f"standard output cannot be written ({error.strerror})"), 1)


def _to_nowhere(stream: Any) -> None:
    """Lets a stream that cannot be written end in nothing, with what it still holds."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _fail(error: Exception, status: int) -> int:
    text = str(error)
    if len(text) > LONGEST_ERROR:  # a value of a stranger's file: the way out stands at the end
        text = f"{text[: LONGEST_ERROR // 2]} ... {text[-LONGEST_ERROR // 2 :]}"
    say(f"error: {text}")
    return status
