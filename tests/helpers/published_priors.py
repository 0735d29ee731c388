"""Networks of other code bases, written from the description of their layers, and files in their layouts.

Each generator is the plainest form: one convolution per sentence of its paper, with the constants of its code base
applied at run time. They share nothing with `gpen_plugin.archs`.
"""

import math

import torch
import torch.nn.functional as F

WIDTHS = {4: 12, 8: 12, 16: 12, 32: 12, 64: 6, 128: 3}  # channel_multiplier 1 and narrow 12 / 512
NARROW = 12 / 512
CODE = 12


def random(*shape):
    return torch.randn(*shape)


def small(*shape):
    return 0.3 * torch.randn(*shape)


def sizes_of(size):
    return [2**octave for octave in range(2, size.bit_length())]


def pixel_norm(x):
    return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()


def leaky(x):
    return F.leaky_relu(x, 0.2)


def per_channel(vector):
    return vector.reshape(1, -1, 1, 1)


def nearest(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def four_shifts(weight):
    """(A, B, 3, 3) -> (A, B, 4, 4): the sum of the kernel at its four positions."""
    padded = F.pad(weight, (1, 1, 1, 1))
    return padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]


# PGGAN


def pggan_genforce(size):
    """A state dict of genforce's layout."""
    tensors, before = {"lod": torch.zeros(())}, CODE
    for block, resolution in enumerate(sizes_of(size)):
        width = WIDTHS[resolution]
        kernel = 4 if block == 0 else 3
        tensors[f"layer{2 * block}.weight"] = random(width, before, kernel, kernel)
        tensors[f"layer{2 * block}.bias"] = small(width)
        tensors[f"layer{2 * block + 1}.weight"] = random(width, width, 3, 3)
        tensors[f"layer{2 * block + 1}.bias"] = small(width)
        tensors[f"output{block}.weight"], tensors[f"output{block}.bias"] = random(3, width, 1, 1), small(3)
        before = width
    return tensors


def run_pggan_genforce(tensors, z):
    """z -> image. The first layer is a convolution of 1 x 1 with 3 pixels of padding."""
    x = pixel_norm(z)[:, :, None, None]
    number = sum(name.startswith("layer") for name in tensors) // 2
    for index in range(number):
        weight, bias = tensors[f"layer{index}.weight"], tensors[f"layer{index}.bias"]
        scale = math.sqrt(2 / weight[0].numel())
        x = nearest(x) if index and index % 2 == 0 else x
        x = F.conv2d(x, weight * scale, bias, padding=3 if index == 0 else 1)
        x = pixel_norm(leaky(x))
    weight, bias = (tensors[f"output{number // 2 - 1}.{part}"] for part in ("weight", "bias"))
    return F.conv2d(x, weight / math.sqrt(weight.shape[1]), bias)


def pggan_mganprior(tensors, fused):
    """The same network in mGANprior's layout."""
    renamed = {}
    for name, tensor in tensors.items():
        module, _, part = name.partition(".")
        number = int(module.removeprefix("layer")) if module.startswith("layer") else 1
        if part == "weight" and fused and number and number % 2 == 0:
            renamed[f"{module}.weight"] = tensor.flip(2, 3).permute(2, 3, 1, 0)
        elif part == "weight":
            renamed[f"{module}.conv.weight"] = tensor
        else:
            renamed[f"{module}.wscale.bias" if part else name] = tensor
    return renamed


def pggan_gan_zoo(size, module="module."):
    """A state dict of pytorch_GAN_zoo's layout."""
    tensors, before = {}, WIDTHS[4]

    def add(name, weight):
        tensors[f"{name}.{module}weight"], tensors[f"{name}.{module}bias"] = weight, 3 * random(len(weight))

    add("formatLayer", random(16 * before, CODE))
    add("groupScale0.0", random(before, before, 3, 3))
    add("toRGBLayers.0", random(3, before, 1, 1))
    for scale, resolution in enumerate(sizes_of(size)[1:]):
        width = WIDTHS[resolution]
        add(f"scaleLayers.{scale}.0", random(width, before, 3, 3))
        add(f"scaleLayers.{scale}.1", random(width, width, 3, 3))
        add(f"toRGBLayers.{scale + 1}", random(3, width, 1, 1))
        before = width
    return tensors


