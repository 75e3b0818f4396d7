"""The subsets of ImageNet-1k that papers name, as WordNet ids (what these mean: `timm.data.ImageNetInfo`)."""

from __future__ import annotations

from collections.abc import Sequence

from attar.core.errors import AttarError, suggestion
from attar.core.wording import listed
from attar.data.class_names import imagenet_names, imagenet_wnids, matches
from attar.data.source_contract import unique_names

_CMC = """
n02869837 n01749939 n02488291 n02107142 n13037406 n02091831 n04517823 n04589890 n03062245 n01773797
n01735189 n07831146 n07753275 n03085013 n04485082 n02105505 n01983481 n02788148 n03530642 n04435653
n02086910 n02859443 n13040303 n03594734 n02085620 n02099849 n01558993 n04493381 n02109047 n04111531
n02877765 n04429376 n02009229 n01978455 n02106550 n01820546 n01692333 n07714571 n02974003 n02114855
n03785016 n03764736 n03775546 n02087046 n07836838 n04099969 n04592741 n03891251 n02701002 n03379051
n02259212 n07715103 n03947888 n04026417 n02326432 n03637318 n01980166 n02113799 n02086240 n03903868
n02483362 n04127249 n02089973 n03017168 n02093428 n02804414 n02396427 n04418357 n02172182 n01729322
n02113978 n03787032 n02089867 n02119022 n03777754 n04238763 n02231487 n03032252 n02138441 n02104029
n03837869 n03494278 n04136333 n03794056 n03492542 n02018207 n04067472 n03930630 n03584829 n02123045
n04229816 n02100583 n03642806 n04336792 n03259280 n02116738 n02108089 n03424325 n01855672 n02090622
"""
_KAGGLE = """
n01440764 n01443537 n01484850 n01491361 n01494475 n01496331 n01498041 n01514668 n01514859 n01531178
n01537544 n01560419 n01582220 n01592084 n01601694 n01608432 n01614925 n01622779 n01630670 n01632458
n01632777 n01644900 n01664065 n01665541 n01667114 n01667778 n01675722 n01677366 n01685808 n01687978
n01693334 n01695060 n01698640 n01728572 n01729322 n01729977 n01734418 n01735189 n01739381 n01740131
n01742172 n01749939 n01751748 n01753488 n01755581 n01756291 n01770081 n01770393 n01773157 n01773549
n01773797 n01774384 n01774750 n01775062 n01776313 n01795545 n01796340 n01798484 n01806143 n01818515
n01819313 n01820546 n01824575 n01828970 n01829413 n01833805 n01843383 n01847000 n01855672 n01860187
n01877812 n01883070 n01910747 n01914609 n01924916 n01930112 n01943899 n01944390 n01950731 n01955084
n01968897 n01978287 n01978455 n01984695 n01985128 n01986214 n02002556 n02006656 n02007558 n02011460
n02012849 n02013706 n02018207 n02018795 n02027492 n02028035 n02037110 n02051845 n02058221 n02077923
"""
_NETTE = "n01440764 n02102040 n02979186 n03000684 n03028079 n03394916 n03417042 n03425413 n03445777 n03888257"
_WOOF = "n02086240 n02087394 n02088364 n02089973 n02093754 n02096294 n02099601 n02105641 n02111889 n02115641"

_GLAD = {
    "imagenet-a": "n02111129 n02489166 n11879895 n02457408 n03042490 n12057211 n02342885 n03447447 n02071294 n02013706",
    "imagenet-b": "n02006656 n06359193 n01820546 n02116738 n13044778 n04487081 n01872401 n02112018 n03841143 n02025239",
    "imagenet-c": "n03393912 n01833805 n03344393 n03208938 n01828970 n02606052 n02129165 n02017213 n02280649 n01531178",
    "imagenet-d": "n01518878 n02111889 n01534433 n02112706 n01592084 n02389026 n02276258 n01622779 n01829413 n02277742",
    "imagenet-e": "n04277352 n01843383 n01860187 n02056570 n03992509 n03924679 n04153751 n01774750 n03857828 n02281787",
    "imagenet-birds": (
        "n01806143 n02007558 n01818515 n02051845 n02056570 n01614925 n01843383 n01518878 n01860187 n01819313"
    ),
    "imagenet-fruits": (
        "n07753275 n07753592 n07745940 n07747607 n07749582 n07768694 n07753113 n07720875 n07718472 n07742313"
    ),
    "imagenet-cats": (
        "n02123045 n02123159 n02123394 n02123597 n02124075 n02129165 n02129604 n02128925 n02128757 n02127052"
    ),
}

