"""Entry point of experiments: parses flags, sets up JAX, turns exceptions into exit statuses."""

import contextlib
import inspect
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from absl import logging

from jaxdl.console import say
from jaxdl.errors import Paused, TrainingError, UserError, first_line
from jaxdl.flags import Config, flags_help, parse_flags
from jaxdl.signals import Stopped, prompt

# Fixes the order of scatters and reductions, and turns off autotuning: it selects kernels by
# timing them, so the selection differs between processes.
DETERMINISTIC = "--xla_gpu_exclude_nondeterministic_ops=true --xla_gpu_autotune_level=0"
LONGEST_ERROR = 1000  # characters


def main(run: Callable[[Config], dict[str, float]], config_class: type[Config]) -> None:
    """Runs an experiment from the command line, prints its final metrics, and exits.

    Args:
      run: the experiment, config -> values of its summary.
      config_class: the experiment's Config, whose fields are the flags.
    """
    status = guard(lambda: command(run, config_class, sys.argv[1:]))
    if status and "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        sys.stdout.flush()
        # A normal exit would make JAX wait for the other processes, then abort in C++.
        os._exit(status)
    leave(status)


def command(
    run: Callable[[Config], dict[str, float]], config_class: type[Config], arguments: list[str]
) -> None:
    """Runs an experiment once, and prints its final metrics.

    Args:
      run: the experiment, as for `main`.
      config_class: its Config.
      arguments: the command line, without the program's name.
    """
    config = parse_flags(config_class, arguments)
    if config is None:
        doc = inspect.getdoc(sys.modules[config_class.__module__]) or ""
        print(f"{doc}\n\n{flags_help(config_class)}")
        return
    # These modules import jax, which `jaxdl --help` does not need.
    from jaxdl.distributed import collectives, watchdog
    from jaxdl.run import workdir

    if watchdog.is_multiprocess(config):
        _mute_native_stdout()
    else:  # with several processes, host 0 checks the workdir after they have met
        workdir.refuse_if_used(config)
    set_up_jax(config.deterministic)
    watchdog.join(config)
    check_devices()
    output = contextlib.nullcontext() if collectives.is_host0() else _silence()
    with watchdog.watch(config), output:
        show(run(config))


def show(results: Mapping[str, Any]) -> None:
    """Prints the final metrics of a run."""
    for name, value in results.items():
        print(f"{name} = {value:.6g}" if isinstance(value, float) else f"{name} = {value}")


def leave(status: int) -> NoReturn:
    """Exits with a status that no later signal changes: the run is over."""
    # SIG_IGN stays until the process ends; Python would reset a handler of its own earlier, at its
    # shutdown.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


def _mute_native_stdout() -> None:
    """Sends what native libraries print to stdout to /dev/null; Python's stdout still works.

    Gloo, the CPU collectives, prints a line for each connection.
    """
    sys.stdout.flush()
    terminal = os.dup(1)
    with open(os.devnull, "w", encoding="utf-8") as devnull:
        os.dup2(devnull.fileno(), 1)
    old = sys.stdout
    sys.stdout = open(terminal, "w", encoding=old.encoding, errors=old.errors)  # noqa: SIM115


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Discards Python's output inside the block: of several processes only host 0 prints."""
    with (
        open(os.devnull, "w", encoding="utf-8") as devnull,
        contextlib.redirect_stdout(devnull),
        contextlib.redirect_stderr(devnull),
    ):
        yield


def set_up_jax(deterministic: bool = False) -> None:
    """Enables the persistent compilation cache, and deterministic GPU operations if requested.

    Args:
      deterministic: restrict a GPU to operations that give the same bits each time. CPUs and TPUs
        have no others.

    Raises:
      UserError: there is no home folder for the cache.
    """
    import jax

    from jaxdl import compilation_cache
    from jaxdl.data import cache

    xla_flags = os.environ.get("XLA_FLAGS", "")
    # XLA reads its flags when the first device is created.
    if deterministic and DETERMINISTIC not in xla_flags:
        os.environ["XLA_FLAGS"] = f"{xla_flags} {DETERMINISTIC}".strip()

    directory = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if directory != "":  # an empty value turns JAX's cache off
        compilation_cache.enable(directory or str(cache.folder() / "xla"))
    # An asynchronous CPU call would allocate in its own thread, which `memory.keep` cannot reach.
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def check_devices() -> None:
    """Creates JAX's devices; several processes must have met before.

    Raises:
      UserError: there is no device of the kind that JAX_PLATFORMS names, or of any kind.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        why = f" ({first_line(error)})" if str(error) else ""
        raise UserError(
            f"JAX_PLATFORMS={platforms}: JAX finds no such device{why}: unset it to use any device "
            "that is present, write it in lower case, or install JAX for this device (extras in "
            "the README)"
        ) from error


def guard(command: Callable[[], None]) -> int:
    """Calls `command`; returns its exit status: 0, 1, 2, 129, 130 or 143."""
    # Orbax logs some 45 lines per save, and TFDS its warnings. Errors are raised, so none is lost.
    logging.set_verbosity(logging.FATAL)
    _open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # the locale may not encode every character
        sys.stdout.reconfigure(errors="backslashreplace")
    status = _status(command)
    return _flush() or status


def _status(command: Callable[[], None]) -> int:
    """Calls `command`; returns its exit status, before its output is flushed."""
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
    except Paused as pause:
        say(str(pause))
        return 0
    except BrokenPipeError:  # the reader of our output (head, less) has closed it
        _discard(sys.stdout)
        return 0
    except OSError as error:
        if error.filename is None and not _is_stdout_writable():
            return _stdout_failed(error)
        raise


def _open_standard_streams() -> None:
    """Opens closed standard streams (`2>&-`) on /dev/null.

    Otherwise the next opened file gets their descriptor, and output of libraries goes into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            mode = os.O_WRONLY if number else os.O_RDONLY
            os.open(os.devnull, mode)  # gets the lowest free descriptor, which is `number`
        if getattr(sys, name) is None:
            kind = "w" if number else "r"
            stream = open(number, kind, closefd=False, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)


def _flush() -> int:
    """Flushes the standard streams; returns an exit status."""
    status = 0
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
    except OSError as error:
        status = _stdout_failed(error)
    try:
        sys.stderr.flush()
    except OSError:  # Python would fail on it at exit
        _discard(sys.stderr)
    return status


def _is_stdout_writable() -> bool:
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except OSError as error:
        return error.errno is None  # not a file of the system: it accepts everything
    return True


def _stdout_failed(error: OSError) -> int:
    _discard(sys.stdout)
    return _fail(TrainingError(f"standard output cannot be written ({error.strerror})"), 1)


def _discard(stream: Any) -> None:
    """Redirects a stream that cannot be written to /dev/null, with its buffered text."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)


def _fail(error: Exception, status: int) -> int:
    text = str(error)
    if len(text) > LONGEST_ERROR:  # a value from a file may be long; the remedy is at the end
        text = f"{text[: LONGEST_ERROR // 2]} ... {text[-LONGEST_ERROR // 2 :]}"
    say(f"error: {text}")
    return status
