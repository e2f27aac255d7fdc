"""The texts of the pages, in English and in Chinese."""

import re

LANGUAGES = ("en", "cn")
WORDS = {  # name: (English, Chinese)
    "language": ("en", "zh-CN"),
    "made_by": ("Made by gallery.py from", "由 gallery.py 生成，来源："),
    "facts": (
        "{classes} classes · {size}×{size} pixels · data set {dataset}",
        "{classes} 个类 · {size}×{size} 像素 · 数据集 {dataset}",
    ),
    "missing": ("Left out: {reason}", "此处略去：{reason}"),
    "grid": ("Classes", "各类样本"),
    "grid_text": (
        "Real training images and generated samples of each class. The seed of a sample is below it.",
        "每一类的真实训练图像与生成样本。样本下方的数字是种子。",
    ),
    "some_classes": ("{shown} of {all} classes are shown.", "共 {all} 类，此处展示 {shown} 类。"),
    "real": ("real", "真实图像"),
    "generated": ("generated", "生成样本"),
    "film": ("Training as a film", "训练过程"),
    "film_text": (
        "Samples of the same noise at different steps of the training, a row for each class.",
        "训练不同步数时，由同一组噪声生成的样本。每行一类。",
    ),
    "seed": ("seed {seed}", "种子 {seed}"),
    "seeds": ("seeds {first} → {last}", "种子 {first} → {last}"),
    "trained": ("{model}, {step} steps", "{model}，{step} 步"),
    "average": ("moving average of the weights", "权重的滑动平均"),
    "unsettled": (
        "few steps: images may look grey; --standing_batches 50 computes the batch statistics again",
        "步数较少：图像可能发灰；--standing_batches 50 会重新计算批统计量",
    ),
    "step": ("step {step}", "第 {step} 步"),
    "play": ("Play", "播放"),
    "within": ("Between two seeds", "同一类内插值"),
    "within_text": (
        "The class stays the same. The noise moves from one seed to another, along a great circle.",
        "类别不变，噪声沿大圆从一个种子移动到另一个种子。",
    ),
    "between": ("Between two classes", "两类之间插值"),
    "between_text": (
        "The noise stays the same. The embedding of the class moves from one class to another.",
        "噪声不变，类别嵌入从一类移动到另一类。",
    ),
    "one_class": ("There is one class only.", "只有一个类。"),
    "other_classes": (
        "--data_path has other classes than the generator ({difference})",
        "--data_path 的类别与生成器不同（{difference}）",
    ),
    "truncation": ("Truncation", "截断"),
    "truncation_text": (
        "The same seeds, with noise limited to ± the number on the left. Small numbers give typical images, large "
        "numbers give more varied images.",
        "种子相同，噪声被限制在 ± 左侧数值之内。数值越小，图像越典型；数值越大，图像越多样。",
    ),
    "neighbours": ("Nearest real images", "最近的真实图像"),
    "neighbours_text": (
        "A sample of each class, and the training images nearest to it in the feature space of the {network}. A number "
        "is the distance. A generator that had learnt images by heart would show the same image twice.",
        "每类一个样本，以及在{network}特征空间中与它最近的训练图像。数字是距离。若生成器只是背下了图像，同一图像会出现两次。",
    ),
    "inception": ("Inception network", " Inception 网络"),
    "classifier": ("classifier that test.py uses", " test.py 所用分类器"),
    "searched_all": ("All {total} training images were searched.", "检索了全部 {total} 张训练图像。"),
    "searched_some": (
        "{searched} of the {total} training images were searched.",
        "共 {total} 张训练图像，检索了其中 {searched} 张。",
    ),
    "medians": (
        "Median distance to the nearest training image: {samples} for samples, {tests} for real test images. Copies "
        "would be much nearer than test images are.",
        "到最近训练图像的距离中位数：样本为 {samples}，真实测试图像为 {tests}。复制品的距离会远小于测试图像。",
    ),
    "attention": ("Where the generator looks", "生成器的注意力"),
    "attention_text": (
        "Self-attention at {side}×{side} positions. A dot is a query point. The map of the same colour shows the "
        "places that this point reads: the brighter, the larger the weight.",
        "{side}×{side} 个位置上的自注意力。圆点是查询点，同色的图显示该点读取的位置：越亮，权重越大。",
    ),
    "attention_over": ("Attention over training", "训练过程中的注意力"),
    "attention_over_text": (
        "The same seed and query points at the checkpoints of the run. γ is the gate: how much of the attention's "
        "output is added. It starts at 0.",
        "各检查点上相同的种子与查询点。γ 是门控：注意力输出被加入的比例，初始为 0。",
    ),
    "curves": ("Curves", "曲线"),
    "curves_text": ("Figures by step, as log.txt has them.", "log.txt 中各步的数值。"),
    "loss": ("losses", "损失"),
    "logits": ("mean logits of D", "判别器的平均 logits"),
    "class accuracy": ("class accuracy of D", "判别器的分类准确率"),
    "health: right": ("share of images that D judges correctly", "判别器判断正确的图像比例"),
    "health: gradients": ("norms of the gradients", "梯度范数"),
    "health: gates": ("gates of the attention", "注意力的门控"),
    "health: class_distance": (
        "distance between samples of a class, over that of real images", "同类样本间的距离与真实图像之比",
    ),
    "speed: seconds": ("speed: seconds of the updates of D and G in a step", "速度：每步中 D、G 更新的秒数"),
    "speed: images_per_second": ("speed: images a second", "速度：每秒图像数"),
    "speed: data_wait": ("speed: seconds a step that wait for data", "速度：每步等待数据的秒数"),
    "reports": ("Reports", "评测报告"),
    "reports_text": ("The reports of test.py in the run's folder.", "本次运行文件夹中 test.py 的评测报告。"),
    "demo": ("Draw with a generator", "用生成器作画"),
    "class": ("class", "类别"),
    "a_seed": ("seed", "种子"),
    "limit": ("truncation: noise within ± this; 0: all", "截断：噪声限制在 ± 此值之内；0 为不截断"),
    "image": ("image", "图像"),
    "download": ("Download PNG", "下载 PNG"),
    "looks": ("where it looks", "注意力"),
    "click": (
        "Click a point of the image to see which places that point reads.",
        "点击图像中的一点，查看该点读取的位置。",
    ),
    "walk": ("interpolation", "插值"),
    "choose": ("choose", "请选择"),
    "walk_to": ("end of the interpolation", "插值终点"),
    "to_seed": ("to the second seed", "到第二个种子"),
    "to_class": ("to the second class", "到第二个类别"),
    "other_seed": ("second seed", "第二个种子"),
    "other_class": ("second class", "第二个类别"),
    "share": ("share of the way", "插值比例"),
    "point": ("point", "点"),
    "number_wanted": ("{name}: give a number from {low} to {high}", "{name}：请输入 {low} 至 {high} 之间的数"),
    "whole_number_wanted": (
        "{name}: give a whole number from {low} to {high}", "{name}：请输入 {low} 至 {high} 之间的整数",
    ),
    "figure": ("figure", "指标"),
    "here": ("here", "本次"),
    "paper": ("paper", "论文"),
    "replication": ("replication", "复现"),
    "settings": ("Settings", "设置"),
    "settings_text": (
        "Options that differ from those of the recipe {recipe}.",
        "与配方 {recipe} 不同的选项。",
    ),
    "all_settings": ("All options", "全部选项"),
    "settings_of_test": ("Settings of this test", "本次评测的设置"),
    "option": ("option", "选项"),
    "value": ("value", "取值"),
    "none_differ": ("None differs.", "没有不同。"),
}  # fmt: skip

