"""The `predict` command: answers of a run's model to images, tables, texts and arrays."""

import csv
import io
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl import files
from jaxdl.console import number, say, show
from jaxdl.errors import UserError, printable
from jaxdl.export import answers, input_files
from jaxdl.export.input_files import Item
from jaxdl.export.inputs import ARRAY, IMAGE, PROMPT, SERIES, SOURCE, describe, stack
from jaxdl.export.model import TrainedModel
from jaxdl.run.workdir import FILES

FORMATS = (".csv", ".json", ".npz")  # of --output
MOST_SAID = 20  # inputs without an answer that are named one by one
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # starts of a cell that a spreadsheet would compute


class Answered(NamedTuple):
    """Answers to a number of inputs.

    Attributes:
      names: names of the inputs that have an answer, N.
      answer: texts of a language model or translator, else result of `answers.answer`.
      errors: inputs without an answer.
      items: inputs that have an answer, without their values, unless they are texts.
    """

    names: list[str]
    answer: Any
    errors: list[Item]
    items: Sequence[Item] = ()


def predict(
    model: TrainedModel, names: Sequence[str], *, top_k: int, length: int, output: Path | None
) -> None:
    """Answers the inputs in files, and prints or writes the answers.

    An input that cannot be read is named on stderr; the others are answered before the command
    ends with exit status 2.

    Args:
      model: the trained model.
      names: files of inputs; `-` is the standard input, and so is an empty list.
      top_k: number of the likeliest classes to show.
      length: characters that a language model writes after each prompt.
      output: .csv, .json or .npz file to write; None: a table is printed.

    Raises:
      UserError: an input has no answer, or the output cannot be written.
    """
    if top_k < 1:
        raise UserError(f"--top_k={top_k}: give at least 1")
    _check_output(model, names, output)
    inputs = model.accepts
    if not names and inputs.form in (IMAGE, ARRAY):
        raise UserError(f"no files: name some, as the model takes {describe(inputs)}")
    items = input_files.read(names or [input_files.STDIN], inputs)
    if inputs.form in (PROMPT, SOURCE):
        answered = _write_texts(model, list(items), length)
    else:
        answered = _answer(model, items)
    if not answered.names:
        raise _unanswered(answered)
    for item in answered.errors[:MOST_SAID]:
        say(f"error: {item.value}")
    if output is None:
        _print(model, answered, top_k)
    else:
        _write(model, answered, top_k, output)
    if answered.errors:
        raise _unanswered(answered)


def _check_output(model: TrainedModel, names: Sequence[str], output: Path | None) -> None:
    """Checks the kind and the place of the output before any work is done.

    Raises:
      UserError: it is an input, a folder or in none, or has a form that these answers do not have.
    """
    is_text = model.accepts.form in (PROMPT, SOURCE)
    formats = FORMATS[:2] if is_text else FORMATS[2:] if model.kind == "images" else FORMATS
    if output is None:
        if model.kind == "images":
            raise UserError("the answers are images: give --output=FILE.npz")
        return
    if output.suffix not in formats or output.is_dir():
        raise UserError(f"--output={output}: name a file that ends in {' or '.join(formats)}")
    if not output.parent.is_dir():
        raise UserError(f"--output={output}: {output.parent} is not a folder: make it first")
    for path in map(Path, names):
        if output.exists() and path.exists() and output.samefile(path):
            raise UserError(f"--output={output} is the input {path}: name another file")
    if output.name in FILES and output.parent.resolve() == model.run.folder.resolve():
        raise UserError(f"--output={output} is a file of the run: name another file")


def _unanswered(answered: Answered) -> UserError:
    """Returns the error to end with."""
    count, total = len(answered.errors), len(answered.names) + len(answered.errors)
    if total == 1:
        return answered.errors[0].value
    first = "" if answered.names else f", the first one: {answered.errors[0].value}"
    return UserError(f"{count:,} of {total:,} inputs have no answer{first}")


