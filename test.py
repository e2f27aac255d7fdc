"""Draw samples from a trained generator and measure them: `python test.py --pretrained_model FILE_OR_RUN_FOLDER`."""

import runtime
from parameters import get_parameters, given_options


def main():
    given = given_options(None, "test")
    base, loaded, source = None, None, None
    if "pretrained_model" in given:
        import checkpoint

        source = checkpoint.find(given["pretrained_model"])
        loaded = checkpoint.load(source)
        base = loaded.parameters
    parameters = get_parameters(None, "test", base)
    runtime.start(parameters)
    from tester import Tester

    Tester(parameters, loaded, source).test()
    return 0


if __name__ == "__main__":
    runtime.run(main)
