from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model.config import ImageConfig
from model.transforms import to_pixels
from training.__main__ import main
from training.data import DataError, load_dataset
from training.data.cartoon_faces import (
    ATTRIBUTES,
    LABELS,
    VARIATIONS,
    Attribute,
    Coupling,
    Faces,
    cartoon_faces_source,
    changed_pixels,
    masks,
    parse_couplings,
    render,
    sample_faces,
    split_faces,
    value_named,
)
from training.data.cartoon_faces.couplings import conditional_tables
from training.data.cartoon_faces.sheet import UNITS
from training.data.cartoon_faces.strokes import strokes

DRAWS_NOTHING = ("no_glasses", "no_hat", "no_moustache", "no_earrings")
LOCAL = tuple(attribute for attribute in ATTRIBUTES if attribute.reach == "local")
NAMES = tuple(attribute.name for attribute in ATTRIBUTES)


@pytest.fixture(scope="module")
def faces() -> Faces:
    return sample_faces(7, 96)


@pytest.fixture(scope="module")
def many() -> Faces:
    return sample_faces(0, 20_000)


def phi(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def coupled(text: str, count: int = 20_000) -> Faces:
    return sample_faces(0, count, couplings=parse_couplings(text))


# --- sampling


def test_a_face_is_the_same_whatever_is_sampled_and_drawn_with_it() -> None:
    all_of_them, few = sample_faces(3, 75), sample_faces(3, 5, start=41)
    np.testing.assert_array_equal(render(few), render(all_of_them)[41:46])
    np.testing.assert_array_equal(render(all_of_them[44:45]), render(few[3:4]))
    np.testing.assert_array_equal(masks(few, "hair_style"), masks(all_of_them, "hair_style")[41:46])


def test_a_seed_means_the_same_faces_for_ever() -> None:
    face = sample_faces(0, 1, start=1000)
    has = [label.name for label in LABELS if face.has(label.name)]
    assert has == GOLDEN_LABELS
    assert [face.values[name][0] for name in ("face_size", "tilt")] == pytest.approx(GOLDEN_NUMBERS)


GOLDEN_LABELS = [
    "fair_hair", "long_hair", "smile", "glasses", "hat", "earrings", "green_collar", "dark_skin",
    "tilted_right",
]  # fmt: skip
GOLDEN_NUMBERS = [0.9729134440422058, 8.770547866821289]


def test_no_training_face_is_a_test_face() -> None:
    train, test = split_faces("cartoon-faces", "train"), split_faces("cartoon-faces", "test")
    assert (len(train), len(test)) == (50_000, 5_000)
    assert not np.isin(test.variation("head_x"), train.variation("head_x")[:5_000]).any()
    seen = {row.tobytes() for row in train.variations}
    assert not any(row.tobytes() in seen for row in test.variations)


def test_values_are_equally_likely_and_numbers_uniform(many: Faces) -> None:
    for attribute in ATTRIBUTES:
        shares = [many.has(value).mean() for value in attribute.values]
        assert shares == pytest.approx([attribute.probability] * len(attribute.values), abs=0.015)
        if attribute.kind == "continuous":
            low, high = attribute.limits
            deciles = np.quantile(many.values[attribute.name], np.arange(0, 11) / 10)
            assert (deciles - low) / (high - low) == pytest.approx(np.arange(0, 11) / 10, abs=0.015)


def test_attributes_and_variations_are_independent(many: Faces) -> None:
    numbers = np.concatenate([many.labels(), many.variations], axis=1, dtype=np.float64)
    owners = [label.attribute.name for label in LABELS] + list(VARIATIONS)
    correlation = np.asarray(np.corrcoef(numbers.T))
    other = np.array([[first != second for first in owners] for second in owners])
    assert np.abs(correlation[other]).max() < 0.035  # of 1,400 pairs, 5 standard errors


def test_labels_are_the_values_of_their_faces(faces: Faces) -> None:
    names = [label.name for label in LABELS]
    labels = faces.labels()
    assert labels.shape == (96, 25)
    assert labels.dtype == np.int8
    np.testing.assert_array_equal(labels[:, names.index("fair_hair")], faces.values["hair_colour"] == 3)
    np.testing.assert_array_equal(labels[:, names.index("smile")], faces.values["smile"])
    np.testing.assert_array_equal(labels[:, names.index("old")], faces.values["age"] >= 0.5)
    assert "no_smile" not in names


# --- counterfactuals


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=NAMES)
def test_a_counterfactual_differs_in_its_attribute_only(faces: Faces, attribute: Attribute) -> None:
    for value in attribute.values:
        changed = faces.with_value(attribute.name, value)
        assert changed.has(value).all()
        was = faces.has(value)
        np.testing.assert_array_equal(changed.values[attribute.name][was], faces.values[attribute.name][was])
        np.testing.assert_array_equal(changed.variations, faces.variations)
        for other in NAMES:
            if other != attribute.name:
                np.testing.assert_array_equal(changed.values[other], faces.values[other])


