import signal
import socket
import subprocess
import sys
import time

import jax
import pytest

from jaxdl.config import RunConfig
from jaxdl.distributed import collectives, sharding
from jaxdl.errors import UserError
from tests import many_devices

PROGRAM = """
import json, jax, numpy as np
from tests import small
from jaxdl import augment, tree
from jaxdl.distributed import collectives, sharding
from jaxdl.train import step_spec, train_step
from jaxdl.train.evaluate import evaluate_split

config = small.Config(batch_size=16)
data = small.load(config)
found = []

def look(batch):
    key = jax.random.fold_in(jax.random.key(2), 3)
    mean, std = data.spec.statistics()
    image = augment.random_flip(key, augment.random_crop(key, batch["image"], 2))
    image = augment.cutout(key, image, 3, mean)
    image, label = augment.mixup(key, image, batch["label"], 10, 0.3)
    return augment.normalize(image, mean, std), label, jax.random.bernoulli(key, 0.3, (16,))

for n in (1, 2, 4, 8):
    mesh = sharding.mesh(config, jax.devices()[:n])
    spec = step_spec.step_spec(small.build, config, data, mesh)
    numbers = step_spec.device_operands(config, data.spec, mesh)
    made = train_step.compile_step(spec)
    split = jax.device_put(data.train, sharding.replicated(mesh))
    key = jax.random.key(1)
    epoch = train_step.Epoch(split, key, made.order({}, key, 0))
    order = np.asarray(epoch.order)
    carry = made.start(numbers, jax.random.key(0))
    augmented = jax.jit(look)(made.batch(epoch, 3))
    losses = []
    for _ in range(20):
        carry, epoch = made.advance(numbers, carry, epoch, 1)
        losses.append(float(carry[1]["loss"][0]) / float(carry[1]["loss"][1]))
    assert len(carry[0].params["Dense_0"]["kernel"].devices()) == n
    value = evaluate_split(spec, numbers, carry[0], data.test)
    found.append({"losses": losses, "test": {k: float(v) for k, v in value.items()},
                  "augmented": tree.digest(augmented), "order": order.tolist()})
print(json.dumps(found))
"""


def test_one_device_equals_eight():
    one, *others = many_devices.found(PROGRAM, 8)
    assert len(others) == 3
    for many in others:
        assert many["order"] == one["order"]
        assert many["augmented"] == one["augmented"]
        assert many["losses"] == pytest.approx(one["losses"], rel=1e-5)
        assert many["test"]["loss"] == pytest.approx(one["test"]["loss"], rel=1e-4)
        assert many["test"]["accuracy"] == one["test"]["accuracy"]


def test_a_batch_that_does_not_divide():
    with pytest.raises(UserError, match=r"--batch_size=3 .* 2 devices.* multiple of 2"):
        sharding.mesh(RunConfig(batch_size=3), [jax.devices()[0]] * 2)


@pytest.mark.parametrize(
    ("mesh", "match"),
    [
        ("data:3", "has 3 devices, and there are 2"),
        ("data:2,model:2", "has 4 devices, and there are 2"),
        ("rows:2", "data:8 or data:4,model:2"),
        ("data:2,data:1", "data:8 or"),
        ("model:2", "data:8 or"),
        ("data", "data:8 or"),
        ("data:0", "data:8 or"),
        ("data:-2", "data:8 or"),
        ("data:2,", "data:8 or"),
    ],
)
def test_a_mesh_that_cannot_be(mesh, match):
    with pytest.raises(UserError, match=match):
        sharding.mesh(RunConfig(batch_size=4, mesh=mesh), [jax.devices()[0]] * 2)


# Two processes, as on two hosts; a signal reaches one of them, both stop at the same step.
AGREE = """
import os, sys, time, jax
port, index = sys.argv[1], int(sys.argv[2])
jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM for itself
jax.distributed.initialize(f"localhost:{port}", 2, index)
from jaxdl import signals
from jaxdl.distributed import collectives, sharding
with signals.graceful() as request:
    print("ready", flush=True)
    for step in range(100_000):
        time.sleep(0.001)
        if step % 10 == 0:
            number = collectives.all_max(request.number)  # as the loop does it
            if number is not None:
                print(step, number, flush=True)
                break
jax.distributed.shutdown()
"""


def test_a_signal_to_one_process_stops_all_at_the_same_step(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", AGREE, str(port), str(index)],
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        for index in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        processes[1].send_signal(signal.SIGTERM)
        first, second = (process.communicate(timeout=60)[0] for process in processes)
    finally:
        for process in processes:
            process.kill()
    first, second = (out.splitlines()[-1] for out in (first, second))  # gloo talks before
    assert first == second
    assert first.split()[1] == str(int(signal.SIGTERM))


def test_alone_a_process_agrees_with_itself():
    assert collectives.all_max(None) is None
    assert collectives.all_max(15) == 15
