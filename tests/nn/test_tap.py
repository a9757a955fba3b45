import copy

import pytest
import torch
from torch import nn

from anatolab.nn import NETWORKS, Teacher, basic_unet, light_unet, multiple_of, stem_unet_small, tap
from anatolab.types import InputError


def test_light_unet_pyramid_is_as_documented() -> None:
    pyramid = tap(light_unet(1, 4))
    assert pyramid.channels == (256, 64, 32, 16)
    assert pyramid.strides == (16, 8, 4, 2)


def test_backbones_of_volumes_give_the_documented_pyramids() -> None:
    light, papers = (
        tap(NETWORKS[name](1, 2, spatial_dims=3), spatial_dims=3, size=32) for name in ("light_unet", "vnet")
    )
    assert (light.channels, light.strides) == ((64, 16, 8), (8, 4, 2))
    assert (papers.channels, papers.strides) == ((256, 256, 128, 64, 32), (16, 8, 4, 2, 1))
    norms = {type(m) for m in papers.net.modules() if isinstance(m, nn.modules.batchnorm._NormBase)}
    assert norms == {nn.BatchNorm3d}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dims", [2, 3])
def test_sides_of_the_multiple_that_is_named_go_through(name: str, dims: int) -> None:
    side = multiple_of(name, dims)
    net = NETWORKS[name](1, 2, spatial_dims=dims).eval()
    sides = [side, 2 * side] if dims == 2 else [side, 2 * side, 2 * side]
    assert net(torch.rand(1, 1, *sides)).shape == (1, 2, *sides)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_the_network_and_maps_carry_gradient(name: str, dims: int) -> None:
    torch.manual_seed(0)
    net = NETWORKS[name](2, 3, spatial_dims=dims)
    pyramid = tap(net, in_channels=2, spatial_dims=dims, size=32)
    image = torch.rand(2, 2, *[32] * dims)
    logits, maps = pyramid.eval()(image)
    assert torch.equal(logits, net(image))
    assert logits.shape == (2, 3, *[32] * dims)
    assert [m.shape[1] for m in maps] == list(pyramid.channels)
    assert [32 // m.shape[-1] for m in maps] == list(pyramid.strides)
    maps[-1].sum().backward()
    assert any(p.grad is not None for p in net.parameters())


def monai_networks() -> dict[str, nn.Module]:
    from monai.networks import nets

    return {
        "BasicUNet": nets.BasicUNet(2, 1, 4, (8, 8, 16, 32, 64, 8)),
        "AttentionUnet": nets.AttentionUnet(2, 1, 4, (8, 16, 32, 64, 128), (2, 2, 2, 2)),
        "UNETR": nets.UNETR(1, 4, (64, 64), feature_size=4, hidden_size=48, mlp_dim=64, spatial_dims=2),
        "SwinUNETR": nets.SwinUNETR(1, 4, feature_size=12, spatial_dims=2),
        "VNet": nets.VNet(2, 1, 4, dropout_dim=2),
        "SegResNet": nets.SegResNet(2, init_filters=8, in_channels=1, out_channels=4),
        "DynUNet": nets.DynUNet(2, 1, 4, [3] * 5, [1, 2, 2, 2, 2], [2] * 4, filters=[8, 16, 32, 64, 64]),
    }


def test_known_monai_networks_give_their_pyramid_coarse_to_fine() -> None:
    strides = {
        "BasicUNet": (16, 8, 4, 2, 1),
        "AttentionUnet": (16, 8, 4, 2, 1),
        "UNETR": (8, 4, 2, 1),
        "SwinUNETR": (32, 16, 8, 4, 2, 1),
        "VNet": (16, 8, 4, 2, 1),
        "SegResNet": (8, 4, 2, 1),
        "DynUNet": (16, 8, 4, 2, 1),
    }
    assert {name: tap(net).strides for name, net in monai_networks().items()} == strides


def test_a_copied_teacher_never_writes_the_students_captures() -> None:
    torch.manual_seed(0)
    student = tap(light_unet(1, 2, width=4)).eval()
    teacher = Teacher(student)
    with torch.no_grad():
        for p in teacher.parameters():
            p.mul_(0.5)
    image = torch.rand(1, 1, 32, 32)
    alone = [m.clone() for m in student(image)[1]]
    seen: list[torch.Tensor] = []

    def during(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        if not seen:  # the teacher runs in the middle of the student's forward pass
            seen.extend(teacher(image)[1])

    student.net.get_submodule(student.paths[0]).register_forward_hook(during)
    together = student(image)[1]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(alone, seen, strict=True))


def test_the_probe_leaves_weights_statistics_and_modes_alone() -> None:
    net = light_unet(1, 2, width=4)
    net.get_submodule("model.0").eval()
    before = copy.deepcopy(net.state_dict())
    pyramid = tap(net)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert pyramid.training
    assert not net.get_submodule("model.0").training
    assert net.get_submodule("model.2").training


def test_compiled_tap_gives_the_same_logits_and_maps() -> None:
    torch.manual_seed(0)
    pyramid = tap(light_unet(1, 2, width=4, depth=3)).eval()
    image = torch.rand(1, 1, 16, 16)
    logits, maps = pyramid(image)
    compiled, compiled_maps = torch.compile(pyramid, backend="eager")(image)
    torch.testing.assert_close(compiled, logits)
    for a, b in zip(compiled_maps, maps, strict=True):
        torch.testing.assert_close(a, b)


def test_a_users_own_network_is_tapped_by_module_names() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, stride=4, padding=1), nn.Upsample(scale_factor=4), nn.Conv2d(5, 2, 1))
    pyramid = tap(net, ["0", "1"], in_channels=3)
    assert pyramid.channels == (5, 5)
    assert pyramid.strides == (4, 1)


