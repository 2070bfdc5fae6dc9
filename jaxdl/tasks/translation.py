"""Translation: flags, the next-token prediction task, and the final evaluation by beam search.

Shapes: B pairs, S source and T target positions, V tokens of a vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import files, losses, metrics
from jaxdl.config import absolute, flag
from jaxdl.console import track
from jaxdl.data.batches import padded_batches, size
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.task import Batch, Decoder, State, Task
from jaxdl.tasks.supervised import Model, TrainState
from jaxdl.tasks.supervised_config import SupervisedConfig, supervised_from_config
from jaxdl.text import bucketing, decoding, pairs
from jaxdl.text.pairs import Pairs
from jaxdl.text.vocabulary import BEGIN, END, PAD, Vocabulary


@dataclasses.dataclass(frozen=True)
class TranslationConfig(SupervisedConfig):
    """Data, loss and beam search of sequence-to-sequence models."""

    dataset: str = flag(
        "multi30k",
        "multi30k: English to German; files: --source_file and --target_file; reverse, sort and "
        "addition: generated puzzles; embedded: reverse",
        choices=("multi30k", "files", "embedded", *pairs.PUZZLES),
    )
    source_file: str = flag(
        "", "text file for --dataset=files, one sentence per line, UTF-8", runtime=True
    )
    target_file: str = flag(
        "", "text file whose line n is the translation of line n of --source_file", runtime=True
    )
    vocabulary: int = flag(
        8000, "byte-pair tokens shared by both languages; puzzles use letters", low=260, high=10**6
    )
    length: int = flag(
        64, "most tokens of a sentence; longer ones are left out or cut", low=4, high=4096
    )
    widths: int = flag(
        6,
        "number of widths that sentences are padded to: more waste less, but each is compiled",
        low=1,
        high=64,
    )
    label_smoothing: float = flag(
        0.1, "probability of each label that is spread over all tokens", low=0.0, high=1.0
    )
    beam: int = flag(5, "beam width of the final beam search", low=1, high=1000)
    length_penalty: float = flag(1.0, "length penalty of the beam search", low=0.0, high=9.0)

    def __post_init__(self) -> None:
        """Makes the paths of the files absolute, as a run may be opened from another folder."""
        super().__post_init__()
        for name in ("source_file", "target_file"):
            if getattr(self, name):
                object.__setattr__(self, name, absolute(getattr(self, name), name))

    def validate(self) -> None:
        """Checks that --source_file and --target_file are set with --dataset=files, and only then.

        Raises:
          UserError: a file is missing, or is given for another data set.
        """
        super().validate()
        has_file = [bool(self.source_file), bool(self.target_file)]
        if has_file != [self.dataset == "files"] * 2:
            raise UserError(
                f"--dataset={self.dataset} with --source_file={self.source_file!r} and "
                f"--target_file={self.target_file!r}: give both with --dataset=files, else none"
            )


def load(config: TranslationConfig) -> Pairs:
    """Loads the sentence pairs of --dataset."""
    options = {name: getattr(config, name) for name in ("vocabulary", "length", "widths")}
    if config.dataset == "multi30k":
        return pairs.multi30k(config.data_dir, **options)
    if config.dataset == "files":
        return pairs.files(config.source_file, config.target_file, **options)
    kind = "reverse" if config.dataset == "embedded" else config.dataset
    return pairs.puzzle(kind, widths=config.widths)


def translate(config: TranslationConfig, model: Model, spec: DataSpec) -> Task:
    """Builds the translation task: next-token prediction with teacher forcing.

    Args:
      config: the run's config.
      model: (source [B, S], target [B, T]) -> logits [B, T, V] of the token after each position.
      spec: description of the data.

    Returns:
      A task whose step is compiled once for each padded width.
    """

    def preprocess(batch: Batch) -> dict[str, Any]:
        target, next_token = batch["target"][:, :-1], batch["target"][:, 1:]
        mask = batch["mask"][:, None] * (next_token != PAD)
        return {"inputs": (batch["source"], target), "next_token": next_token, "mask": mask}

    def loss(logits: jax.Array, batch: Batch) -> jax.Array:
        return losses.cross_entropy(logits, batch["next_token"], config.label_smoothing)

    def metrics_fn(logits: jax.Array, batch: Batch) -> metrics.Metrics:
        mask, correct = batch["mask"], metrics.correct(logits, batch["next_token"])
        nats = metrics.mean(losses.cross_entropy(logits, batch["next_token"]), mask)
        # If every token is right given the reference prefix, greedy decoding is right as well.
        exact = jnp.all((correct > 0) | (mask == 0), axis=1).astype(jnp.float32)
        return {
            "accuracy": metrics.mean(correct, mask),
            "exact": metrics.mean(exact, jnp.max(mask, axis=1)),
            "perplexity": metrics.Exponential(*nats),
        }

    task = supervised_from_config(
        config,
        model,
        spec,
        loss=loss,
        metrics_fn=metrics_fn,
        preprocess=preprocess,
        prepare=lambda batch: (batch["source"], batch["target"][:, :-1]),
        kind="tokens",
        inputs="inputs",
    )
    task = bucketing.bucket(task, spec.widths, ("source", "target"))
    return decoding.decodable(task)


def beam_translator(
    decoder: Decoder, width: int, penalty: float
) -> Callable[[State, jax.Array, int], jax.Array]:
    """Makes the compiled translation of a batch by beam search.

    Args:
      decoder: decoder of a translation model.
      width: number of beams.
      penalty: length penalty.

    Returns:
      (state, source [B, S], length) -> the best translation of each source, int32 [B, length],
      PAD after its end.
    """

    @functools.partial(jax.jit, static_argnums=2)
    def translate_batch(state: State, source: jax.Array, length: int) -> jax.Array:
        next_logits = functools.partial(decoder.next, state)
        begin = jnp.full(source.shape[0], BEGIN, jnp.int32)
        cache = decoder.start(state, source)
        tokens, _ = decoding.beam_search(
            next_logits, cache, begin, length, END, width=width, penalty=penalty
        )
        return tokens[:, 0]

    return translate_batch


def search(config: TranslationConfig, task: Task, state: TrainState, split: Any) -> np.ndarray:
    """Translates a split by beam search.

    Args:
      config: the run's config.
      task: the translation task.
      state: trained state.
      split: a split with `source` [N, S] and `target` [N, L].

    Returns:
      The best translation of each source: int32 [N, L], PAD after its end.
    """
    assert task.predict.decoder is not None
    translate_batch = beam_translator(task.predict.decoder, config.beam, config.length_penalty)
    batches = list(padded_batches(split, min(config.batch_size, size(split))))
    length = split["target"].shape[1]
    translations = [
        np.asarray(translate_batch(state, batch["source"], length))
        for batch in track(batches, "translating")
    ]
    return np.concatenate(translations)[: size(split)]


def decode_line(tokens: Iterable[int], tokenizer: Vocabulary) -> str:
    """Converts the tokens of a translation to one line: byte pairs can decode to line breaks."""
    return " ".join(tokenizer.decode(tokens).splitlines())


def make_final_eval(
    config: TranslationConfig, data: Pairs
) -> Callable[[Task, TrainState, Path], dict[str, float]]:
    """Builds the final evaluation for `loop.train`: translates the test split and scores it.

    It writes one translation per line to `translations.txt`. Its figures are `test/bleu` (with
    sacrebleu's defaults, on the original text; not for puzzles) and `test/search_exact`, the share
    of translations that equal the reference.
    """

    def final_eval(task: Task, state: TrainState, folder: Path) -> dict[str, float]:
        from sacrebleu.metrics import BLEU

        tokens, tokenizer = search(config, task, state, data.test), data.spec.tokenizer
        assert tokenizer is not None
        texts = [decode_line(row, tokenizer) for row in tokens]
        references = data.references
        files.write_text(folder / "translations.txt", "".join(f"{text}\n" for text in texts))
        exact = np.mean([text == ref for text, ref in zip(texts, references, strict=True)])
        figures = {"test/search_exact": float(exact)}
        if data.spec.name in pairs.PUZZLES:  # puzzles have one word, BLEU needs four
            return figures
        return {"test/bleu": round(BLEU().corpus_score(texts, [references]).score, 2), **figures}

    return final_eval
