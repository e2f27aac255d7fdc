"""The titles of figures in Chinese."""

from metrics import all_metrics
from pages.words import TITLES, title

SAME = {"FID", "KID", "Inception Score"}


def titles():
    metrics = all_metrics().values()
    return {figure.title for metric in metrics for kind in (False, True) for figure in metric.shown(kind).values()}


def test_every_figure_has_a_chinese_title():
    assert {english for english in titles() if title(english, "cn") == english} == SAME
    assert {title(english, "en") for english in titles()} == titles()
    assert len({title(english, "cn") for english in titles()}) == len(titles())


def test_a_title_keeps_its_network_and_its_number():
    assert title("classifier FID, 64 features", "cn") == "分类器 FID，64 维特征"
    assert title("read as the class asked for, at 8 pixels", "cn") == "被识别为所要求的类别，8 像素"
    assert title("of a stranger's log", "cn") == "of a stranger's log"


def test_every_translation_is_of_a_title():
    for english in TITLES:
        assert any(english in known for known in titles()), english
