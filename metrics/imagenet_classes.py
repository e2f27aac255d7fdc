"""The ImageNet class of each of Inception's 1008 logits.

The graph of 2015 uses the class numbers of the challenge's development kit (ILSVRC2012_ID, 1 to 1000; TensorFlow's
imagenet_2012_challenge_label_map_proto.pbtxt). This is not the order of the WordNet ids. Logits 0 and 1001 to 1007 have
no class.
"""

from pathlib import Path

import numpy as np

from utils import UserError

# The WordNet ids in the order of those numbers, from 1.
WORDNET_IDS = tuple(Path(__file__).with_suffix(".txt").read_text().split())


def inception_classes(class_names):
    """The index of the logit of each class: int64 [num_classes].

    `class_names` are WordNet ids ("n01440764"), the names of ImageNet's folders. Raises UserError with the first name
    that is not a class of ImageNet.
    """
    logits = {name: logit for logit, name in enumerate(WORDNET_IDS, start=1)}
    for name in class_names:
        if name not in logits:
            raise UserError(
                f"--metrics accuracy: Inception does not know the class {name!r}, only ImageNet's 1000 classes; name "
                "the folders by their WordNet ids, such as n01440764"
            )
    return np.array([logits[name] for name in class_names], dtype=np.int64)
