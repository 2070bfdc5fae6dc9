"""The verb `generate`: text from a run of a language model."""

from jaxdl import config as configs
from jaxdl.console import say
from jaxdl.errors import UserError
from jaxdl.run.restore import Run, restore
from jaxdl.text.generation import Options, encode, go_on


def generate(run: Run, prompt: str, options: Options) -> str:
    """Text that a run's language model writes after a prompt, prompt included.

    Raises:
      UserError: the run is none of a language model, or the prompt is not of its characters.
    """
    task, saved, known = restore(run)
    decoder = task.predict.decoder
    if decoder is None or decoder.translates or known.tokenizer is None:
        name = configs.experiment_name(run.config)
        raise UserError(
            f"{run.folder} is a run of {name}, whose model goes on from no prompt: name a run of a "
            "language model"
        )
    encode(prompt, known)
    say(f"checkpoint of step {saved.step}")
    return go_on(task, saved.state, known, prompt, options)
