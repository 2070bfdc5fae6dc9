"""The `generate` command: text from a run of a language model."""

from jaxdl import config as configs
from jaxdl.console import say
from jaxdl.errors import UserError
from jaxdl.run.restore import restore
from jaxdl.run.run_folder import Run
from jaxdl.text.generation import Options, encode, generate_text


def generate(run: Run, prompt: str, options: Options) -> str:
    """Generates text with the language model of a run.

    Args:
      run: an opened run.
      prompt: text to continue.
      options: length and sampling options.

    Returns:
      The prompt and its continuation.

    Raises:
      UserError: the run has no language model, or the prompt has unknown characters.
    """
    task, saved, spec = restore(run)
    decoder = task.predict.decoder
    if decoder is None or decoder.translates or spec.tokenizer is None:
        name = configs.experiment_name(run.config)
        raise UserError(
            f"{run.folder} is a run of {name}, whose model takes no prompt: name a run of a "
            "language model"
        )
    encode(prompt, spec)
    say(f"checkpoint of step {saved.step}")
    return generate_text(task, saved.state, spec, prompt, options)
