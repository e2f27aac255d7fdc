"""Classes by name: those that `--labels` chooses, and their names in the names of files."""

import re

from options import did_you_mean
from utils import UserError

LONGEST = 60  # letters of a class's name in a folder's name: at 4 bytes a letter, they fit into 255 bytes


def class_folder(label, name):
    """The name of the folder for samples of the class with this number and name, such as "0003-daisy".

    The number keeps the folders in order. It also makes them different if names share their first LONGEST letters, or
    if they differ only in case and the file system ignores case. If the name equals the number, the folder has only the
    number.
    """
    plain = "".join("_" if letter in '/\\<>:"|?*' or not letter.isprintable() else letter for letter in name)
    plain = plain[:LONGEST].strip(" .")  # Windows drops spaces and dots at the end
    return f"{label:04d}" if plain in ("", str(label)) else f"{label:04d}-{plain}"


def choose_labels(labels, class_names):
    """The numbers of the classes that the option `labels` chooses, in its order. "auto" and "uniform" choose all.

    Commas separate words. A word is the name of a class, or its number. If a class has the name 3, then 3 means that
    class. A name that contains commas can only be given alone. Raises UserError for other words and for a class given
    twice. The message names the existing classes.
    """
    if labels in ("auto", "uniform"):
        return list(range(len(class_names)))
    words = [labels] if labels in class_names else [word.strip() for word in labels.split(",")]
    chosen = [_number_of_class(word, class_names) for word in words]
    for place, label in enumerate(chosen):
        if label in chosen[:place]:
            first = words[chosen.index(label)]
            raise UserError(f"--labels {labels}: {first!r} and {words[place]!r} are the same class; give it once")
    return chosen


def _number_of_class(word, class_names):
    if word in class_names:
        return class_names.index(word)
    if re.fullmatch("[0-9]{1,5}", word) and int(word) < len(class_names):
        return int(word)
    listed = ", ".join(class_names[:5]) + ", …" * (len(class_names) > 5)
    hint = "" if word.isdecimal() else did_you_mean(word, class_names)
    if word.lower() == "all":
        hint = "; uniform draws all classes"
    raise UserError(
        f"--labels: there is no class {word:.80}; the {len(class_names)} classes are {listed}; give names, or numbers "
        f"from 0 to {len(class_names) - 1}{hint}"
    )