def test_a_number_is_mirrored_into_the_other_half_or_set(faces: Faces) -> None:
    tilt = faces.values["tilt"]
    np.testing.assert_allclose(faces.with_value("tilt", "tilted_right").values["tilt"], np.abs(tilt))
    np.testing.assert_array_equal(faces.with_value("tilt", 3.5).values["tilt"], np.float32(3.5))
    np.testing.assert_array_equal(faces.with_value("tilt", -tilt).values["tilt"], -tilt)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("wings", 1, "attribute must be one of hair_colour, .*, age, not 'wings'"),
        ("smile", "grin", "smile must be one of no_smile, smile, not 'grin'"),
        ("smile", 2, "smile must be an index from 0 to 1, not 2"),
        ("smile", 0.5, "smile must be an index from 0 to 1, not 0.5"),
        ("tilt", 40.0, "tilt must be a number from -12.0 to 12.0, not 40.0"),
        ("tilt", float("nan"), "tilt must be a number from -12.0 to 12.0, not nan"),
    ],
)
def test_an_impossible_change_is_told_what_is_possible(
    faces: Faces, attribute: str, value: str | float, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        faces.with_value(attribute, value)


# --- where attributes are


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=NAMES)
def test_a_change_touches_only_pixels_of_its_masks(faces: Faces, attribute: Attribute, size: int) -> None:
    before = masks(faces, attribute.name, size) > 0.0
    for value in attribute.values:
        changed = faces.with_value(attribute.name, value)
        touched = changed_pixels(faces, changed, size)
        after = masks(changed, attribute.name, size) > 0.0
        assert not (touched & ~before & ~after).any()
        did_change = ~faces.has(value)
        assert touched[did_change].any(axis=(1, 2)).all()
        assert not touched[~did_change].any()


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=NAMES)
def test_a_mask_shows_what_is_there_and_nothing_else(faces: Faces, attribute: Attribute) -> None:
    found = masks(faces, attribute.name)
    assert found.shape == (96, 64, 64)
    assert found.dtype == np.float32
    assert found.min() >= 0.0
    assert found.max() <= 1.0
    pixels = (found > 0.5).sum(axis=(1, 2))
    for value in attribute.values:
        shown = pixels[faces.has(value)]
        assert (shown == 0).all() if value in DRAWS_NOTHING else (shown >= 8).all(), value


@pytest.mark.parametrize(
    ("value", "left", "top", "right", "bottom"),
    [
        ("smile", 16, 34, 48, 56),
        ("glasses", 10, 18, 54, 48),
        ("hat", 2, 0, 62, 36),
        ("moustache", 18, 32, 46, 52),
        ("collar_colour", 18, 48, 46, 64),
    ],
)
def test_an_attribute_keeps_to_its_place(
    faces: Faces, value: str, left: int, top: int, right: int, bottom: int
) -> None:
    name = value if value in NAMES else value_named(value).attribute.name
    shown = masks(faces, name)
    inside = shown[:, top:bottom, left:right].sum()
    assert inside > 0.99 * shown.sum()


def test_a_hat_hides_the_hair_under_it(faces: Faces) -> None:
    bare, covered = faces.with_value("hat", "no_hat"), faces.with_value("hat", "hat")
    hat, hair_before, hair = masks(covered, "hat"), masks(bare, "hair_style"), masks(covered, "hair_style")
    assert (hair[hat == 1.0] == 0.0).all()
    assert (hair_before[hat == 1.0] > 0.0).any()
    assert (hair + hat <= 1.0 + 1e-6).all()
    np.testing.assert_array_equal(hair[hat == 0.0], hair_before[hat == 0.0])
    assert (hair.sum(axis=(1, 2)) < 0.9 * hair_before.sum(axis=(1, 2))).all()


def test_fair_hair_is_bright_where_its_mask_says_so(faces: Faces) -> None:
    fair = faces.with_value("hair_colour", "fair_hair").with_value("lighting", 1.0)
    mask = masks(fair, "hair_colour") == 1.0
    red, _, blue = (render(fair)[:, channel][mask].astype(float) for channel in range(3))
    assert red.mean() - blue.mean() > 80.0


def test_an_unknown_attribute_has_no_mask(faces: Faces) -> None:
    with pytest.raises(DataError, match=r"attribute must be one of hair_colour, .*, not 'fair_hair'"):
        masks(faces, "fair_hair")


# --- pictures


