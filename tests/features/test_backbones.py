"""Where features come from: .npy files that are whole and harmless, and named layers of any network."""

import errno
import io
import os
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from depthq.features.backbones import (
    NORMALIZATIONS,
    last_map_layer,
    layer_maps,
    load_backbone,
    load_weights,
    open_features,
    save_features,
)
from depthq.features.density import estimate_density


class Small(nn.Module):
    """A map, its ReLU in place, pooling, and a classifier; one layer is used twice and one never."""

    def __init__(self, width: int | str = 5):
        super().__init__()
        self.stem = nn.Conv2d(3, int(width), 3)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Conv2d(int(width), 7, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.spare = nn.Identity()

    def forward(self, images):
        return self.pool(self.act(self.head(self.act(self.stem(images))))).flatten(1)


class Vgg16(nn.Module):
    """VGG-16 up to its classifier, with torchvision's layer names and shapes."""

    def __init__(self):
        super().__init__()
        layers, channels = [], 3
        for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(nn.Linear(512 * 7 * 7, 10))

    def forward(self, images):
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A module that can be imported by name, as a user's own would."""
    module = SimpleNamespace(Small=Small, Nested=SimpleNamespace(make=Small), not_a_network=lambda: 3)
    monkeypatch.setitem(sys.modules, "some_networks", module)


def test_features_come_back_memory_mapped(tmp_path):
    batches = [torch.rand(2, 3, 4, 4), torch.rand(1, 3, 4, 4)]
    save_features(tmp_path / "f.npy", batches, num_maps=3)
    features = open_features(tmp_path / "f.npy")
    assert isinstance(features, np.memmap)
    assert features.dtype == np.float32
    assert torch.equal(torch.from_numpy(np.array(features)), torch.cat(batches))


def test_too_few_maps_are_no_file_of_features(tmp_path):
    with pytest.raises(ValueError, match="batches must hold 5 maps; got 2"):
        save_features(tmp_path / "f.npy", [torch.rand(2, 3, 4, 4)], num_maps=5)


def test_a_disk_without_room_for_all_maps_is_told_before_the_first(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("depthq.files.os.posix_fallocate", full)
    with pytest.raises(OSError, match=r"No space left on device: .*f\.npy"):
        save_features(tmp_path / "f.npy", [torch.rand(2, 3, 4, 4)], num_maps=2)


def file_of(kind: str) -> bytes:
    whole, archive = io.BytesIO(), io.BytesIO()
    np.save(whole, np.ones((5, 3, 4, 4)))
    np.savez(archive, np.ones(3))
    objects = io.BytesIO()
    np.save(objects, np.array([{}], dtype=object), allow_pickle=True)
    return {
        "cut off": whole.getvalue()[:-8],
        "cut off in its header": whole.getvalue()[:20],
        "empty": b"",
        "text": b"1, 2, 3",
        "pickled": pickle.dumps(np.ones(3)),
        "objects": objects.getvalue(),
        "archive": archive.getvalue(),
    }[kind]


@pytest.mark.parametrize("kind", ["cut off", "cut off in its header", "empty", "text", "pickled", "objects", "archive"])
def test_other_files_are_refused_by_name(tmp_path, kind):
    (tmp_path / "f.npy").write_bytes(file_of(kind))
    with pytest.raises(ValueError, match=r"features must be a whole \.npy file of numbers; got .*f\.npy"):
        open_features(tmp_path / "f.npy")


def test_pixels_are_normalised_as_networks_expect():
    images = torch.tensor([0, 255], dtype=torch.uint8).expand(1, 3, 1, 2)
    assert NORMALIZATIONS["symmetric"](images)[0, 0, 0].tolist() == [-1, 1]
    assert NORMALIZATIONS["imagenet"](images)[0, 0, 0].tolist() == pytest.approx([-0.485 / 0.229, 0.515 / 0.229])


def test_layer_is_read_before_the_next_one_overwrites_it():
    model, images = Small().eval(), torch.randn(2, 3, 6, 6)
    assert torch.equal(layer_maps(model, "stem", images), model.stem(images))
    assert model.stem(images).min() < 0  # the ReLU in place would have changed it


def test_of_a_layer_that_runs_twice_the_last_run_counts():
    model, images = Small().eval(), torch.randn(2, 3, 6, 6)
    assert torch.equal(layer_maps(model, "act", images), model.head(model.stem(images).relu()).relu())


def test_the_network_is_left_as_it_was():
    model = Small().eval()
    assert not layer_maps(model, "stem", torch.randn(1, 3, 6, 6)).requires_grad
    last_map_layer(model, torch.randn(1, 3, 6, 6))
    assert not any(module._forward_hooks for module in model.modules())


def test_default_layer_is_the_last_before_pooling():
    assert last_map_layer(Small().eval(), torch.randn(1, 3, 6, 6)) == "act"


def test_vgg16s_features_can_be_described_as_the_papers(tmp_path):
    torch.manual_seed(0)
    torch.save(Vgg16().state_dict(), tmp_path / "vgg16.pth")
    model = Vgg16().eval()
    load_weights(model, tmp_path / "vgg16.pth")
    images = torch.randn(1, 3, 224, 224)
    layer = last_map_layer(model, images)
    maps = layer_maps(model, layer, images)
    assert layer == "avgpool"
    assert maps.shape == (1, 512, 7, 7)
    assert torch.equal(maps, layer_maps(model, "features.30", images))  # at 224 that pooling changes nothing
    features = maps.numpy()
    for axis in ("channel", "row"):
        density = estimate_density(
            features, features, axis=axis, codebook_size=4, num_codebooks=7, steps=5, batch_size=1, seeds=2
        )
        assert density.codebook_dim == 74
        assert density.held_out == density.training
        assert 0 < density.training.mse_standardized.mean < 1
        assert 0 < density.training.entropy_nats.mean <= np.log(4)


@pytest.mark.parametrize(
    ("name", "nearest"), [("features.31", "features.30|features.3"), ("xyz", "features, avgpool, classifier")]
)
def test_unknown_layer_names_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"layer must be one of the backbone's; got '{name}'; try .*({nearest})"):
        layer_maps(Vgg16(), name, torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(("name", "got"), [("spare", "nothing, as it never ran"), ("flat", r"shape \(1, 7\)")])
def test_layer_must_give_maps(name, got):
    model = nn.Sequential()
    model.add_module("net", Small())
    model.add_module("flat", nn.Identity())
    layer = name if name == "flat" else f"net.{name}"
    with pytest.raises(ValueError, match=rf"layer must give maps \(B, C, H, W\); got {got} from '{layer}'"):
        layer_maps(model.eval(), layer, torch.randn(1, 3, 6, 6))


def test_a_network_without_maps_has_no_default_layer():
    with pytest.raises(ValueError, match="backbone must have a layer that gives maps"):
        last_map_layer(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.randn(1, 3, 2, 2))


def test_images_that_the_network_cannot_take():
    with pytest.raises(ValueError, match=r"must take images of shape \(1, 3, 2, 2\); got RuntimeError: .*ernel"):
        layer_maps(Small(), "stem", torch.randn(1, 3, 2, 2))


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError, ValueError, TypeError, KeyError, IndexError])
def test_a_network_may_refuse_images_in_its_own_way(kind):
    def refuse(images):
        raise kind("224 only")

    network = Small()
    network.forward = refuse
    with pytest.raises(
        ValueError, match=rf"backbone must take images of shape \(1, 3, 8, 8\); got {kind.__name__}: '?224"
    ):
        layer_maps(network, "stem", torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("name", "width"), [("some_networks:Small", 5), ("some_networks:Small:9", 9), ("some_networks:Nested.make:6", 6)]
)
def test_backbone_from_any_importable_factory(networks, name, width):
    model = load_backbone(name)
    assert model.stem.out_channels == width
    assert not model.training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50", r"backbone must be timm:MODEL, torchvision:MODEL or package\.module:factory; got 'resnet50'"),
        ("no_such_module:make", "backbone must name something importable; got 'no_such_module:make'"),
        ("some_networks:no_such", "backbone must name something importable; got 'some_networks:no_such'"),
        ("some_networks:not_a_network", r"must make a torch\.nn\.Module; got int from 'some_networks:not_a_network'"),
        (
            "some_networks:not_a_network:x",
            "must make a network; got TypeError: .* from 'some_networks:not_a_network:x'",
        ),
    ],
)
def test_what_is_no_backbone(networks, name, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(name)


@pytest.fixture
def libraries(monkeypatch):
    """Stand-ins for timm and torchvision that note what they are asked for."""
    asked = []

    def make(name, **options):
        asked.append((name, options))
        return Small()

    known = ["resnet50", "vgg16"]
    timm = SimpleNamespace(create_model=make, is_model=known.__contains__, list_models=lambda: known)
    models = SimpleNamespace(get_model=make, list_models=lambda: known)
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return asked


@pytest.mark.parametrize(
    ("library", "from_hub", "from_file"),
    [
        ("timm", {"pretrained": True}, {"pretrained": False}),
        ("torchvision", {"weights": "DEFAULT"}, {"weights": None}),
    ],
)
def test_library_weights_come_from_the_hub_unless_a_file_is_given(tmp_path, libraries, library, from_hub, from_file):
    save_file(Small().state_dict(), tmp_path / "w.safetensors")
    load_backbone(f"{library}:vgg16")
    load_backbone(f"{library}:vgg16", tmp_path / "w.safetensors")
    assert libraries == [("vgg16", from_hub), ("vgg16", from_file)]


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize("before", [None, "0"])
def test_no_code_runs_from_the_hubs_weights(tmp_path, monkeypatch, libraries, library, before):
    torch.save(Bomb(), tmp_path / "downloaded.pth")

    def make(name, **options):  # as torchvision calls it
        torch.load(tmp_path / "downloaded.pth", weights_only=False)

    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.setenv(switch, before) if before else monkeypatch.delenv(switch, raising=False)
    module = sys.modules["torchvision.models" if library == "torchvision" else "timm"]
    monkeypatch.setattr(module, "get_model" if library == "torchvision" else "create_model", make)
    with pytest.raises(ValueError, match=f"weights must be tensors alone; got others for '{library}:vgg16'"):
        load_backbone(f"{library}:vgg16")
    assert os.environ.get(switch) == before


def test_timm_without_such_weights_names_the_model_and_the_remedy(monkeypatch, libraries):
    def make(name, **options):
        raise RuntimeError("Invalid pretrained tag (imagenet) for vgg16.")

    monkeypatch.setattr(sys.modules["timm"], "create_model", make)
    with pytest.raises(
        ValueError,
        match=r"that timm has weights for; got 'vgg16': Invalid pretrained tag \(imagenet\) .* file with --weights",
    ):
        load_backbone("timm:vgg16")


def test_torchvision_of_another_torch_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "torchvision").mkdir()
    broken = 'raise RuntimeError("operator torchvision::nms does not exist")'
    (tmp_path / "torchvision" / "__init__.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(
        ValueError, match=r"got operator torchvision::nms does not exist; pip install 'depthq\[vision\]'"
    ):
        load_backbone("torchvision:vgg16")


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_unknown_model_names_the_nearest(libraries, library):
    with pytest.raises(ValueError, match=f"must be a model of {library}; got 'vgg17'; it has vgg16"):
        load_backbone(f"{library}:vgg17")


