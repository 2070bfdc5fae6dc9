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

from jaxdl import files, losses, metrics
from jaxdl.config import absolute, flag
from jaxdl.console import track
from jaxdl.data.batches import padded_batches, size
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError
from jaxdl.task import Batch, Task
from jaxdl.tasks.supervised import Model, TrainState
from jaxdl.tasks.supervised_config import SupervisedConfig, supervised_from_config
from jaxdl.text import bucketing, decoding, pairs
from jaxdl.text.pairs import Pairs
from jaxdl.text.vocabulary import BEGIN, END, PAD


@dataclasses.dataclass(frozen=True)
class TranslationConfig(SupervisedConfig):
    """Every model that turns one sequence into another."""

    dataset: str = flag(
        "multi30k",
        "English to German; files: --source_file and --target_file; embedded: the puzzle reverse",
        choices=("multi30k", "files", "embedded", *pairs.PUZZLES),
    )
    source_file: str = flag("", "with --dataset=files: one sentence a line, UTF-8", runtime=True)
    target_file: str = flag("", "line n is the translation of line n", runtime=True)
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
        """Makes the files' paths absolute: a run is opened again from other folders."""
        super().__post_init__()
        for name in ("source_file", "target_file"):
            if getattr(self, name):
                object.__setattr__(self, name, absolute(getattr(self, name), name))

    def validate(self) -> None:
        """Refuses files that are not asked for.

        Raises:
          UserError: files are named but not asked for, or the other way round.
        """
        super().validate()
        named = [bool(self.source_file), bool(self.target_file)]
        if named != [self.dataset == "files"] * 2:
            raise UserError(
                f"--dataset={self.dataset} with --source_file={self.source_file!r} and "
                f"--target_file={self.target_file!r}: --dataset=files takes both, others none"
            )


def load(config: TranslationConfig) -> Pairs:
    """The pairs that --dataset names."""
    options = {name: getattr(config, name) for name in ("vocabulary", "length", "widths")}
    if config.dataset == "multi30k":
        return pairs.multi30k(config.data_dir, **options)
    if config.dataset == "files":
        return pairs.files(config.source_file, config.target_file, **options)
    kind = "reverse" if config.dataset == "embedded" else config.dataset
    return pairs.puzzle(kind, widths=config.widths)


def translate(config: TranslationConfig, model: Model, spec: DataSpec) -> Task:
    """The task of fitting a model ((source [B, S], target [B, T]) -> logits [B, T, V]) to pairs.

    The model is given the target up to each position (teacher forcing). Compiled for each width.
    """

    def preprocess(batch: Batch) -> dict[str, Any]:
        given, wanted = batch["target"][:, :-1], batch["target"][:, 1:]
        mask = batch["mask"][:, None] * (wanted != PAD)
        return {"inputs": (batch["source"], given), "wanted": wanted, "mask": mask}

    def loss(logits: jax.Array, batch: Batch) -> jax.Array:
        return losses.cross_entropy(logits, batch["wanted"], config.label_smoothing)

    def metrics_fn(logits: jax.Array, batch: Batch) -> metrics.Metrics:
        mask, correct = batch["mask"], metrics.correct(logits, batch["wanted"])
        nats = metrics.mean(losses.cross_entropy(logits, batch["wanted"]), mask)
        # Every token right, given those before it: then greedy search finds the whole.
        whole = jnp.all((correct > 0) | (mask == 0), axis=1).astype(jnp.float32)
        return {
            "accuracy": metrics.mean(correct, mask),
            "exact": metrics.mean(whole, jnp.max(mask, axis=1)),
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
        inputs="inputs",
    )
    task = bucketing.bucketed(task, spec.widths, ("source", "target"))
    return decoding.decodable(task)


def search(config: TranslationConfig, task: Task, state: TrainState, split: Any) -> np.ndarray:
    """The best translation of each source that a beam finds: int32 [N, L], PAD after its end."""
    assert task.predict.decoder is not None
    decoder = task.predict.decoder

    @functools.partial(jax.jit, static_argnums=2)
    def best(state: TrainState, source: jax.Array, length: int) -> jax.Array:
        following = functools.partial(decoder.next, state)
        first = jnp.full(source.shape[0], BEGIN, jnp.int32)
        cache = decoder.start(state, source)
        made, _ = decoding.beam_search(
            following, cache, first, length, END, width=config.beam, penalty=config.length_penalty
        )
        return made[:, 0]

    batches = list(padded_batches(split, min(config.batch_size, size(split))))
    length = split["target"].shape[1]
    found = [
        np.asarray(best(state, batch["source"], length)) for batch in track(batches, "translating")
    ]
    return np.concatenate(found)[: size(split)]


def final_eval_of(
    config: TranslationConfig, data: Pairs
) -> Callable[[Task, TrainState, Path], dict[str, float]]:
    """The end of a run for `loop.train`: translates the test split, keeps and scores that.

    `translations.txt` has a line each; the summary `test/bleu` (sacrebleu's defaults, of the text
    as it was before tokens; of no puzzle) and `test/search_exact`, the share that is the reference.
    """

    def final_eval(task: Task, state: TrainState, folder: Path) -> dict[str, float]:
        from sacrebleu.metrics import BLEU

        found, tokenizer = search(config, task, state, data.test), data.spec.tokenizer
        assert tokenizer is not None
        # Byte pairs can make a new line, and each text has one.
        texts = [" ".join(tokenizer.decode(row).splitlines()) for row in found]
        wanted = data.references
        files.write_text(folder / "translations.txt", "".join(f"{text}\n" for text in texts))
        exact = np.mean([text == other for text, other in zip(texts, wanted, strict=True)])
        figures = {"test/search_exact": float(exact)}
        if data.spec.name in pairs.PUZZLES:  # of one word, where BLEU asks for four
            return figures
        return {"test/bleu": round(BLEU().corpus_score(texts, [wanted]).score, 2), **figures}

    return final_eval