def test_no_stroke_is_cut_off_by_its_window(many: Faces) -> None:
    """The largest, most tilted and most varied faces included."""
    rng = np.random.default_rng(0)
    extreme = {
        attribute.name: rng.choice(np.array(attribute.limits, np.float32), 400)
        if attribute.kind == "continuous"
        else many.values[attribute.name][:400]
        for attribute in ATTRIBUTES
    }
    corners = Faces(extreme, rng.choice(np.array([-1, 1], np.float32), (400, len(VARIATIONS))))
    for batch in (many[:100], *(corners[start : start + 100] for start in range(0, 400, 100))):
        for stroke in strokes(batch, UNITS):
            left, top, right, bottom = stroke.window
            edges = [
                stroke.coverage[:, :, :1] if left > 0 else None,
                stroke.coverage[:, :, -1:] if right < UNITS else None,
                stroke.coverage[:, :1] if top > 0 else None,
                stroke.coverage[:, -1:] if bottom < UNITS else None,
            ]
            assert all(edge.max(initial=0.0) == 0.0 for edge in edges if edge is not None), stroke.owners
            assert stroke.coverage.dtype == stroke.colour.dtype == np.float32


def test_a_small_picture_is_the_large_one_averaged(faces: Faces) -> None:
    large, small = render(faces, 128).astype(float), render(faces, 32).astype(float)
    averaged = large.reshape(len(faces), 3, 32, 4, 32, 4).mean(axis=(3, 5))
    assert np.abs(averaged - small).mean() < 4.0


def test_no_faces_make_no_pictures(faces: Faces) -> None:
    assert render(faces[:0]).shape == (0, 3, 64, 64)
    assert masks(faces[:0], "hat").shape == (0, 64, 64)


@pytest.mark.parametrize("size", [15, 257])
def test_pictures_have_a_smallest_and_a_largest_size(faces: Faces, size: int) -> None:
    with pytest.raises(DataError, match=f"are 16 to 256 pixels wide and high, not {size}"):
        render(faces, size)


# --- couplings


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_a_coupling_has_the_strength_asked_for_and_keeps_both_frequencies(
    many: Faces, strength: float
) -> None:
    (coupling,) = parse_couplings(f"fair_hair=smile@{strength}")
    found = sample_faces(0, 20_000, couplings=[coupling])
    fair, smile = found.has("fair_hair"), found.has("smile")
    np.testing.assert_array_equal(fair, many.has("fair_hair"))
    assert smile.mean() == pytest.approx(0.5, abs=0.015)
    assert smile[fair].mean() == pytest.approx(0.5 + strength * 0.5, abs=0.02)
    assert phi(fair, smile) == pytest.approx(coupling.phi, abs=0.02)
    if strength == 1.0:
        assert smile[fair].all()


def test_between_equally_frequent_values_strength_is_phi() -> None:
    found = coupled("hat=glasses@0.7")
    assert Coupling.parse("hat=glasses@0.7").phi == pytest.approx(0.7)
    assert phi(found.has("hat"), found.has("glasses")) == pytest.approx(0.7, abs=0.02)


def test_a_coupling_changes_of_every_face_only_what_it_must(many: Faces) -> None:
    found = coupled("fair_hair=smile@0.5")
    for name in NAMES:
        if name != "smile":
            np.testing.assert_array_equal(found.values[name], many.values[name])
    np.testing.assert_array_equal(found.variations, many.variations)
    fair, before, after = many.has("fair_hair"), many.has("smile"), found.has("smile")
    assert (after[fair] >= before[fair]).all()
    assert (after[~fair] <= before[~fair]).all()


def test_the_papers_case_is_three_couplings() -> None:
    """Blond and brown hair always smile, black hair never does (Weng et al. 2026)."""
    found = coupled("fair_hair=smile@1+brown_hair=smile@1+black_hair=no_smile@1")
    smile = found.has("smile")
    assert smile[found.has("fair_hair") | found.has("brown_hair")].all()
    assert not smile[found.has("black_hair")].any()
    assert smile.mean() == pytest.approx(0.5, abs=0.015)


def test_a_chain_of_couplings_keeps_every_frequency() -> None:
    found = coupled("old=large_face@0.8+glasses=old@0.6+large_face=dark_skin@0.3")
    assert phi(found.has("glasses"), found.has("old")) == pytest.approx(0.6, abs=0.02)
    assert phi(found.has("old"), found.has("large_face")) == pytest.approx(0.8, abs=0.02)
    assert phi(found.has("glasses"), found.has("large_face")) == pytest.approx(0.48, abs=0.02)
    for value in ("old", "large_face", "dark_skin"):
        assert found.has(value).mean() == pytest.approx(value_named(value).attribute.probability, abs=0.015)


