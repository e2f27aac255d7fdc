"""The options and tags by which VisualDL compares runs."""

import dataclasses

from training import visual_records


def test_visualdl_compares_runs_by_what_is_learnt_and_by_scores(make_parameters):
    p = make_parameters(dataset="digits", eval_step=2, metrics="auto", name="mine")
    values, tags = visual_records._compared(p)
    assert values["d_lr"] == 2e-4 and values["model"] == "acgan-digits" and not {"name", "mirror", "amp"} & set(values)
    assert tags == [
        "1 loss/g_adv", "2 logits/D(x)", "2 logits/D(G(z))", "4 scores/classifier_fid", "4 scores/classifier_score",
        "4 scores/classifier_accuracy", "4 scores/class_distance_ratio",
    ]  # fmt: skip
    assert visual_records._compared(dataclasses.replace(p, eval_step=0))[1] == tags[:3]