SUBSETS: dict[str, tuple[str, ...]] = {
    "imagenette": tuple(_NETTE.split()),
    "imagewoof": tuple(_WOOF.split()),
    "imagenet10-idc": tuple(_CMC.split()[:10]),
    "imagenet-10": tuple(_CMC.split()[:10]),
    "imagenet100-cmc": tuple(_CMC.split()),
    "imagenet100-kaggle": tuple(_KAGGLE.split()),
    **{name: tuple(wnids.split()) for name, wnids in _GLAD.items()},
}
"""WordNet ids, in the published order (imagenet100-kaggle and imagewoof: in an order of their own).

imagenette, imagewoof: fastai's ten classes, as Minimax's lists have them. imagenet10-idc: IDC's ten (Kim et al., ICML
2022), the first of its hundred. imagenet-10: a name of RDED's, whose code lists no classes; taken to be the same ten.
imagenet-a to -e, -birds, -fruits, -cats: GLaD's (Cazenavette et al., CVPR 2023, utils.py, alpha being a), which RDED
names too; ImageNet-A of Hendrycks et al. is another data set. imagenet100-cmc: drawn for CMC (Tian et al., ECCV 2020;
imagenet100.txt of HobbitLong/CMC) and used by IDC, as class100.txt, and by those who follow it. imagenet100-kaggle: the
data set ambityga/imagenet100, mostly animals; only 8 classes are in both.
"""

COUNTS: dict[str, tuple[int, int]] = {
    "imagewoof, fastai's": (9_025, 3_929),
    "imagewoof, from ImageNet-1k": (12_454, 500),
}
"""Training and test images of the two ImageWoofs that circulate: their classes are the same, their images are not."""


def subset(name: str) -> tuple[str, ...]:
    """The WordNet ids of a named subset, in the published order.

    Raises:
        AttarError: no subset has this name.
    """
    if name not in SUBSETS:
        raise AttarError(f"no ImageNet subset {name!r}{suggestion(name, SUBSETS)}; there are {', '.join(SUBSETS)}")
    return SUBSETS[name]


def members(name: str, classes: Sequence[str]) -> tuple[str, ...]:
    """The names that a data set gives to the classes of a named subset, in the published order.

    A class may be called by its WordNet id ("n02086240", "n02086240_Shih-Tzu"), as `timm` and the hub's imagenet-1k
    call it ("Shih-Tzu", "crane (517)" for the second crane), or by any of its synonyms that no other class has.

    Raises:
        AttarError: no subset has this name, or the data lacks some of its classes: all of them are listed.
    """
    wanted, known = subset(name), _identified(classes)
    called = {wnid: [own for own, other in known.items() if other == wnid] for wnid in wanted}
    english = dict(zip(imagenet_wnids(), imagenet_names(), strict=True))
    if missing := [f"{wnid} ({english[wnid]})" for wnid, own in called.items() if not own]:
        raise AttarError(f"the data lacks {len(missing)} of the {len(wanted)} classes of {name}: {listed(missing)}")
    if twice := next((own for own in called.values() if len(own) > 1), None):
        raise AttarError(f"the classes {listed(twice)} of the data are one class of {name}: merge or rename one")
    return tuple(own for (own,) in called.values())


def _identified(classes: Sequence[str]) -> dict[str, str]:
    """The WordNet ids of those classes that are clearly one of ImageNet's."""
    names, wnids = imagenet_names(), imagenet_wnids()
    described = dict(zip(unique_names(names), wnids, strict=True))
    labels = matches(classes, names, len(names), classes)
    known = {own: wnids[may[0]] for own, may in labels.items() if len(may) == 1}
    known |= {own: described[own] for own in classes if own in described}
    return known | {own: own[:9] for own in classes if own[1:9].isdigit() and own[9:10] in ("", "_", " ", "-")}


def which_imagewoof(training_images: int) -> str | None:
    """Which of the two ImageWoofs has this many training images; None if neither."""
    return next((name for name, (train, _) in COUNTS.items() if train == training_images), None)
