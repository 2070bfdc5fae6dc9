import pkgutil

import experiments
from jaxdl import losses, optim, schedules
from jaxdl.__main__ import run


def test_everything_to_choose_from_has_a_line(capsys):
    run(["list"])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    named = {line[0] for line in lines if len(line) == 2 and len(line[1]) > 5}
    there = [
        module.name for module in pkgutil.iter_modules(experiments.__path__) if not module.ispkg
    ]
    wanted = {*there, *losses.LOSSES, *optim.OPTIMIZERS, *schedules.SCHEDULES, "plateau"}
    wanted |= {"MLP", "LeNet5", "CNN", "VGG", "ResNet", "digits", "iris", "cifar10"}
    wanted |= {"LanguageModel", "Translator", "Seq2Seq", "SequenceClassifier", "ViT"}
    wanted |= {"reverse", "addition", "files", "functions", "imdb_reviews", "multi30k"}
    assert wanted <= named
