"""The numbers of ImageNet's classes, against entries of TensorFlow's label map of 2015."""

import re

import numpy as np
import pytest

from metrics.imagenet_classes import WORDNET_IDS, inception_classes
from utils import UserError

# target_class by target_class_string in imagenet_2012_challenge_label_map_proto.pbtxt.
LABEL_MAP = """
449 n01440764  450 n01443537  442 n01484850  443 n01491361  444 n01494475  445 n01496331  446 n01498041  383 n01514668
384 n01514859  385 n01518878  386 n01530575  387 n01531178  388 n01532829  389 n01534433  390 n01537544  391 n01558993
392 n01560419  393 n01580077  394 n01582220  395 n01592084  396 n01601694  397 n01608432  121 n02437312  186 n02437616
48 n02441942   23 n02442845   182 n02443114  40 n02443484   212 n02444819  44 n02445715   16 n02447366   178 n02454379
38 n02457408   83 n02480495   104 n02480855  96 n02481823   185 n02483362  122 n02483708  73 n02484975   135 n02486261
137 n02486410  314 n03982430  788 n03983396  838 n03991062  566 n03992509  373 n03995372  769 n03998194  556 n04004767
702 n04005630  542 n04008634  534 n04009552  572 n04019541  846 n04023962  939 n04026417  862 n04033901  976 n04033995
273 n04037443  860 n04039381  571 n04040759  863 n04041544  537 n04044716
"""


def test_class_numbers_equal_the_label_map():
    entries = LABEL_MAP.split()
    np.testing.assert_array_equal(inception_classes(entries[1::2]), np.array(entries[::2], int))


def test_there_are_a_thousand_classes_numbered_from_1():
    assert len(WORDNET_IDS) == len(set(WORDNET_IDS)) == 1000
    assert all(re.fullmatch(r"n\d{8}", name) for name in WORDNET_IDS)
    np.testing.assert_array_equal(np.sort(inception_classes(sorted(WORDNET_IDS))), np.arange(1, 1001))


def test_an_unknown_class_is_named():
    with pytest.raises(UserError, match=r"--metrics accuracy.* class 'tench'"):
        inception_classes(["n01440764", "tench", "goldfish"])
