"""Turn a dataclass into command-line options: rules for values, and reading values from arguments and YAML files."""

import argparse
import contextlib
import difflib
import math
import os
import re
import typing
from collections import Counter
from collections.abc import Callable
from dataclasses import field
from functools import partial
from typing import NamedTuple

import yaml

from utils import UserError, shell_word

FILE_LIMIT = 2**16  # bytes
FLAT_TOKENS = {  # YAML tokens of one mapping of plain values
    *(yaml.StreamStartToken, yaml.StreamEndToken, yaml.DocumentStartToken, yaml.BlockMappingStartToken),
    *(yaml.BlockEndToken, yaml.KeyToken, yaml.ValueToken, yaml.ScalarToken),
}
MOST_NUMBERS = 10_000  # in a list of NUMBERS
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Rule(NamedTuple):
    """A rule for the value of an option. `phrase`: the rule in words; `accepts`: tests a value of the right type."""

    phrase: str
    accepts: Callable


ANYTHING = {bool: Rule("true or false", lambda _: True), str: Rule("text (in quotes)", lambda _: True)}


def one_of(*names):
    """The Rule for one of `names`."""
    return Rule(f"one of {', '.join(names)}", names.__contains__)


def whole_number(low, high):
    """The Rule for a whole number from `low` to `high`."""
    return Rule(f"a whole number from {low} to {high}", lambda n: low <= n <= high)


def are_unique(names):
    """Whether every name occurs only once."""
    return len(set(names)) == len(names)


SIZE = whole_number(1, 4096)
COUNT = whole_number(1, 2**31 - 1)
COUNT_OR_0 = whole_number(0, 2**31 - 1)
SEED = Rule("a whole number from 0 to 2^63 - 1", lambda n: 0 <= n < 2**63)
POSITIVE = Rule("a finite number above 0", lambda x: 0 < x < math.inf)
WEIGHT = Rule("a finite number, 0 or more", lambda x: 0 <= x < math.inf)
SHARE = Rule("a number from 0 up to, but not including, 1", lambda x: 0 <= x < 1)
PLAIN_NAME = Rule(
    "a plain name without slashes, of at most 200 bytes",
    lambda s: s.isprintable() and not {"/", "\\"} & set(s) and s.strip(". ") and len(s.encode()) <= 200,
)


def numbers(text):
    """The whole numbers that `text`, such as "0-15" or "0,7,12", lists. None if the syntax is wrong.

    None too for numbers above 2^31 - 1, for more than MOST_NUMBERS, and for a number given twice.
    """
    listed = []
    for item in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,10})(?:-([0-9]{1,10}))?\s*", item)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < 2**31 or last - first >= MOST_NUMBERS - len(listed):
            return None
        listed += range(first, last + 1)
    return listed if are_unique(listed) else None


NUMBERS = Rule(
    f"a list of whole numbers and rising ranges, such as 0-15 or 0,7,12; at most {MOST_NUMBERS:,} numbers, none twice",
    lambda text: numbers(text) is not None,
)


def option(default, help, valid=None, metavar=None, *, group, also=None, inferred=False):
    """A dataclass field that is an option.

    `valid`: its Rule. `metavar`: the placeholder for its value in `--help`. `also`: a second name. `inferred`: without
    this option, other options decide its value; so `--help` shows no default.
    """
    metadata = {"help": help, "valid": valid, "group": group, "also": also, "metavar": metavar, "inferred": inferred}
    return field(default=default, metadata=metadata)


def spellings(options):
    """{name on the command line: option}; an option may have two names."""
    return {name: option for option in options for name in (option.name, option.metadata["also"]) if name}


def typed(options, values, where):
    """`values`, by field name, converted to the types of their options. A UserError names their origin `where`."""
    result = {}
    for name, value in values.items():
        if name not in options:
            raise UserError(
                f"{where}: {name!r:.80} is not an option{did_you_mean(str(name), spellings(options.values()))}"
            )
        try:
            result[name] = _checked_value(options[name], value)
        except argparse.ArgumentTypeError as error:
            raise UserError(f"{where}: {name}: {error}") from None
    return result