@pytest.mark.parametrize(("library", "extra"), [("timm", "timm"), ("torchvision", "vision")])
def test_missing_library_names_the_extra(monkeypatch, library, extra):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "torchvision.models", raising=False)
    with pytest.raises(ValueError, match=rf"must come from an installed library; .* pip install 'depthq\[{extra}\]'"):
        load_backbone(f"{library}:vgg16")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path, networks, suffix):
    trained, path = Small().eval(), tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(trained.state_dict(), path)
    images = torch.randn(1, 3, 6, 6)
    assert torch.equal(load_backbone("some_networks:Small", path)(images), trained(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"stem.weight": torch.zeros(9, 3, 3, 3)},
            r"with stem\.weight of shape \(9, 3, 3, 3\) instead of \(5, 3, 3, 3\)",
        ),
        ({"stem.weight": None}, r"with no stem\.weight;"),
        ({"extra": torch.zeros(1)}, "with an unknown extra;"),
        (dict.fromkeys(["stem.weight", "stem.bias", "head.weight", "head.bias"]), "and 1 more such"),
    ],
    ids=["shape", "missing", "unknown", "many"],
)
def test_weights_must_fit(tmp_path, change, message):
    state = {key: value for key, value in (Small().state_dict() | change).items() if value is not None}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=f"weights must fit the backbone; got .*w.pth .*{message}"):
        load_weights(Small(), tmp_path / "w.pth")


def test_weights_of_a_wrapped_network_tell_the_prefix(tmp_path):
    torch.save(nn.DataParallel(Small()).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"with no stem\.weight, .*; take 'module\.' off the names"):
        load_weights(Small(), tmp_path / "w.pth")


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('code ran from a file of weights')",)


def test_no_code_runs_from_weights(tmp_path):
    torch.save({"stem.weight": Bomb()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"weights must be a whole file of tensors by name; .*UnpicklingError"):
        load_weights(Small(), tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"junk", "half"], ids=["empty", "text", "word", "half"])
def test_broken_weights(tmp_path, name, content):
    path = tmp_path / name
    if content == "half":
        (save_file if name == "w.safetensors" else torch.save)(Small().state_dict(), path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(ValueError, match="weights must be a whole file of tensors by name; got "):
        load_weights(Small(), path)


def test_a_checkpoint_of_other_things_is_no_state_dict(tmp_path):
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="weights must be tensors by name; got dict of other things"):
        load_weights(Small(), tmp_path / "w.pth")