def run_pggan_gan_zoo(tensors, z):
    """z -> image. He's constant multiplies what each layer gives, its bias included."""

    def layer(name, x):
        weight, bias = tensors[f"{name}.module.weight"], tensors[f"{name}.module.bias"]
        if x.ndim == 2:
            return F.linear(x, weight, bias) * math.sqrt(2 / weight.shape[1])
        return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2) * math.sqrt(2 / weight[0].numel())

    x = pixel_norm(leaky(layer("formatLayer", pixel_norm(z))).reshape(len(z), -1, 4, 4))
    x = pixel_norm(leaky(layer("groupScale0.0", x)))
    number = sum(name.startswith("toRGBLayers") for name in tensors) // 2
    for scale in range(number - 1):
        x = nearest(x)
        for index in (0, 1):
            x = pixel_norm(leaky(layer(f"scaleLayers.{scale}.{index}", x)))
    return layer(f"toRGBLayers.{number - 1}", x)


# StyleGAN v1


def stylegan1_genforce(size, mapping=2):
    """A state dict of genforce's layout."""
    tensors = {"truncation.w_avg": small(CODE), "synthesis.lod": torch.zeros(())}
    for index in range(mapping):
        tensors[f"mapping.dense{index}.weight"] = random(CODE, CODE) / 0.01
        tensors[f"mapping.dense{index}.bias"] = small(CODE) / 0.01
    before = None
    for block, resolution in enumerate(sizes_of(size)):
        width = WIDTHS[resolution]
        for index in (2 * block, 2 * block + 1):
            layer = f"synthesis.layer{index}"
            if index == 0:
                tensors[f"{layer}.const"] = random(1, width, 4, 4)
            else:
                tensors[f"{layer}.weight"] = random(width, before if index % 2 == 0 else width, 3, 3)
            if index and index % 2 == 0:
                tensors[f"{layer}.blur.kernel"] = random(width, 1, 3, 3)  # constant there
            tensors[f"{layer}.bias"] = small(width)
            tensors[f"{layer}.apply_noise.weight"] = small(width)
            tensors[f"{layer}.apply_noise.noise"] = random(1, 1, resolution, resolution)
            tensors[f"{layer}.style.weight"], tensors[f"{layer}.style.bias"] = random(2 * width, CODE), small(2 * width)
        tensors[f"synthesis.output{block}.weight"] = random(3, width, 1, 1)
        tensors[f"synthesis.output{block}.bias"] = small(3)
        before = width
    return tensors


def blur(x):
    line = torch.tensor([0.25, 0.5, 0.25])
    return F.conv2d(x, torch.outer(line, line).expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])


def adain(x, scale, shift, epsilon=1e-8):
    mean = x.mean(dim=(2, 3), keepdim=True)
    x = (x - mean) / ((x - mean).square().mean(dim=(2, 3), keepdim=True) + epsilon).sqrt()
    return x * scale[:, :, None, None] + shift[:, :, None, None]