def read_yaml(path):
    """The values in a YAML file of `option: value` lines, at most 64 KB, by name. Raises UserError."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_LIMIT + 1)
        if len(data) > FILE_LIMIT:
            raise UserError(f"{path} is larger than 64 KB, the most that a file of options may have")
        text = data.decode("utf-8-sig")
        tokens = Counter()
        # Safe for any file: scanning neither expands aliases nor follows tags, and the loop stops at the first one.
        for token in yaml.scan(text):
            tokens[type(token)] += 1
            if type(token) not in FLAT_TOKENS or tokens[yaml.BlockMappingStartToken] > 1:
                raise UserError(f"{path} must hold `option: value` lines and nothing else")
        values = yaml.safe_load(text)
        if not values or len(values) != tokens[yaml.KeyToken]:
            raise UserError(f"{path} has no options, or has one of them twice")
        if any(isinstance(value, int) and value.bit_length() > 64 for value in values.values()):
            raise ValueError("an integer with more digits than Python prints")
        return {str(name): value for name, value in values.items()}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path} is not readable YAML{f', from line {mark.line + 1}' if mark else ''}") from None


def parse(argv, names, hidden_groups, epilog, of_paths, **about):
    """Read the arguments `argv`. Returns ({field name: typed value}, the names as spelled there, without dashes).

    `names`: {name: option}. `about`: other arguments of argparse. Raises UserError for a mistake. `--help` prints each
    option once, in its group, but no group in `hidden_groups`; then it prints the text that `epilog()` returns, and
    exits. `of_paths`: the option that is meant if a path stands alone, for the message.
    """
    parser = _Parser(
        epilog,
        argument_default=argparse.SUPPRESS,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=33),
        allow_abbrev=False,
        **about,
    )
    groups = {}
    for name, option in names.items():
        title = option.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        shown = name == option.name and title not in hidden_groups
        kind, _ = _value_type(option)
        groups[title].add_argument(
            f"--{name}",
            action=_StoreAsSpelled,
            dest=option.name,
            type=partial(_checked_value, option),
            metavar=option.metadata["metavar"] or {int: "N", float: "X", bool: "true|false", str: "NAME"}[kind],
            help=_help(option, names) if shown else argparse.SUPPRESS,
            **({"nargs": "?", "const": True} if kind is bool else {}),
        )
    given, unknown = parser.parse_known_args(argv)
    if unknown and not unknown[0].startswith("-"):
        is_path = os.path.exists(unknown[0]) and of_paths not in given
        advice = f"; did you mean --{of_paths} {shell_word(unknown[0])}?" if is_path else ": leave it out"
        raise UserError(
            f"{unknown[0]!r:.80} is not an option and not the value of one{advice}; --help lists the options"
        )
    if unknown:
        name = unknown[0].split("=")[0]
        raise UserError(f"{name} is not an option{did_you_mean(name.lstrip('-'), names, '--')}; --help lists them")
    return vars(given), parser.spelled


def did_you_mean(word, names, prefix=""):
    """The end of a message about the unknown `word`: "; did you mean …?" with the closest of `names`, or ""."""
    close = difflib.get_close_matches(word[:80], names, 1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


class _Parser(argparse.ArgumentParser):
    def __init__(self, make_epilog, **about):
        super().__init__(**about)
        self.make_epilog = make_epilog
        self.spelled = set()

    def format_help(self):
        self.epilog = self.make_epilog()  # made only here: it reads files, and only `--help` needs it
        return super().format_help()

    def error(self, message):
        raise UserError(message.removeprefix("argument "))


class _StoreAsSpelled(argparse.Action):
    """Stores an option's value, and the name by which the command line gives it."""

    def __call__(self, parser, namespace, value, name=None):
        setattr(namespace, self.dest, value)
        parser.spelled.add(name.removeprefix("--"))


def _help(option, names):
    others = [f"--{name}" for name, same in names.items() if same is option and name != option.name]
    also = f" (also {', '.join(others)})" if others else ""
    shown = option.default is not None and option.default is not False and not option.metadata["inferred"]
    default = f" [{option.default}]".lower() if shown else ""
    return option.metadata["help"] + also + default


def _value_type(option):
    """(type of the option's value, whether the value can be None)."""
    kind, *rest = typing.get_args(option.type) or (option.type,)
    return kind, bool(rest)


def _checked_value(option, value):
    """`value`, which may be text, converted to the option's type. Raises ArgumentTypeError if it breaks the rule."""
    kind, optional = _value_type(option)
    if optional and value in (None, "", "none"):
        return None
    rule = option.metadata["valid"] or ANYTHING[kind]
    with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
        converted = _convert(kind, value)
        if rule.accepts(converted):
            return converted
    raise argparse.ArgumentTypeError(f"{value!r:.80} is not {rule.phrase}")


def _convert(kind, value):
    """`value` converted to the type `kind`. Raises KeyError, TypeError, ValueError or OverflowError if it cannot be."""
    if kind is bool:
        return value if isinstance(value, bool) else BOOLEANS[value]
    if kind is str:
        if not isinstance(value, str) or "\0" in value:
            raise ValueError
        return value
    # YAML reads 1e-4 as text, so a number may be text. Python reads 1_6 as 16; options refuse it.
    if isinstance(value, bool) or (kind is int and isinstance(value, float)) or "_" in str(value):
        raise ValueError
    return kind(value)