def _answer(model: TrainedModel, items: Iterable[Item]) -> Answered:
    """Answers inputs in batches, so that only their answers are kept in memory."""
    answered, parts, errors = [], [], []
    items = iter(items)
    while chunk := list(itertools.islice(items, model.batch_size)):
        errors += [item for item in chunk if isinstance(item.value, Exception)]
        readable = [item for item in chunk if not isinstance(item.value, Exception)]
        if not readable:
            continue
        outputs = model.outputs(stack([item.value for item in readable]))
        finite = answers.finite(outputs)
        for item in itertools.compress(readable, ~finite):
            text = f"{item.where}: the answer is not a finite number: check for missing values"
            errors.append(item._replace(value=UserError(text)))
        answered += [item._replace(value=None) for item in itertools.compress(readable, finite)]
        parts.append(jax.tree.map(lambda x, finite=finite: x[finite], outputs))
    if not answered:
        return Answered([], None, errors)
    joined = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    names = [item.name for item in answered]
    return Answered(names, answers.answer(joined, model.kind, model.spec), errors, answered)


def _write_texts(model: TrainedModel, items: Sequence[Item], length: int) -> Answered:
    readable = [item for item in items if isinstance(item.value, str)]
    errors = [item for item in items if not isinstance(item.value, str)]
    texts = model.write([item.value for item in readable], length) if readable else []
    return Answered([item.name for item in readable], texts, errors)


def _columns(model: TrainedModel, answered: Answered, top_k: int) -> dict[str, list[Any]] | None:
    """Columns of the table of answers; None if it would have too many."""
    if model.accepts.form in (PROMPT, SOURCE):
        return {"input": answered.names, "text": answered.answer}
    if model.accepts.form == SERIES:
        is_forecast = model.accepts.is_forecast
        places = [(n, 0 if is_forecast else start, skip) for n, _, _, start, skip in answered.items]
        names = model.spec.columns
        return answers.to_series(answered.answer, places, names, "step" if is_forecast else "row")
    columns = answers.to_columns(answered.answer, model.kind, top_k)
    return None if columns is None else {"input": answered.names, **columns}


def _print(model: TrainedModel, answered: Answered, top_k: int) -> None:
    """Prints answers: a table; texts as one line each, with line breaks as they are in code."""
    if model.accepts.form in (PROMPT, SOURCE):
        for text in answered.answer:
            print(printable(text.replace("\n", "\\n")))
        return
    columns = _columns(model, answered, top_k)
    if columns is None:
        raise UserError("an answer has too many numbers for a table: give --output=FILE.npz")
    rows = zip(*columns.values(), strict=True)
    show(list(columns), [[_cell(value) for value in row] for row in rows])


def _cell(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _write(model: TrainedModel, answered: Answered, top_k: int, path: Path) -> None:
    """Writes answers to a file, atomically.

    Raises:
      UserError: it cannot be written, or has too many numbers for a table.
    """
    content = io.BytesIO()
    if path.suffix == ".npz":
        arrays = answers.to_arrays(answered.answer, model.kind)
        if model.accepts.form == SERIES and not model.accepts.is_forecast:
            arrays["start"] = np.asarray([item.start for item in answered.items], np.int32)
        np.savez(content, allow_pickle=False, input=np.asarray(answered.names, str), **arrays)
    else:
        columns = _columns(model, answered, top_k)
        if columns is None:
            raise UserError(
                f"--output={path}: an answer has too many numbers for a table: end it in .npz"
            )
        rows = list(zip(*columns.values(), strict=True))
        if path.suffix == ".json":
            records = [dict(zip(columns, row, strict=True)) for row in rows]
            content.write((json.dumps(records, indent=1) + "\n").encode())
        else:
            content.write(_to_csv(list(columns), rows).encode("utf-8", "surrogateescape"))
    try:
        with files.replacing(path) as file:
            file.write(content.getbuffer())
    except OSError as error:
        text = f"--output={path} cannot be written ({error.strerror}): give another place"
        raise UserError(text) from error


def _to_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Formats a table as CSV.

    A text that a spreadsheet would take for a formula gets a leading apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([
            f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
            for cell in row
        ])  # fmt: skip
    return text.getvalue()