def test_any_two_values_can_be_coupled_and_frequencies_kept() -> None:
    values = [value_named(name) for attribute in ATTRIBUTES for name in attribute.values]
    for premise in values:
        for conclusion in values:
            p, q = premise.attribute.probability, conclusion.attribute.probability
            if premise.attribute == conclusion.attribute:
                continue
            strength = min(1.0, q * (1.0 - p) / (p * (1.0 - q)))
            tables = conditional_tables([Coupling(premise, conclusion, strength)])
            (table,) = (table for table in tables if table.attribute == conclusion.attribute)
            rows = table.probabilities
            assert rows.min() >= 0.0
            np.testing.assert_allclose(rows.sum(axis=1), 1.0)
            np.testing.assert_allclose(rows.mean(axis=0), q)
            assert rows[premise.index, conclusion.index] == pytest.approx(q + strength * (1.0 - q))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "a coupling is VALUE=VALUE@STRENGTH, several joined by [+], such as fair_hair=smile@0.8, not ''",
        ),
        ("fair_hair=smile", "a coupling is VALUE=VALUE@STRENGTH.*, not 'fair_hair=smile'"),
        ("fair_hair@1", "a coupling is VALUE=VALUE@STRENGTH.*, not 'fair_hair@1'"),
        ("fair=smile@1", "'fair' is none of the values black_hair, .*, fair_hair, .*, old"),
        ("fair_hair=smile@lots", "a strength must be 0 to 1, not 'lots'"),
        ("fair_hair=smile@1.5", "fair_hair=smile@1.5: a strength must be 0 to 1, not 1.5"),
        ("fair_hair=smile@nan", "a strength must be 0 to 1, not nan"),
        ("fair_hair=red_hair@1", "both are values of hair_colour, name two attributes"),
        (
            "smile=fair_hair@1",
            "values of hair_colour cannot stay as frequent as they are; a strength up to 0.333 is possible, "
            "and so is the other way round, fair_hair=smile@1",
        ),
        (
            "smile=hat@1+no_smile=no_hat@0.5",
            "values of hat cannot stay as frequent as they are; choose other strengths",
        ),
        (
            "hat=smile@1+glasses=smile@1",
            "smile can be coupled to one attribute only, not to hat and glasses",
        ),
        ("hat=smile@1+hat=no_smile@1", "hat is coupled to smile twice"),
        ("hat=smile@1+smile=glasses@1+glasses=hat@1", "go round in a circle through smile, glasses, hat"),
    ],
)
def test_couplings_that_cannot_be_are_told_why(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_couplings(text)


# --- the data set


def test_the_data_set_is_drawn_into_the_cache_and_labelled(tmp_path: Path) -> None:
    name, image = "cartoon-faces:fair_hair=smile@1+hat=glasses@0.5", ImageConfig(3, 16, 16)
    dataset = load_dataset(name, None, "test", image, cache=tmp_path)
    faces = split_faces(name, "test")
    np.testing.assert_array_equal(dataset.pixels, render(faces, 16))
    np.testing.assert_array_equal(dataset.attributes, faces.labels())
    assert dataset.attribute_names == tuple(label.name for label in LABELS)
    assert dataset.class_names == ()
    columns = dict(zip(dataset.attribute_names, dataset.attributes.T, strict=True))
    assert columns["smile"][columns["fair_hair"] == 1].all()
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_gray_faces_are_the_coloured_ones_without_colour() -> None:
    image = ImageConfig(1, 32, 32)
    source = cartoon_faces_source("cartoon-faces", "test", image)
    coloured = render(split_faces("cartoon-faces", "test")[90:91], 32)[0]
    expected = to_pixels(Image.fromarray(coloured.transpose(1, 2, 0)), image)
    np.testing.assert_array_equal(to_pixels(source.picture(90), image), expected)


def test_other_couplings_sizes_and_splits_are_other_pictures() -> None:
    sources = [
        cartoon_faces_source(name, split, ImageConfig(3, size, size))
        for name in ("cartoon-faces", "cartoon-faces:hat=smile@1")
        for split in ("train", "test")
        for size in (32, 64)
    ]
    names = {f"{source.fingerprint()} {len(source)}" for source in sources}
    assert len(names) == len(sources)


def test_a_face_that_is_not_square_is_refused() -> None:
    with pytest.raises(DataError, match=r"cartoon-faces are square, 16 to 256 pixels .*, not 64 and 32"):
        load_dataset("cartoon-faces", None, "test", ImageConfig(3, 32, 64))


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cartoon-faces are drawn, not read: leave out the directory"):
        load_dataset("cartoon-faces", tmp_path, "test", ImageConfig(3, 64, 64))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [("cartoon-faces:fair=smile@1", "'fair' is none of the values"), ("cartoon-faces:", "a coupling is")],
)
def test_a_wrong_coupling_on_the_command_line_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dataset: str, message: str
) -> None:
    few = ["--num-images", "2", "--batch-size", "2", "--cache", str(tmp_path / "cache")]
    assert main(["train", "--dataset", dataset, "--out", str(tmp_path / "run"), *few]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert message in line
    assert list(tmp_path.iterdir()) == []
