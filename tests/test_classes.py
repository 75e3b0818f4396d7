"""Data classes to prior classes: by name, WordNet id, synonym, position or a file; subsets; a prior in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toys import save_folder, save_tiny_dit
from typer.testing import CliRunner

from attar.cli import app
from attar.core.errors import AttarError
from attar.core.store import Store
from attar.data.class_names import imagenet_names, imagenet_wnids, is_imagenet, match, matches, read_class_map
from attar.data.imagenet import SUBSETS
from attar.job import Job, Spec, named_classes
from attar.priors import load_prior
from attar.priors.describe import described_match, prior_in_words

IMAGENET = imagenet_names()


def labels(*names: str, known: tuple[str, ...] = IMAGENET, **given: dict[str, int | str]) -> list[int]:
    return match(names, known, len(known), names, given.get("mapping"))


def test_imagenet_by_wordnet_id_in_any_form() -> None:
    assert labels("n01440764", "n02086240_Shih-Tzu", "n03888257 parachute") == [0, 155, 701]
    assert [IMAGENET[label].split(",")[0] for label in labels(*SUBSETS["imagenette"])][:3] == [
        "tench",
        "English springer",
        "cassette player",
    ]
    assert labels(*imagenet_wnids()) == list(range(1000))


def test_imagenet_by_synonym_in_any_spelling() -> None:
    assert labels("Carassius_auratus", "GOLDFISH", "man-eater") == [1, 1, 2]
    assert labels("tabby, house tiger", "tench, some other fish") == [labels("tabby")[0], 0]


def test_a_wordnet_id_needs_imagenets_own_order() -> None:
    shuffled = IMAGENET[::-1]
    assert is_imagenet(IMAGENET)
    assert not is_imagenet(shuffled)
    assert not is_imagenet(IMAGENET[:10])
    with pytest.raises(AttarError, match="'n01440764'"):
        labels("n01440764", known=shuffled)
    assert labels("tench", known=shuffled) == [999]


def test_other_lists_of_imagenets_names_count_as_imagenets() -> None:
    firsts = tuple(name.split(",")[0] for name in IMAGENET)
    assert labels("n01440764", "Tinca tinca", known=firsts) == [0, 0]


def test_two_cranes() -> None:
    with pytest.raises(AttarError, match=r"'crane' \(134, 517\); choose one with `class_map`"):
        labels("crane")
    from attar.data.source_contract import unique_names

    names = unique_names(IMAGENET)
    assert "crane (517)" in names
    assert match(["crane", "crane (517)", "maillot, tank suit"], IMAGENET, 1000, names) == [134, 517, 639]


def test_a_class_map_decides_before_names(tmp_path: Path) -> None:
    toml, table = tmp_path / "map.toml", tmp_path / "map.json"
    toml.write_text('crane = 517\n"my fish" = "tench"\n"<b>" = "n02086240"\n')
    table.write_text(json.dumps({"crane": 517, "my fish": "tench", "<b>": "n02086240"}))
    mapping = read_class_map(toml)
    assert mapping == read_class_map(table)
    names = ["goldfish", "crane", "my fish", "<b>"]
    assert match(names, IMAGENET, 1000, names, mapping) == [1, 517, 0, 155]
    assert match(["crane"], IMAGENET, 1000, names, mapping) == [517]


def test_a_class_map_serves_priors_without_names() -> None:
    assert match(["a", "b"], None, 7, ["a", "b"], {"a": 6, "b": 0}) == [6, 0]
    assert match(["a", "b"], None, 2, ["a", "b"], {"a": 1}) == [1, 1]
    with pytest.raises(AttarError, match="7 classes without names and the data 2"):
        match(["a", "b"], None, 7, ["a", "b"], {"a": 6})


def test_numbers_that_sort_otherwise_than_they_count_are_not_matched_by_place() -> None:
    from_zero = sorted(str(number) for number in range(12))  # 0, 1, 10, 11, 2 ...
    from_one = sorted(str(number) for number in range(1, 13))
    with pytest.raises(AttarError, match=r"'10' is its label 2 by place, and 10 by number; rename .*`class_map` FILE"):
        match(from_zero, None, 12, from_zero)
    with pytest.raises(AttarError, match="'10' is its label 1 by place, and 9 by number"):
        match(["10"], None, 12, from_one)
    said = {name: int(name) for name in from_zero}
    assert match(from_zero, None, 12, from_zero, said) == list(said.values())
    assert match(["0", "1"], None, 12, from_zero) == [0, 1]
    padded = [f"{number:02d}" for number in range(1, 13)]
    assert match(padded, None, 12, padded) == list(range(12))
    assert match([*from_zero[1:], "a"], None, 12, [*from_zero[1:], "a"]) == list(range(12))


def test_classes_that_the_prior_does_not_tell_apart_are_refused() -> None:
    with pytest.raises(AttarError, match="does not tell these classes of the data apart: 'Cat', 'cat'; rename some"):
        match(["Cat", "cat", "dog"], ["dog", "cat", "emu"], 3, ["Cat", "cat", "dog"])
    assert match(["Cat", "cat"], ["dog", "cat", "CAT"], 3, ["Cat", "cat"], {"Cat": 2, "cat": 1}) == [2, 1]
    assert match(["Cat", "cat"], ["dog", "cat"], 2, ["Cat", "cat"], {"Cat": 1, "cat": 1}) == [1, 1]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"tnch": 0}, r"no class 'tnch' \(did you mean 'tench'\?\)"),
        ({"tench": 1000}, r"'tench' = 1000: the prior's labels are 0 to 999"),
        ({"tench": -1}, r"0 to 999"),
        ({"TENCH": 0}, r"no class 'TENCH' \(did you mean 'tench'\?\)"),
        ({"tench": "tensh"}, r"no such class \(did you mean 'tench'"),
        ({"tench": "crane"}, r"has several, \[134, 517\]"),
    ],
)
def test_wrong_class_maps_are_refused(mapping: dict[str, int | str], message: str) -> None:
    with pytest.raises(AttarError, match=f"`class_map`: .*{message}"):
        match(["tench"], IMAGENET, 1000, ["tench"], mapping)


def test_names_cannot_be_mapped_to_a_prior_without_any() -> None:
    with pytest.raises(AttarError, match="has no class names; give its label"):
        match(["a"], None, 1, ["a"], {"a": "b"})


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.toml", "a = [1]"), ("a.toml", "a = true"), ("a.json", '{"a": 1.5}'), ("a.json", "[1]"), ("a.toml", "a = ")],
)
def test_files_that_are_no_class_maps_are_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(AttarError, match=rf"`class_map` .*{name}"):
        read_class_map(tmp_path / name)
    with pytest.raises(AttarError, match=r"`class_map` .*missing\.toml"):
        read_class_map(tmp_path / "missing.toml")


def test_matches_tells_none_one_and_several() -> None:
    assert matches(["tench", "crane", "blimp"], IMAGENET, 1000, ["tench", "crane", "blimp"]) == {
        "tench": [0],
        "crane": [134, 517],
        "blimp": [],
    }


def test_a_subset_names_its_members() -> None:
    woof = SUBSETS["imagewoof"]
    folders = [f"{wnid}_dog" for wnid in woof] + ["n01440764_tench"]
    assert named_classes(["imagewoof"], folders) == folders[:10]
    assert named_classes(["imagewoof", "n01440764_tench"], folders) == folders
    assert named_classes(["imagewoof"], ["imagewoof", "cat"]) == ["imagewoof"]
    with pytest.raises(AttarError, match="lacks 1 of the 10 classes of imagewoof"):
        named_classes(["imagewoof"], folders[1:])


def test_a_job_takes_subset_and_map_from_its_spec(tmp_path: Path, store: Store) -> None:
    woof = SUBSETS["imagewoof"]
    data = save_folder(tmp_path / "data", [*woof, "n01440764"], 1)
    prior = save_tiny_dit(tmp_path / "dit", [*(f"dog {label}" for label in range(10)), "fish"])
    table = tmp_path / "map.json"
    table.write_text(json.dumps({wnid: f"dog {9 - label}" for label, wnid in enumerate(sorted(woof))}))
    spec = Spec(data=str(data), prior=str(prior), classes=("imagewoof",), class_map=str(table), device="cpu", tile=1)
    job = Job(spec, store)
    assert job.classes == tuple(sorted(woof))
    assert job.prior_labels == list(range(10))[::-1]


def test_a_prior_in_words(tmp_path: Path) -> None:
    prior = load_prior(str(save_tiny_dit(tmp_path / "dit", ["cat", "dog <b>", "fish"])), device="cpu", tile=1)
    text = prior_in_words(prior)
    for part in (
        "2 blocks of 16, 2 heads",
        "4 x 8 x 8",
        "AutoencoderKL, images of 16 x 16, scale 0.5",
        "epsilon, learned variance",
        "frequencies over 127",
        "3: 'cat', 'dog <b>', 'fish'; null label 3",
        prior.key,
    ):
        assert part in text
    matched = described_match(prior, ["Cat", "bird"])
    assert matched.splitlines()[0].startswith("1 of the data's 2 classes are matched by name")
    assert "'Cat'   0 'cat'" in matched
    assert "'bird'  unknown to the prior" in matched


def test_the_command_describe_prior(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    data = save_folder(tmp_path / "data", ["kitten", "dog"], 1)
    prior = save_tiny_dit(tmp_path / "dit", ["cat", "dog"])
    (tmp_path / "map.toml").write_text('kitten = "cat"\n')
    arguments = ["describe-prior", str(prior), "--data", str(data), "--class-map", str(tmp_path / "map.toml")]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    assert "2 of the data's 2 classes are matched by name, 1 by the class map" in told.output
    assert "'kitten'  0 'cat'" in told.output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a", "Leonberg, proboscis monkey, rapeseed, three-toed sloth, cliff dwelling, yellow lady's slipper, hamster"),
        ("b", "spoonbill, web site, lorikeet, African hunting dog, earthstar, trolleybus, echidna, Pomeranian"),
        ("c", "freight car, hummingbird, fireboat, disk brake, bee eater, rock beauty, lion, European gallinule"),
        ("d", "ostrich, Samoyed, junco, Brabancon griffon, chickadee, sorrel, admiral, great grey owl, hornbill"),
        ("e", "spindle, toucan, black swan, king penguin, potter's wheel, photocopier, screw, tarantula, oscilloscope"),
        ("birds", "peacock, flamingo, macaw, pelican, king penguin, bald eagle, toucan, ostrich, black swan"),
        ("fruits", "pineapple, banana, strawberry, orange, lemon, pomegranate, fig, bell pepper, cucumber"),
        ("cats", "tabby, tiger cat, Persian cat, Siamese cat, Egyptian cat, lion, tiger, jaguar, snow leopard, lynx"),
    ],
)
def test_the_ten_classes_of_imagenets_subsets_are_those_of_their_papers(name: str, said: str) -> None:
    """In GLaD's order, by the names that its code gives them."""
    from attar.priors.prompts import spoken

    wnids = SUBSETS[f"imagenet-{name}"]
    assert len(set(wnids)) == 10
    assert [spoken(wnid).split(",")[0] for wnid in wnids][: said.count(",") + 1] == said.split(", ")