TITLES = {  # titles of figures, without what `title` adds: Chinese
    "FID": "FID",
    "FID of real test images against training images": "真实测试图像与训练图像之间的 FID",
    "intra-FID": "类内 FID",
    "Inception Score": "Inception Score",
    "Inception Score, standard deviation over 10 splits": "Inception Score，10 份的标准差",
    "score": "得分",
    "score, standard deviation over 10 splits": "得分，10 份的标准差",
    "KID": "KID",
    "KID, standard deviation over subsets": "KID，各子集的标准差",
    "precision": "精确率",
    "recall": "召回率",
    "density": "密度",
    "coverage": "覆盖率",
    "read as the class asked for": "被识别为所要求的类别",
    "real test images read as their class": "真实测试图像被识别为其类别",
    "real test images read by a classifier trained on samples (CAS)": "由样本训练的分类器认对的真实测试图像（CAS）",
    "real test images read by a classifier trained on real images": "由真实图像训练的分类器认对的真实测试图像",
    "samples read by a classifier trained on real images": "由真实图像训练的分类器认对的样本",
    "MS-SSIM within a class": "同类样本的 MS-SSIM",
    "MS-SSIM within a class, real images": "同类真实图像的 MS-SSIM",
    "classes at least as varied as the least varied real one": "多样性不低于最单一的真实类别的类别数",
    "share of classes at least as varied as the least varied real one": "多样性不低于最单一的真实类别的类别比例",
    "distance within a class, generated over real": "同类样本间的距离与同类真实图像间的距离之比",
}
ADDED = ((", at ", " pixels", "，{} 像素"), (", ", " features", "，{} 维特征"))  # to a title, around a number


def title(english, language):
    """The title of a figure of a report in `language`. One that is unknown stays as it is."""
    base, added = english.removeprefix("classifier "), ""
    for before, after, chinese in ADDED:
        if match := re.fullmatch(f"(.+){before}([0-9]+){after}", base):
            base, added = match[1], chinese.format(match[2])
    if language == "en" or base not in TITLES:
        return english
    return "分类器 " * english.startswith("classifier ") + TITLES[base] + added


def words(language):
    """{name: text} of the pages in `language`, one of LANGUAGES."""
    column = LANGUAGES.index(language)
    return {name: texts[column] for name, texts in WORDS.items()}
