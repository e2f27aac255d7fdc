"""Draw samples from a trained generator and measure them: `python test.py --pretrained_model FILE_OR_RUN_FOLDER`."""

import runtime
from parameters import get_parameters, given_options


def main():
    start, source = None, None
    if {"pretrained_model", "check_path"} & (given := given_options(program="test")).keys():
        from checkpoint import load_given

        start, source = load_given(given, wanted=("G", "G_ema"))
    parameters = get_parameters(program="test", base=start and start.parameters)
    runtime.start(parameters)
    from tester import Tester

    Tester(parameters, start, source).test()
    return 0


if __name__ == "__main__":
    runtime.run(main)