def run_stylegan1_genforce(tensors, z, noise):
    """z and a map (N, 1, r, r) per resolution -> image. From 128 px on, a transposed convolution upsamples."""
    w = pixel_norm(z)
    for index in range(sum(name.startswith("mapping") for name in tensors) // 2):
        weight, bias = (tensors[f"mapping.dense{index}.{part}"] for part in ("weight", "bias"))
        w = leaky(F.linear(w, weight * 0.01 * math.sqrt(2 / CODE), bias * 0.01))
    number = sum(name.endswith("apply_noise.weight") for name in tensors)
    for index in range(number):
        layer, resolution = f"synthesis.layer{index}", 4 << index // 2
        if index == 0:
            x = tensors[f"{layer}.const"].expand(len(z), -1, -1, -1)
        else:
            weight = tensors[f"{layer}.weight"]
            weight = weight * math.sqrt(2 / weight[0].numel())
            if index % 2:
                x = F.conv2d(x, weight, padding=1)
            elif resolution < 128:
                x = blur(F.conv2d(nearest(x), weight, padding=1))
            else:
                x = blur(F.conv_transpose2d(x, four_shifts(weight).transpose(0, 1), stride=2, padding=1))
        x = x + noise[index // 2] * per_channel(tensors[f"{layer}.apply_noise.weight"])
        x = leaky(x + per_channel(tensors[f"{layer}.bias"]))
        style = F.linear(w, tensors[f"{layer}.style.weight"] / math.sqrt(CODE), tensors[f"{layer}.style.bias"])
        scale, shift = style.chunk(2, dim=1)
        x = adain(x, scale + 1, shift)
    weight, bias = (tensors[f"synthesis.output{number // 2 - 1}.{part}"] for part in ("weight", "bias"))
    return F.conv2d(x, weight / math.sqrt(weight.shape[1]), bias)


def stylegan1_pulse(tensors):
    """The same network in PULSE's layout: synthesis and mapping, two files there."""
    synthesis, number = {}, sum(name.endswith("apply_noise.weight") for name in tensors)
    for index in range(number):
        resolution, theirs = 4 << index // 2, f"synthesis.layer{index}"
        block = f"blocks.{resolution}x{resolution}"
        conv = f"{block}." + ("conv" if resolution == 4 else "conv1" if index % 2 else "conv0_up")
        if index == 0:
            synthesis[f"{block}.const"] = tensors[f"{theirs}.const"]
            synthesis[f"{block}.bias"] = tensors[f"{theirs}.bias"]
        else:
            synthesis[f"{conv}.weight"], synthesis[f"{conv}.bias"] = (
                tensors[f"{theirs}.weight"],
                tensors[f"{theirs}.bias"],
            )
        if index and index % 2 == 0:
            synthesis[f"{conv}.intermediate.kernel"] = random(1, 1, 3, 3)
        epilogue = f"{block}.epi{index % 2 + 1}"
        synthesis[f"{epilogue}.noise.weight"] = tensors[f"{theirs}.apply_noise.weight"]
        for part in ("weight", "bias"):
            synthesis[f"{epilogue}.style_mod.lin.{part}"] = tensors[f"{theirs}.style.{part}"]
    for part in ("weight", "bias"):
        synthesis[f"torgb.{part}"] = tensors[f"synthesis.output{number // 2 - 1}.{part}"]
    prefix = "mapping."
    return synthesis, {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def stylegan1_rosinality(size, trained, mapping=2):
    """A state dict of rosinality's layout with blocks up to `size`, of which those up to `trained` were trained."""
    tensors, before = {}, None
    for index in range(mapping):
        tensors[f"style.{2 * index + 1}.linear.weight_orig"] = random(CODE, CODE)
        tensors[f"style.{2 * index + 1}.linear.bias"] = small(CODE)
    for index, resolution in enumerate(sizes_of(size)):
        width, block = WIDTHS[resolution], f"generator.progression.{index}"
        learned = small if resolution <= trained else torch.zeros
        if index == 0:
            tensors[f"{block}.conv1.input"] = random(1, width, 4, 4)
        elif resolution < 128:
            tensors[f"{block}.conv1.1.conv.weight_orig"] = random(width, before, 3, 3)
            tensors[f"{block}.conv1.1.conv.bias"] = learned(width)
        else:
            tensors[f"{block}.conv1.0.weight"], tensors[f"{block}.conv1.0.bias"] = (
                random(before, width, 3, 3),
                learned(width),
            )
        if index:
            name = f"{block}.conv1.{2 if resolution < 128 else 1}"
            tensors[f"{name}.weight"], tensors[f"{name}.weight_flip"] = random(width, 1, 3, 3), random(width, 1, 3, 3)
        tensors[f"{block}.conv2.conv.weight_orig"] = random(width, width, 3, 3)
        tensors[f"{block}.conv2.conv.bias"] = learned(width)
        for layer in (1, 2):
            tensors[f"{block}.noise{layer}.weight_orig"] = learned(1, width, 1, 1)
            tensors[f"{block}.adain{layer}.style.linear.weight_orig"] = random(2 * width, CODE)
            bias = torch.cat([torch.ones(width), torch.zeros(width)]) + small(2 * width)
            tensors[f"{block}.adain{layer}.style.linear.bias"] = bias
        tensors[f"generator.to_rgb.{index}.conv.weight_orig"] = random(3, width, 1, 1)
        tensors[f"generator.to_rgb.{index}.conv.bias"] = small(3)
        before = width
    return tensors


def run_stylegan1_rosinality(tensors, z, noise, trained):
    """As above; sqrt(2 / fan-in) multiplies all weights, biases are blurred."""

    def equal(weight):
        return weight * math.sqrt(2 / (weight.shape[1] * weight[0][0].numel()))

    w = pixel_norm(z)
    for index in range(sum(name.startswith("style.") for name in tensors) // 2):
        layer = f"style.{2 * index + 1}.linear"
        w = leaky(F.linear(w, equal(tensors[f"{layer}.weight_orig"]), tensors[f"{layer}.bias"]))
    for index, resolution in enumerate(sizes_of(trained)):
        block = f"generator.progression.{index}"
        if index == 0:
            x = tensors[f"{block}.conv1.input"].expand(len(z), -1, -1, -1)
        elif resolution < 128:
            conv = f"{block}.conv1.1.conv"
            x = blur(F.conv2d(nearest(x), equal(tensors[f"{conv}.weight_orig"]), tensors[f"{conv}.bias"], padding=1))
        else:
            weight = tensors[f"{block}.conv1.0.weight"]
            weight = four_shifts(weight * math.sqrt(2 / (len(weight) * 9))) / 4
            x = blur(F.conv_transpose2d(x, weight, tensors[f"{block}.conv1.0.bias"], stride=2, padding=1))
        for layer in (1, 2):
            if layer == 2:
                conv = f"{block}.conv2.conv"
                x = F.conv2d(x, equal(tensors[f"{conv}.weight_orig"]), tensors[f"{conv}.bias"], padding=1)
            x = leaky(x + equal(tensors[f"{block}.noise{layer}.weight_orig"]) * noise[index])
            style = f"{block}.adain{layer}.style.linear"
            scale, shift = F.linear(w, equal(tensors[f"{style}.weight_orig"]), tensors[f"{style}.bias"]).chunk(2, dim=1)
            x = adain(x, scale, shift, epsilon=1e-5)
    rgb = f"generator.to_rgb.{index}.conv"
    return F.conv2d(x, equal(tensors[f"{rgb}.weight_orig"]), tensors[f"{rgb}.bias"])


# StyleGAN2


def stylegan2_nvlabs(size, mapping=2):
    """``G_ema.state_dict()`` of StyleGAN2-ADA."""
    tensors, before = {"mapping.w_avg": small(CODE)}, None
    line = torch.tensor([1.0, 3, 3, 1]) / 8
    for index in range(mapping):
        tensors[f"mapping.fc{index}.weight"] = random(CODE, CODE) / 0.01
        tensors[f"mapping.fc{index}.bias"] = small(CODE) / 0.01
    for resolution in sizes_of(size):
        width, block = WIDTHS[resolution], f"synthesis.b{resolution}"
        tensors[f"{block}.resample_filter"] = torch.outer(line, line)
        layers = (
            {"conv1": width, "torgb": width} if before is None else {"conv0": before, "conv1": width, "torgb": width}
        )
        if before is None:
            tensors[f"{block}.const"] = random(width, 4, 4)
        for name, taken in layers.items():
            layer, is_image = f"{block}.{name}", name == "torgb"
            tensors[f"{layer}.weight"] = random(3, width, 1, 1) if is_image else random(width, taken, 3, 3)
            tensors[f"{layer}.bias"] = small(3 if is_image else width)
            tensors[f"{layer}.affine.weight"], tensors[f"{layer}.affine.bias"] = random(taken, CODE), 1 + small(taken)
            if not is_image:
                tensors[f"{layer}.noise_const"] = random(resolution, resolution)
                tensors[f"{layer}.noise_strength"] = small(1)[0]
                tensors[f"{layer}.resample_filter"] = torch.outer(line, line)
        before = width
    return tensors


def zero_stuffed(x):
    batch, channels, height, width = x.shape
    stuffed = x.new_zeros(batch, channels, 2 * height, 2 * width)
    stuffed[:, :, ::2, ::2] = x
    return stuffed


def filtered(x, first, last):
    """Pad and filter with 1 3 3 1, whose sum of 4 makes up for the zeros."""
    line = torch.tensor([1.0, 3, 3, 1]) / 4
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, (first, last, first, last)), kernel, groups=x.shape[1])


def run_stylegan2_nvlabs(tensors, z, noise):
    """z and a map (1, 1, r, r) per resolution -> image. Upsampling is a filter and then a true convolution."""

    def styles(layer, w):
        return F.linear(w, tensors[f"{layer}.affine.weight"] / math.sqrt(CODE), tensors[f"{layer}.affine.bias"])

    def convolve(layer, x, w, map_, up):
        weight = tensors[f"{layer}.weight"]
        rows = []
        for sample, style in zip(x, styles(layer, w), strict=True):
            own = weight * style[None, :, None, None]
            own = own / (own.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
            if up:
                rows.append(F.conv2d(filtered(zero_stuffed(sample[None]), 3, 2), own.flip(2, 3)))
            else:
                rows.append(F.conv2d(sample[None], own, padding=1))
        x = torch.cat(rows) + map_ * tensors[f"{layer}.noise_strength"]
        return leaky(x + per_channel(tensors[f"{layer}.bias"])) * math.sqrt(2)

    w = z / (z.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for index in range(sum(name.startswith("mapping.fc") for name in tensors) // 2):
        weight, bias = (tensors[f"mapping.fc{index}.{part}"] for part in ("weight", "bias"))
        w = leaky(F.linear(w, weight * 0.01 / math.sqrt(CODE), bias * 0.01)) * math.sqrt(2)
    x, image = tensors["synthesis.b4.const"].expand(len(z), -1, -1, -1), None
    for map_ in noise:
        resolution = map_.shape[-1]
        block = f"synthesis.b{resolution}"
        if resolution > 4:
            x = convolve(f"{block}.conv0", x, w, map_, up=True)
        x = convolve(f"{block}.conv1", x, w, map_, up=False)
        weight, scale = tensors[f"{block}.torgb.weight"], styles(f"{block}.torgb", w) / math.sqrt(x.shape[1])
        drawn = F.conv2d(x * scale[:, :, None, None], weight) + per_channel(tensors[f"{block}.torgb.bias"])
        image = drawn if image is None else drawn + filtered(zero_stuffed(image), 2, 1)
    return image


def stylegan2_genforce(tensors):
    """The same network in genforce's layout, with TensorFlow's values."""
    renamed = {"truncation.w_avg": tensors["mapping.w_avg"], "synthesis.lod": torch.zeros(())}
    for name, tensor in tensors.items():
        if name.startswith("mapping.fc"):
            renamed[name.replace("fc", "dense")] = tensor
    renamed["synthesis.early_layer.const"] = tensors["synthesis.b4.const"][None]
    sizes = sorted({int(name.split(".")[1][1:]) for name in tensors if name.startswith("synthesis.b")})
    for block, resolution in enumerate(sizes):
        layers = {"conv1": f"layer{2 * block}", "torgb": f"output{block}"}
        layers |= {} if block == 0 else {"conv0": f"layer{2 * block - 1}"}
        for name, theirs in layers.items():
            layer = f"synthesis.b{resolution}.{name}"
            weight = tensors[f"{layer}.weight"]
            renamed[f"synthesis.{theirs}.weight"] = weight.flip(2, 3) if name == "conv0" else weight
            renamed[f"synthesis.{theirs}.bias"] = tensors[f"{layer}.bias"]
            renamed[f"synthesis.{theirs}.style.weight"] = tensors[f"{layer}.affine.weight"]
            renamed[f"synthesis.{theirs}.style.bias"] = tensors[f"{layer}.affine.bias"] - 1
            if name != "torgb":
                renamed[f"synthesis.{theirs}.noise_strength"] = tensors[f"{layer}.noise_strength"]
                renamed[f"synthesis.{theirs}.noise"] = tensors[f"{layer}.noise_const"][None, None]
    return renamed


def discriminator_nvlabs(size):
    """``D.state_dict()`` of StyleGAN2-ADA."""
    tensors, line = {}, torch.tensor([1.0, 3, 3, 1]) / 8
    sizes = sizes_of(size)
    width = WIDTHS[size]
    tensors[f"b{size}.fromrgb.weight"], tensors[f"b{size}.fromrgb.bias"] = random(width, 3, 1, 1), small(width)
    for resolution in sizes[:0:-1]:
        width, narrower, block = WIDTHS[resolution], WIDTHS[resolution // 2], f"b{resolution}"
        tensors[f"{block}.conv0.weight"], tensors[f"{block}.conv0.bias"] = random(width, width, 3, 3), small(width)
        tensors[f"{block}.conv1.weight"], tensors[f"{block}.conv1.bias"] = (
            random(narrower, width, 3, 3),
            small(narrower),
        )
        tensors[f"{block}.skip.weight"] = random(narrower, width, 1, 1)
        for name in ("", "conv0.", "conv1.", "skip."):
            tensors[f"{block}.{name}resample_filter"] = torch.outer(line, line)
    width = WIDTHS[4]
    tensors["b4.conv.weight"], tensors["b4.conv.bias"] = random(width, width + 1, 3, 3), small(width)
    tensors["b4.fc.weight"], tensors["b4.fc.bias"] = random(width, 16 * width), small(width)
    tensors["b4.out.weight"], tensors["b4.out.bias"] = random(1, width), small(1)
    return tensors
