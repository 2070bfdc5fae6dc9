"""Flags of supervised learning, and the schedule, optimizer and task built from them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxdl import hyperparameters, optim, parameter_groups, regularizers, schedules
from jaxdl.config import RunConfig, absolute, flag
from jaxdl.data.spec import DataSpec
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.metrics import Metrics
from jaxdl.task import Batch, Task
from jaxdl.tasks.supervised import Model, supervised


@dataclasses.dataclass(frozen=True)
class SupervisedConfig(RunConfig):
    """Optimizer and regularisation."""

    optimizer: str = flag("adam", "optimization algorithm", choices=tuple(optim.OPTIMIZERS))
    momentum: float = flag(
        0.9,
        "momentum of momentum, nesterov, lars and muon; first-moment decay of Adam-like optimizers "
        "and lion; interpolation of schedule_free",
        low=0.0,
        high=0.9999,
    )
    schedule: str = flag(
        "cosine",
        "learning-rate schedule; plateau: divides the rate by 10 when the training loss has not "
        "improved by 0.01 percent for --plateau_epochs",
        choices=(*schedules.SCHEDULES, "plateau"),
    )
    warmup_epochs: float = flag(
        0.0,
        "epochs of linear learning-rate warm-up, also fractions; at most half of the run",
        low=0.0,
        high=1e6,
    )
    warmup_steps: int = flag(
        0,
        "steps of linear warm-up, at most half of the run; 0: uses --warmup_epochs",
        low=0,
    )
    adam_b2: float = flag(
        0.999,
        "decay of the mean squared gradient in Adam-like optimizers and muon's NAdam",
        low=0.0,
        high=0.999999,
    )
    adam_epsilon: float = flag(
        1e-8,
        "constant added to the root of the mean squared gradient in adam, adamw, nadam and "
        "schedule_free",
        low=1e-30,
        high=1.0,
    )
    plateau_epochs: int = flag(5, "patience of --schedule=plateau, epochs", low=1, high=1e6)
    weight_decay: float = flag(
        0.0,
        "decoupled weight decay of kernels; lamb and lars scale it by their trust ratio",
        low=0.0,
        high=1.0,
    )
    l1: float = flag(
        0.0, "coefficient of the L1 penalty, sum of |w| over kernels", low=0.0, high=1e6
    )
    l2: float = flag(
        0.0,
        "coefficient of the L2 penalty, sum of w**2 / 2 over kernels; with --l1: elastic net",
        low=0.0,
        high=1e6,
    )
    clip_norm: float = flag(float("inf"), "greatest global norm of the gradient", low=1e-9)
    clip_value: float = flag(float("inf"), "greatest absolute gradient entry", low=1e-9)
    clip_adaptive: float = flag(
        float("inf"), "greatest norm of a unit's gradient relative to its weights", low=1e-9
    )
    ema_decay: float = flag(
        0.0,
        "decay of a moving average of the parameters, evaluated in their place; 0: none",
        low=0.0,
        high=0.999999,
    )
    accumulate: int = flag(
        1,
        "gradient accumulation: equal parts of a batch that are computed one after the other "
        "before one update; batch norm then uses the statistics of each part",
        low=1,
    )
    init_from: str = flag(
        "",
        "run folder or .safetensors file whose weights the run starts with; it is not needed once "
        "the run has begun",
        runtime=True,
    )
    init_skip: str = flag(
        "",
        "regular expression of paths, such as Dense_2, of the leaves that --init_from leaves at "
        "their initial values, such as a new head",
    )
    freeze: str = flag(
        "",
        "regular expression of paths, such as Conv_0|Conv_1, of the leaves that do not change; a "
        "path is params/Conv_0/kernel or batch_stats/BatchNorm_0/mean",
    )
    learning_rate_scale: str = flag(
        "",
        "REGEX:FACTOR,REGEX:FACTOR: factors of the learning rate of groups of parameters; the "
        "first that matches a path counts",
    )
    average_last: int = flag(
        0,
        "number of last checkpoints whose average is evaluated at the end, in addition to the "
        "last state; 0: none",
        low=0,
        high=1000,
    )

    parallel: str = flag(
        "jit",
        "jit: the compiler distributes a step over the devices; pmap: each device computes the "
        "gradient of its share of the batch, and the gradients are summed",
        choices=("jit", "pmap"),
    )

    def __post_init__(self) -> None:
        """Makes the path of the weights absolute, as a run may be resumed from another folder."""
        super().__post_init__()
        if self.init_from:
            object.__setattr__(self, "init_from", absolute(self.init_from, "init_from"))

    def validate(self) -> None:
        """Checks rules between flags.

        Raises:
          UserError: --accumulate does not divide --batch_size; --parallel=pmap with a sharded
            state; schedule_free with a momentum near 0; an expression that is not valid.
        """
        super().validate()
        groups(self)
        if self.init_skip:
            parameter_groups.compile_pattern("init_skip", self.init_skip)
        if self.optimizer == "schedule_free" and self.momentum < 1e-3:
            raise UserError(
                f"--momentum={self.momentum} with --optimizer=schedule_free, which divides by it: "
                "give at least 0.001"
            )
        if self.parallel == "pmap" and (self.fsdp or sharding.MODEL in self.mesh):
            raise UserError(
                "--parallel=pmap keeps the whole state on each device: leave out --fsdp and the "
                "model axis of --mesh, or give --parallel=jit"
            )
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise UserError(
                f"--accumulate={self.accumulate} does not divide --batch_size={self.batch_size}: "
                "give a divisor"
            )


def schedule(config: SupervisedConfig, examples: int) -> optax.Schedule:
    """Builds the learning-rate schedule: step -> factor of the peak rate.

    Args:
      config: the run's config.
      examples: number of training examples.
    """
    total = config.total_steps(examples)
    warmup: Any = config.warmup_steps and min(config.warmup_steps, total // 2)
    if not warmup and not hyperparameters.is_static(config.warmup_epochs, 0):
        warmup = jnp.round(config.warmup_epochs * config.steps_per_epoch(examples))
        warmup = jnp.minimum(warmup, total // 2)
    name = "constant" if config.schedule == "plateau" else config.schedule
    return schedules.schedule(name, total, warmup)


def groups(config: SupervisedConfig) -> parameter_groups.Groups:
    """Returns the groups of parameters of --freeze and --learning_rate_scale."""
    return parameter_groups.parse(config.freeze, config.learning_rate_scale)


def optimizer(config: SupervisedConfig, examples: int) -> optax.GradientTransformationExtraArgs:
    """Builds the optimizer.

    Args:
      config: the run's config.
      examples: number of training examples.
    """
    plateau = None
    if config.schedule == "plateau":
        plateau = contrib.reduce_on_plateau(
            patience=config.plateau_epochs, accumulation_size=config.steps_per_epoch(examples)
        )
    return optim.optimizer(
        config.optimizer,
        config.learning_rate,
        schedule(config, examples),
        momentum=config.momentum,
        adam_b2=config.adam_b2,
        adam_epsilon=config.adam_epsilon,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        clip_value=config.clip_value,
        clip_adaptive=config.clip_adaptive,
        plateau=plateau,
        groups=groups(config),
    )


def penalty(config: SupervisedConfig) -> Callable[[optax.Params], jax.Array]:
    """Builds the penalty of --l1 and --l2: params -> scalar."""
    return lambda params: regularizers.elastic_net(params, config.l1, config.l2)


def supervised_from_config(
    config: SupervisedConfig,
    model: Model,
    spec: DataSpec,
    *,
    loss: Callable[[Any, Batch], jax.Array],
    metrics_fn: Callable[[Any, Batch], Metrics],
    **options: Any,
) -> Task:
    """Builds a `supervised` task with the optimizer and regularisation of a config.

    Args:
      config: the run's config.
      model: the model to train.
      spec: description of the data.
      loss: (outputs, batch) -> loss per example, see `supervised`.
      metrics_fn: (outputs, batch) -> metrics of evaluation, see `supervised`.
      options: `preprocess`, `prepare`, `finish`, `kind`, `augment`, `attack`,
        `train_metrics_fn` and `inputs` of `supervised`.

    Returns:
      A task with a `TrainState`.

    Raises:
      UserError: with --parallel=pmap, --accumulate does not divide a device's share of the batch.
    """
    reduce_gradient: dict[str, Any] = {}
    if config.parallel == "pmap":
        mesh = sharding.mesh(config)
        reduce_gradient["reduce_gradient"] = functools.partial(sharding.data_parallel, mesh=mesh)
        if (config.batch_size // mesh.size) % config.accumulate:
            raise UserError(
                f"--accumulate={config.accumulate} does not divide a device's share of "
                f"--batch_size={config.batch_size} on {mesh.size} devices: give a divisor"
            )
    peak, factor = config.learning_rate, schedule(config, spec.num_train)
    return supervised(
        model,
        optimizer(config, spec.num_train),
        loss=loss,
        metrics_fn=metrics_fn,
        example=spec.example(),
        penalty=penalty(config),
        ema_decay=config.ema_decay,
        learning_rate=lambda opt_state: optim.learning_rate(opt_state, peak, factor),
        accumulate=config.accumulate,
        groups=groups(config),
        **reduce_gradient,
        **options,
    )