def test_unknown_network_and_unknown_module_are_named() -> None:
    with pytest.raises(InputError, match=r"no hook points are known for Sequential; pass paths="):
        tap(nn.Sequential(nn.Conv2d(1, 1, 1)))
    with pytest.raises(InputError, match=r"Sequential has no module 'nowhere'"):
        tap(nn.Sequential(nn.Conv2d(1, 1, 1)), ["nowhere"])


@pytest.mark.parametrize(("make", "dims"), [(light_unet, 2), (light_unet, 3), (basic_unet, 2)])
def test_encoding_gives_the_coarsest_map_and_runs_no_decoder(make, dims: int) -> None:
    tapped = tap(make(1, 3, spatial_dims=dims), spatial_dims=dims, size=32).eval()
    image = torch.randn(2, 1, *[32] * dims)
    logits, maps = tapped(image)
    ran: list[nn.Module] = []
    handles = [m.register_forward_hook(lambda m, *_: ran.append(m)) for m in tapped.net.modules()]
    torch.testing.assert_close(tapped.encode(image), maps[0])
    for handle in handles:
        handle.remove()
    decoder = [m for path in tapped.paths[1:] for m in tapped.net.get_submodule(path).modules()]
    assert not set(map(id, ran)) & set(map(id, decoder))
    assert tapped.classes == logits.shape[1] == 3
    torch.testing.assert_close(tapped(image)[0], logits)  # and the whole network runs again afterwards


def test_encoder_parameters_are_those_that_move_the_coarsest_map() -> None:
    tapped = tap(light_unet(1, 3))
    ids = {id(p) for p in tapped.encoder_parameters()}
    tapped.encode(torch.randn(2, 1, 64, 64)).square().sum().backward()
    assert ids == {id(p) for p in tapped.parameters() if p.grad is not None}
    assert 0 < len(ids) < len(list(tapped.parameters()))


def test_the_encoder_of_a_teacher_is_its_own() -> None:
    student = tap(light_unet(1, 3))
    teacher = Teacher(student)
    image = torch.randn(2, 1, 64, 64)
    before = teacher.net.encode(image)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    torch.testing.assert_close(teacher.net.encode(image), before)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_stem_is_tapped_with_the_channels_of_the_image_and_not_of_its_first_convolution(
    dims: int, channels: int
) -> None:
    tapped = tap(stem_unet_small(channels, 3, spatial_dims=dims))
    assert (tapped.dims, tapped.classes) == (dims, 3)
    assert tapped(torch.zeros(1, channels, *[32] * dims))[0].shape == (1, 3, *[32] * dims)
