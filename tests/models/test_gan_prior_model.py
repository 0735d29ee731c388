"""GPENPriorModel inside the host's own `train_pipeline`, on the CPU."""


def test_a_run(prior_options, train, tmp_path):
    folder = train(prior_options)
    print(sorted(folder.rglob("*")))
