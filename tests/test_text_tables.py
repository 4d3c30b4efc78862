"""Text encoders behind one interface: tags, vectors of a file, a trained char-CNN-RNN."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import PLAIN, arrays, digests, packed, run_steps, start

from anigan_jax.config import to_json
from anigan_jax.data import attributes, captions
from anigan_jax.data.attributes import DEFAULT, EYES, HAIR
from anigan_jax.data.captions import Prompt
from anigan_jax.errors import UserError
from anigan_jax.methods import text_conditioning
from anigan_jax.methods.classifier import ColorClassifier
from anigan_jax.methods.text_conditioning import Encoder
from anigan_jax.methods.text_encoder import TextEncoder
from anigan_jax.networks.char_cnn_rnn import CharCNNRNN, CharEncoder, windows
from anigan_jax.networks.classifier import Classifier
from anigan_jax.optimizers import Optimizer
from anigan_jax.storage import run_dir, safetensors

CHAR = CharEncoder(widths=(4, 5), hidden=6, dim=7)
JUDGE = Classifier(size=16, base_channels=4)
ENCODER = dataclasses.replace(
    PLAIN, method=TextEncoder(text=CHAR, image=JUDGE), ema_half_life=0, flip=False
)
CLASSIFIER = dataclasses.replace(
    PLAIN, method=ColorClassifier(network=JUDGE), ema_half_life=0, flip=False
)
ROWS = text_conditioning.combinations({})
PAIRS = [attributes.label_of(DEFAULT, row) for row in ROWS]
TEXTS = [attributes.say(DEFAULT, label) for label in PAIRS]
FOUND = ROWS[[0, 0, 5, 17]]


def prompt(text):
    return captions.parse_prompt(text)


def test_tags_are_two_hot():
    made = text_conditioning.tables(Encoder(), FOUND)
    assert made["texts"].shape == (132, 1, Encoder().length)
    for label, row in zip(PAIRS, made["texts"][:, 0], strict=True):
        hair, eyes = np.flatnonzero(row)
        assert {"hair": HAIR[hair], "eyes": EYES[eyes - 12]} == label
    assert made["counts"][[0, 5, 17]].tolist() == [2, 1, 1]
    assert made["counts"].sum() == 4
    text = text_conditioning.encode(Encoder(), made, [prompt("she has red eyes and blue hair")])
    assert text[0].tolist() == made["texts"][TEXTS.index("blue hair red eyes"), 0].tolist()


def vectors_file(folder, **changes):
    values = np.random.default_rng(0)
    rows = {text: values.normal(0, 3, 5).astype("f") for text in (TEXTS[0], TEXTS[5], TEXTS[17])}
    second = captions.captions(PAIRS[5])[2]
    rows[second] = rows[TEXTS[5]] + 1
    rows |= {"red hair": rows[second]}  # one part alone is of no use, and no fault
    path = folder / "vectors.safetensors"
    safetensors.write({**rows, **changes}, path)
    return path, rows


def test_vectors_of_a_file(tmp_path):
    path, rows = vectors_file(tmp_path)
    encoder = Encoder(kind="precomputed", path=str(path), dim=5)
    made = text_conditioning.tables(encoder, FOUND)
    assert made["wordings"][[0, 5, 17]].tolist() == [1, 2, 1]
    assert made["wordings"].sum() == 4
    used = np.stack([v for k, v in rows.items() if k != "red hair"])
    scale = 1 / np.sqrt((used.astype(float) ** 2).mean())
    np.testing.assert_allclose(made["texts"][0, 0], rows[TEXTS[0]] * scale, rtol=1e-6)
    # A prompt is the mean of its pair's captions.
    got = text_conditioning.encode(encoder, made, [prompt(TEXTS[5])])
    np.testing.assert_allclose(got[0], (rows[TEXTS[5]] + 0.5) * scale, rtol=1e-5)
    with pytest.raises(UserError, match="no caption for"):
        text_conditioning.encode(encoder, made, [prompt(TEXTS[1])])


def test_the_order_of_a_file_does_not_matter(tmp_path, monkeypatch):
    """safetensors lists its keys in another order in every process."""
    path, _ = vectors_file(tmp_path)
    encoder = Encoder(kind="precomputed", path=str(path), dim=5)
    read = safetensors.read
    first = text_conditioning.tables(encoder, FOUND)
    for turn in (1, -1):
        monkeypatch.setattr(
            safetensors, "read", lambda p, turn=turn: dict(sorted(read(p).items())[::turn])
        )
        assert digests(text_conditioning.tables(encoder, FOUND)) == digests(first)


def test_files_that_do_not_fit(tmp_path):
    path, _ = vectors_file(tmp_path)
    encoder = Encoder(kind="precomputed", path=str(path), dim=5)
    with pytest.raises(UserError, match="no caption for 1 combinations"):
        text_conditioning.tables(encoder, ROWS[[0, 1]])
    with pytest.raises(UserError, match=r"shape \(5,\).*dim is 4"):
        text_conditioning.tables(dataclasses.replace(encoder, dim=4), FOUND)
    with pytest.raises(UserError, match="no file"):
        text_conditioning.tables(dataclasses.replace(encoder, path="nowhere"), FOUND)
    with pytest.raises(UserError, match="sjtu_text_encoder"):
        text_conditioning.tables(Encoder(kind="char_cnn_rnn", path=str(tmp_path)), FOUND)
    path, _ = vectors_file(tmp_path, **{"mauve hair": np.zeros(5, "f")})
    with pytest.raises(UserError, match="mauve"):
        text_conditioning.tables(encoder, FOUND)
    (tmp_path / "weights.safetensors").write_bytes(b"\xff" * 99)
    with pytest.raises(UserError, match="weights"):
        text_conditioning.tables(Encoder(kind="char_cnn_rnn", path=str(tmp_path)), FOUND)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return packed(ENCODER, tmp_path_factory.mktemp("cache"))


@pytest.mark.long
def test_a_trained_encoder_reads_prompts_as_its_own_network_does(pack, tmp_path):
    _, state = start(ENCODER, pack)
    state = jax.tree.map(np.asarray, state)
    run_dir.export_weights(tmp_path, ENCODER, state, {})
    encoder = Encoder(kind="char_cnn_rnn", path=str(tmp_path), char=CHAR)
    made = text_conditioning.tables(encoder, FOUND)
    assert made["texts"].shape == (132, len(captions.WORDINGS), 7)
    assert abs(np.sqrt((made["texts"] ** 2).mean()) - 1) < 1e-5
    net = CharCNNRNN(CHAR, len(captions.ALPHABET))
    text = captions.captions(PAIRS[40])[3]
    own = net.apply({"params": state.params["d"]["text"]}, captions.codes([text]))
    np.testing.assert_allclose(made["texts"][40, 3], own[0] * made["scale"], rtol=1e-4, atol=1e-5)
    # Another wording is another vector; the run folder is not needed any more.
    (tmp_path / safetensors.WEIGHTS).unlink()
    got = text_conditioning.encode(encoder, made, [Prompt(text, PAIRS[40])])
    np.testing.assert_allclose(got[0], made["texts"][40, 3], rtol=1e-4, atol=1e-5)


def test_an_encoder_of_other_settings_is_refused(pack, tmp_path):
    _, state = start(ENCODER, pack)
    run_dir.export_weights(tmp_path, ENCODER, jax.tree.map(np.asarray, state), {})
    with pytest.raises(UserError, match=r"method\.encoder\.char"):
        text_conditioning.tables(Encoder(kind="char_cnn_rnn", path=str(tmp_path)), FOUND)
    about = safetensors.metadata(tmp_path / safetensors.WEIGHTS)
    assert {k: about[k] for k in ("step", "config")} == {"step": 0, "config": to_json(ENCODER)}


def test_exported_weights_are_those_of_the_state(pack, tmp_path):
    _, state = start(ENCODER, pack)
    run_dir.export_weights(tmp_path, ENCODER, state, {})
    tree = safetensors.unflatten(safetensors.read(tmp_path / safetensors.WEIGHTS))
    assert digests(tree["params"]) == digests(jax.tree.map(np.asarray, state.params))
    assert digests(tree["stats"]) == digests(jax.tree.map(np.asarray, state.stats))


def test_prompts_are_read_in_the_words_of_captions(pack, tmp_path):
    _, state = start(ENCODER, pack)
    run_dir.export_weights(tmp_path, ENCODER, jax.tree.map(np.asarray, state), {})
    encoder = Encoder(kind="char_cnn_rnn", path=str(tmp_path), char=CHAR)
    made = text_conditioning.tables(encoder, FOUND)
    texts = ["grey hair red eyes", "gray hair red eyes", "Gray Hair Red Eyes"]
    long = "a girl and a face and a girl and a face and a girl with gray hair and red eyes"
    vectors = text_conditioning.encode(encoder, made, [prompt(text) for text in (*texts, long)])
    assert (vectors == vectors[0]).all()


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(UserError, match="widths"):
        TextEncoder(text=CharEncoder(widths=(4,) * 6)).make(None)
    with pytest.raises(UserError, match="spectral"):
        ColorClassifier(network=Classifier(spectral=True)).make(None)


def test_windows_are_a_convolution_over_time():
    values = np.random.default_rng(0)
    x, kernel = values.normal(size=(2, 9, 3)), values.normal(size=(4, 3, 5))
    got = windows(jnp.array(x), 4) @ jnp.array(kernel.reshape(12, 5))
    want = np.stack([sum(x[:, t + k] @ kernel[k] for k in range(4)) for t in range(6)], axis=1)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="window"):
        windows(jnp.zeros((1, 3, 2)), 4)


@pytest.mark.long
def test_the_recurrent_layer_equals_pytorch():
    torch = pytest.importorskip("torch")
    net = CharCNNRNN(CHAR, len(captions.ALPHABET))
    codes = captions.codes(["blue hair red eyes", "her eyes are pink, her hair is aqua"])
    params = net.init(jax.random.key(0), codes)["params"]
    p = jax.tree.map(lambda a: torch.tensor(np.array(a)), params)
    x = torch.nn.functional.one_hot(torch.tensor(codes.astype(int)), 30)[..., 1:].float()
    for i in (1, 2):
        x = torch.cat([x[:, k : x.shape[1] - 3 + k] for k in range(4)], -1)
        x = torch.relu(x @ p[f"conv{i}"]["kernel"] + p[f"conv{i}"]["bias"])
        if i == 1:
            x = torch.nn.functional.max_pool1d(x.transpose(1, 2), 2).transpose(1, 2)
    cell, hidden = p["gru"], torch.zeros(2, 6)
    outs = []
    for step in x.unbind(1):
        r = torch.sigmoid(
            step @ cell["ir"]["kernel"] + cell["ir"]["bias"] + hidden @ cell["hr"]["kernel"]
        )
        u = torch.sigmoid(
            step @ cell["iz"]["kernel"] + cell["iz"]["bias"] + hidden @ cell["hz"]["kernel"]
        )
        new = step @ cell["in"]["kernel"] + cell["in"]["bias"]
        new = torch.tanh(new + r * (hidden @ cell["hn"]["kernel"] + cell["hn"]["bias"]))
        hidden = (1 - u) * new + u * hidden
        outs.append(hidden)
    want = torch.stack(outs, 1).mean(1) @ p["vector"]["kernel"] + p["vector"]["bias"]
    got = net.apply({"params": params}, codes)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("config", [ENCODER, CLASSIFIER], ids=["encoder", "classifier"])
def test_a_family_of_one_player_repeats_and_learns(pack, config):
    faster = dataclasses.replace(config.optimizers["d"], learning_rate=3e-3)
    config = dataclasses.replace(config, optimizers={"d": faster})
    _, state = start(config, pack)
    data = arrays(config, pack)
    end, metrics = run_steps(config, data, state, 100, length=20)
    again, _ = run_steps(config, data, state, 100, length=20)
    assert digests(end) == digests(again)
    loss = metrics["loss/d"]
    assert loss[-10:].mean() < 0.75 * loss[:10].mean()
    assert set(end.params) == {"d"}


@pytest.mark.long
@pytest.mark.parametrize("config", [ENCODER, CLASSIFIER], ids=["encoder", "classifier"])
def test_four_devices_agree_with_one(pack, config):
    """The encoder's negatives come from the global batch, gathered over devices."""
    sgd = Optimizer(name="sgd", learning_rate=1e-2)
    method = config.method
    role = "image" if config is ENCODER else "network"
    # Dropout's draws are by example; batch norm's statistics are synchronized.
    method = dataclasses.replace(method, **{role: dataclasses.replace(JUDGE, dropout=0.0)})
    config = dataclasses.replace(config, optimizers={"d": sgd}, method=method)
    _, state = start(config, pack)
    one, lines = run_steps(config, arrays(config, pack), state, 2)
    four, more = run_steps(config, arrays(config, pack), state, 2, devices=4)
    np.testing.assert_allclose(lines["loss/d"], more["loss/d"], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_evaluation_judges_held_out_images(pack):
    for config, keys in (
        (CLASSIFIER, {"accuracy/hair", "accuracy/eyes", "accuracy/both"}),
        (ENCODER, {"retrieval/image_to_text", "unseen_wording/hair", "retrieval/top5"}),
    ):
        method, state = start(config, pack)
        data = {"a": {"image": pack.images[:5], "label": pack.labels("train")[:5]}}
        got = method.evaluate(state, config.method.constants(pack), data)
        assert keys <= got.keys()
        assert all(0 <= value <= 1 for value in got.values())


def test_images_without_both_colors_are_refused(pack):
    class Half:
        attributes = DEFAULT

        def labels(self, part):
            return np.array([[1, 2], [-1, 3]])

    with pytest.raises(UserError, match=r"1 of 2 images.*unlabeled drop"):
        text_conditioning.labels(Half(), "train")
