"""Short run of every experiment: flags with which it ends within seconds, on embedded data."""

THIN = ["--dataset=embedded", "--num_epochs=1", "--batch_size=450", "--width_multiplier=0.04"]
TINY = ["--batch_size=200", "--layers=1", "--features=8"]
DIGITS = ["--dataset=embedded", "--num_epochs=1", "--image_size=8"]
TEXT = ["--dataset=embedded", "--num_steps=2"]
AGENT = ["--num_steps=2", "--hidden=4"]
SHORT = {  # ordered by compile time, the shortest first
    "grid_qlearning": AGENT[:1],
    "diabetes_regression": ["--num_epochs=1"],
    "iris_mlp": ["--num_epochs=1"],
    "forecast_rnn": ["--points=300", "--num_steps=2", "--features=4", "--horizon=6"],
    "tabular_mlp": ["--num_epochs=1", "--members=2"],
    "cartpole_reinforce": AGENT,
    "cartpole_ppo": [*AGENT, "--rollout=8"],
    "cartpole_dqn": [*AGENT, "--memory=64", "--learn_from=8"],
    "cifar_cnn": DIGITS,
    "mnist_cnn": DIGITS[:2],
    "mnist_lenet": DIGITS[:2],
    "cifar_vit": [*THIN[:3], "--image_size=8", "--layers=1", "--features=12"],
    "mnist_vae": [*DIGITS, "--draws=3", "--beta=2"],
    "mnist_autoencoder": [*DIGITS, "--noise=0.2"],
    "imagenet_vgg": [*THIN, "--depth=11", "--image_size=32"],
    "imdb_rnn": [*TINY, *TEXT, "--length=16", "--widths=2"],
    "mnist_gan": [*DIGITS, "--width=4"],
    "cifar_vgg": [*THIN, "--depth=11"],
    "cifar_speedrun": [*THIN, "--image_size=16"],
    "cifar_resnet": [*THIN, "--pre_activation", "--image_size=16", "--stochastic_depth=0.2"],
    "multi30k_seq2seq": [TINY[0], TINY[2], *TEXT, "--widths=1"],
    "multi30k_transformer": [*TINY, *TEXT, "--widths=1"],
    "shakespeare_lm": [*TINY, *TEXT, "--length=256"],
}