def test_a_subset_knows_its_members_by_any_of_their_names() -> None:
    english = ["tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck"]
    english += ["gas pump", "golf ball", "parachute", "kitten"]
    assert named_classes(["imagenette"], english) == english[:10]
    assert named_classes(["imagenette"], ["n01440764", *english[1:]]) == ["n01440764", *english[1:10]]
    with pytest.raises(AttarError, match=r"lacks 1 of the 10 classes of imagenette: n03888257 \(parachute, chute\)$"):
        named_classes(["imagenette"], english[:9])
    with pytest.raises(
        AttarError, match=r"the classes .*n01440764.* of the data are one class of imagenette: merge or"
    ):
        named_classes(["imagenette"], [*english, "n01440764"])


@pytest.mark.parametrize(
    ("written", "classes"),
    [('"3"', ["3"]), ('"3,4"', ["3", "4"]), ('["3", "4"]', ["3", "4"]), ("3", None), ('["3,4"]', None), ("[3]", None)],
)
def test_classes_in_toml_are_those_of_the_flag(tmp_path: Path, written: str, classes: list[str] | None) -> None:
    """In the file of a run and in that of an experiment: a text is one class, or several with commas between."""
    from attar.experiments.compare import compare
    from attar.experiments.spec import read_experiment

    run, grid = tmp_path / "run.toml", tmp_path / "grid.toml"
    shared = f'data = "digits@train"\nipc = 1\nclasses = {written}\n'
    run.write_text(f'{shared}method = "random"\nout = "{tmp_path / "a"}"\n')
    grid.write_text(
        f'{shared}out = "{tmp_path / "b"}"\n[methods.random]\n[evaluations.quick]\nnetworks = ["convnet3-w8"]\n'
    )
    ended = CliRunner().invoke(app, ["distill", "--config", str(run), "--dry-run"])
    if classes is None:
        words = "no class '3,4'" if "," in written else "classes = 3: must be a list, each a text"
        words = "classes = [3]: must be a list" if written == "[3]" else words
        assert isinstance(ended.exception, AttarError)
        assert words in str(ended.exception)
        with pytest.raises(AttarError) as error:
            compare(read_experiment(grid), dry_run=True)
        assert words in str(error.value)
        return
    assert f"of {len(classes)} class" in ended.output
    assert read_experiment(grid).contenders[0].spec.classes == tuple(classes)
