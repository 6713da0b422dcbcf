"""The script on families of prompts: its numbers on planted vectors, its control, a run."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import families
from experiments import text_semantic_similarity as similarity
from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.tokenizer import BOS, EOS
from tests.experiments.test_scripts import call, check_refusal, only, spread
from xray import measure
from xray.measure import permutation
from xray.methods.token_spans import end_vectors
from xray.report import read_report

pytestmark = pytest.mark.usefixtures("loaded")

LABELS = np.repeat([0, 1, 2], 4)


def planted(apart: float) -> np.ndarray:
    """(12, 32): three groups of four around points that are so far apart."""
    rng = np.random.default_rng(0)
    return apart * rng.standard_normal((3, 32))[LABELS] + rng.standard_normal((12, 32))


def test_nearness_is_that_of_a_matrix_done_by_hand():
    cosines = np.array([[1, 0.8, 0.1, 0.3], [0.8, 1, 0.2, 0.4], [0.1, 0.2, 1, 0.5], [0, 0, 0, 1]])
    own, others = permutation.near(cosines, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(own, [0.8, 0.8, 0.5, 0])
    np.testing.assert_allclose(others, [0.2, 0.3, 0.15, 0])


def test_planted_groups_are_told_from_none():
    found, none = (
        permutation.permutation_test(measure.cosines(planted(apart)), LABELS, np.zeros(12), 1)
        for apart in (2, 0)
    )
    assert found.p == pytest.approx(1 / 1001) and found.difference.value > 0.5
    assert none.p > 0.05 and abs(none.difference.value) < 0.1
    assert found.difference.n == 3, "members of a group are no independent cases"
    assert abs(found.shuffled.value) < 0.02 and found.shuffled.n == 1000
    assert similarity.find(found, "They").startswith("They lie together: cosine 0.")
    assert "do not clearly lie together" in similarity.find(none, "They")


def test_one_group_is_told_by_itself():
    """Of three groups one is planted: its shuffles are those of its own members."""
    vectors = planted(0)
    vectors[4:8] += 3 * np.random.default_rng(2).standard_normal(32)
    every = permutation.permutation_test(measure.cosines(vectors), LABELS, np.zeros(12), 1)
    p = [every.select(group).p for group in range(3)]
    assert p[1] < 0.01 < 0.05 < min(p[0], p[2])
    assert every.select(1).difference.n == 4 and every.select(1).null.shape == (1000, 4)
    order = np.random.default_rng(3).permutation(12)
    mixed = permutation.permutation_test(
        measure.cosines(vectors[order]), LABELS[order], np.zeros(12), 1
    )
    assert mixed.select(1).difference.value == pytest.approx(every.select(1).difference.value)
    assert mixed.select(1).p < 0.01 and mixed.select(1).shuffled.value < 0.1


def test_what_goes_with_the_length_is_no_merit_of_the_families():
    """Prompts alike by length only: nothing is left where those as long are shuffled."""
    lengths = np.repeat([0, 1], 6)
    vectors = np.eye(2)[lengths] + 1e-3 * np.random.default_rng(0).standard_normal((12, 2))
    cosines, labels = measure.cosines(vectors), np.repeat(range(4), 3)
    blind = permutation.permutation_test(cosines, labels, np.zeros(12), 1)
    aware = permutation.permutation_test(cosines, labels, lengths, 1)
    assert blind.p < 0.01 < 0.05 < aware.p
    np.testing.assert_array_equal(blind.own, aware.own)
    alone = permutation.permutation_test(cosines, labels, np.repeat(range(4), 3), 1)
    assert alone.p == 1 and alone.closer == 1000, "nothing to shuffle: always as near"


def test_components_are_those_of_a_planted_plane():
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.standard_normal((8, 2)))[0].T
    where = rng.standard_normal((20, 2)) * (3, 1)
    where -= where.mean(0)
    places, shares = measure.principal_components(where @ plane + 5)
    assert shares.sum() == pytest.approx(1) and shares[0] > shares[1]
    np.testing.assert_allclose(
        np.linalg.norm(places[:, None] - places, axis=-1),
        np.linalg.norm(where[:, None] - where, axis=-1),
    )


def test_a_prompt_is_told_by_its_first_end_token():
    ids = np.array([[BOS, 7, EOS, EOS], [BOS, 7, 8, EOS]])
    context = np.arange(2 * 4 * 3.0).reshape(2, 4, 3)
    ends = end_vectors(context, ids)
    np.testing.assert_array_equal(ends, [context[0, 2], context[1, 3]])


@pytest.mark.parametrize(
    "table", [families.EVERYDAY, families.SPRITES], ids=["everyday", "sprites"]
)
def test_there_are_eight_families_of_six_and_three_have_one_wording(table):
    prompts = families.prompts_of(table)
    assert [len(set(family)) for family in prompts.values()] == [6] * 8
    assert len({prompt for family in prompts.values() for prompt in family}) == 48
    assert families.of_one_wording(table) == [*table][:3]


def test_it_saves_sheet_tensors_and_report(tmp_path, monkeypatch, capfd):
    own = "a zebra on pink", "a cat on pink"
    call(similarity.main, *own, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "text_semantic_similarity")
    assert spread(folder / "figure.png") > 10 and "a-zebra" in folder.name
    saved = load_file(folder / "tensors.safetensors")
    assert saved["context"].shape == (50, 77, 128) and saved["ends"].shape == (50, 128)
    np.testing.assert_array_equal(saved["families"], np.repeat(range(9), [6] * 8 + [2]))
    report, _ = read_report(folder / "report.json")
    assert report.finding.startswith("Your prompts") and report.control.passed
    assert report.numbers["all, end token: p"] < 0.01 < report.numbers["your own, end token: p"]
    assert report.numbers["on red and on blue, end token: of one thing"].low > 0.99
    assert report.numbers["on red and on blue, whole context: of one thing"].high < 0.99
    said, complained = capfd.readouterr()
    assert complained == "" and "never saw 'zebra'" in said


def test_the_control_fails_where_every_prompt_is_the_same_to_the_encoder(
    tmp_path, monkeypatch, capfd
):
    encode = StableDiffusion.encode_text
    broken = lambda sd, prompts: encode(sd, ["a cat"] * len(prompts))  # noqa: E731
    monkeypatch.setattr(StableDiffusion, "encode_text", broken)
    with pytest.raises(SystemExit, match="control failed: shuffled families lie as near"):
        call(similarity.main, "--out", tmp_path, monkeypatch=monkeypatch)
    said = capfd.readouterr().out
    assert "Prompts of one family do not clearly lie together" in said
    assert "“on red” and “on blue” coincide." in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a cat"], "one prompt is no family; name two or more"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(similarity.main, words, told, tmp_path / "out", monkeypatch, capfd)
