"""Translation: flags, the task of predicting each next token, and what is measured at the end.

Shapes: B pairs, S source and T target positions, V tokens of a vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import buckets, files, losses, metrics
from jaxdl.config import absolute, flag
from jaxdl.data.batches import padded_batches, size
from jaxdl.errors import UserError
from jaxdl.progress import track
from jaxdl.supervised import Model, SupervisedConfig, TrainState, configured, evaluated
from jaxdl.task import Batch, Task
from jaxdl.text import decoding, pairs
from jaxdl.text.pairs import Pairs
from jaxdl.text.vocabulary import BEGIN, END, FIRST, PAD


@dataclasses.dataclass(frozen=True)
class TranslationConfig(SupervisedConfig):
    """Every model that turns one sequence into another."""

    dataset: str = flag(
        "multi30k",
        "English to German; files: --source_file and --target_file; embedded: the puzzle reverse",
        choices=("multi30k", "files", "embedded", *pairs.PUZZLES),
    )
    source_file: str = flag("", "with --dataset=files: one sentence a line, UTF-8", place=True)
    target_file: str = flag("", "line n is the translation of line n", place=True)
    vocabulary: int = flag(
        8000, "byte pairs, of both languages; puzzles have letters", low=260, high=10**6
    )
    length: int = flag(
        64, "most tokens of a sentence; longer ones are left out, or cut", low=4, high=4096
    )
    widths: int = flag(
        6,
        "widths that sentences are padded to: more waste less, and each is compiled",
        low=1,
        high=64,
    )
    label_smoothing: float = flag(0.1, "share of each label given to all tokens", low=0.0, high=1.0)
    beam: int = flag(5, "sequences that the search at the end follows", low=1, high=1000)
    length_penalty: float = flag(1.0, "of that search, see decoding.beam_search", low=0.0, high=9.0)

    def __post_init__(self) -> None:
        """Makes the files' paths absolute: a run is opened again from other folders.

        Raises:
          UserError: files are named but not asked for, or the other way round.
        """
        super().__post_init__()
        named = [bool(self.source_file), bool(self.target_file)]
        if named != [self.dataset == "files"] * 2:
            raise UserError(
                f"--dataset={self.dataset} with --source_file={self.source_file!r} and "
                f"--target_file={self.target_file!r}: --dataset=files takes both, others none"
            )
        for name in ("source_file", "target_file"):
            if getattr(self, name):
                object.__setattr__(self, name, absolute(getattr(self, name), name))


def load(config: TranslationConfig) -> Pairs:
    """The pairs that --dataset names."""
    size, length = config.vocabulary, config.length
    if config.dataset == "multi30k":
        return pairs.multi30k(config.data_dir, vocabulary=size, length=length)
    if config.dataset == "files":
        files = config.source_file, config.target_file
        return pairs.files(*files, vocabulary=size, length=length)
    return pairs.puzzle("reverse" if config.dataset == "embedded" else config.dataset)


def translate(config: TranslationConfig, model: Model, data: Pairs) -> Task:
    """The task of fitting a model ((source [B, S], target [B, T]) -> logits [B, T, V]) to pairs.

    The model is given the target up to each position (teacher forcing). Compiled for each width.
    """

    def preprocess(batch: Batch) -> dict[str, Any]:
        given, wanted = batch["target"][:, :-1], batch["target"][:, 1:]
        mask = batch["mask"][:, None] * (wanted != PAD)
        return {"inputs": (batch["source"], given), "wanted": wanted, "mask": mask}

    def loss(logits: jax.Array, batch: Batch) -> jax.Array:
        return losses.cross_entropy(logits, batch["wanted"], config.label_smoothing)

    def measure(logits: jax.Array, batch: Batch) -> metrics.Metrics:
        mask, correct = batch["mask"], metrics.correct(logits, batch["wanted"])
        nats = metrics.mean(losses.cross_entropy(logits, batch["wanted"]), mask)
        # Every token right, given those before it: then greedy search finds the whole.
        whole = jnp.all((correct > 0) | (mask == 0), axis=1).astype(jnp.float32)
        return {
            "accuracy": metrics.mean(correct, mask),
            "exact": metrics.mean(whole, jnp.max(mask, axis=1)),
            "perplexity": metrics.Exponential(*nats),
        }

    task = configured(
        config,
        model,
        data,
        loss=loss,
        measure=measure,
        preprocess=preprocess,
        inputs="inputs",
    )
    return buckets.bucketed(task, buckets.of(data, config.widths), ("source", "target"))


def search(config: TranslationConfig, model: Any, variables: Any, split: Any) -> np.ndarray:
    """The best translation of each source that a beam finds: int32 [N, L], PAD after its end."""

    @functools.partial(jax.jit, static_argnums=1)
    def best(source: jax.Array, length: int) -> jax.Array:
        def following(tokens: jax.Array, state: Any, position: jax.Array) -> Any:
            logits, state = model.apply(variables, tokens, state, position, method="next")
            # No text has the ids that are no token's, but it ends.
            ids = jnp.arange(logits.shape[-1])[None]
            return jnp.where((ids >= FIRST) | (ids == END), logits, -jnp.inf), state

        state = model.apply(variables, source, method="encode")
        first = jnp.full(len(source), BEGIN, jnp.int32)
        made, _ = decoding.beam_search(
            following, state, first, length, END, width=config.beam, penalty=config.length_penalty
        )
        return made[:, 0]

    batches = list(padded_batches(split, min(config.batch_size, size(split))))
    length = split["target"].shape[1]
    found = [np.asarray(best(batch["source"], length)) for batch in track(batches, "translating")]
    return np.concatenate(found)[: size(split)]


def conclusion(
    config: TranslationConfig, model: Any, data: Pairs
) -> Callable[[TrainState, Path], dict[str, float]]:
    """The end of a run for `loop.train`: translates the test split, keeps and scores that.

    `translations.txt` has a line each; the summary `test/bleu` (sacrebleu's defaults, of the text
    as it was before tokens; of no puzzle) and `test/search_exact`, the share that is the reference.
    """

    def conclude(state: TrainState, folder: Path) -> dict[str, float]:
        from sacrebleu.metrics import BLEU

        found = search(config, model, evaluated(state), data.test)
        # Byte pairs can make a new line, and each text has one.
        texts = [" ".join(data.tokenizer.decode(row).splitlines()) for row in found]
        wanted = data.references
        files.write_text(folder / "translations.txt", "".join(f"{text}\n" for text in texts))
        exact = np.mean([text == other for text, other in zip(texts, wanted, strict=True)])
        figures = {"test/search_exact": float(exact)}
        if data.name in pairs.PUZZLES:  # of one word, where BLEU asks for four
            return figures
        return {"test/bleu": round(BLEU().corpus_score(texts, [wanted]).score, 2), **figures}

    return conclude
