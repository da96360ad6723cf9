"""A training step of the published network, written plainly: float32, no cleverness. Frozen.

It is what the package's own step is timed beside (gpu.py), and is not to be made faster. It stands
alone: torch only, nothing of the package. Networks, losses and optimisers are the published ones
(Leong & Horgan 2020, doi 10.5194/tc-14-3687-2020), with the adversarial gradient live; parameters
carry the package's names, so that both can start from the same weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class DeformableConv2d(nn.Module):
    """Deformable 3 x 3 convolution: four gathers, a weighted sum, a matrix product."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.offset_conv = nn.Conv2d(channels, 18, 3, padding=1)
        self.deform_conv = nn.Conv2d(channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        offset = self.offset_conv(x)
        padded = functional.pad(x, (1, 1, 1, 1))
        rows = torch.arange(height, device=x.device).view(1, 1, height, 1) + 1
        columns = torch.arange(width, device=x.device).view(1, 1, 1, width) + 1
        steps = torch.arange(9, device=x.device).view(1, 9, 1, 1)
        across = (columns + steps % 3 - 1 + offset[:, :9]).clamp(0, width + 1)
        down = (rows + steps // 3 - 1 + offset[:, 9:]).clamp(0, height + 1)
        left, top = across.detach().floor(), down.detach().floor()
        right, bottom = (left + 1).clamp(max=width + 1), (top + 1).clamp(max=height + 1)
        flat = padded.view(n, channels, -1)

        def values(row: Tensor, column: Tensor) -> Tensor:
            index = (row * (width + 2) + column).long().view(n, 1, -1).expand(-1, channels, -1)
            return flat.gather(2, index).view(n, channels, 9, height, width)

        to_right, to_bottom = (across - left).unsqueeze(1), (down - top).unsqueeze(1)
        sampled = (
            values(top, left) * ((1 - to_right) * (1 - to_bottom))
            + values(top, right) * (to_right * (1 - to_bottom))
            + values(bottom, left) * ((1 - to_right) * to_bottom)
            + values(bottom, right) * (to_right * to_bottom)
        )
        matrix = self.deform_conv.weight.flatten(1)
        y = matrix @ sampled.view(n, channels * 9, height * width)
        return y.view(n, -1, height, width) + self.deform_conv.bias.view(1, -1, 1, 1)


class DenseBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_layer1 = nn.Conv2d(64, 32, 3, padding=1)
        self.conv_layer2 = nn.Conv2d(96, 32, 3, padding=1)
        self.conv_layer3 = nn.Conv2d(128, 32, 3, padding=1)
        self.conv_layer4 = nn.Conv2d(160, 32, 3, padding=1)
        self.conv_layer5 = nn.Conv2d(192, 64, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a1 = functional.leaky_relu(self.conv_layer1(x), 0.2)
        a2 = functional.leaky_relu(self.conv_layer2(torch.cat((x, a1), 1)), 0.2)
        a3 = functional.leaky_relu(self.conv_layer3(torch.cat((x, a1, a2), 1)), 0.2)
        a4 = functional.leaky_relu(self.conv_layer4(torch.cat((x, a1, a2, a3), 1)), 0.2)
        return x + 0.2 * self.conv_layer5(torch.cat((x, a1, a2, a3, a4), 1))


class ResidualInResidualDenseBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.residual_dense_block1 = DenseBlock()
        self.residual_dense_block2 = DenseBlock()
        self.residual_dense_block3 = DenseBlock()

    def forward(self, x: Tensor) -> Tensor:
        y = self.residual_dense_block1(x)
        y = self.residual_dense_block2(y)
        y = self.residual_dense_block3(y)
        return x + 0.2 * y


class InputBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_on_X = nn.Conv2d(1, 32, 3)
        self.conv_on_W1 = nn.Conv2d(1, 32, 30, stride=10)
        self.conv_on_W2 = nn.Conv2d(2, 32, 6, stride=2)
        self.conv_on_W3 = nn.Conv2d(1, 32, 3)

    def forward(self, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
        return torch.cat(
            (self.conv_on_X(x), self.conv_on_W1(w1), self.conv_on_W2(w2), self.conv_on_W3(w3)), 1
        )


class Generator(nn.Module):
    def __init__(self, num_residual_blocks: int = 12) -> None:
        super().__init__()
        self.input_block = InputBlock()
        self.pre_residual_conv_layer = nn.Conv2d(128, 64, 3, padding=1)
        self.residual_network = nn.Sequential(
            *(ResidualInResidualDenseBlock() for _ in range(num_residual_blocks))
        )
        self.post_residual_conv_layer = nn.Conv2d(64, 64, 3, padding=1)
        self.post_upsample_conv_layer_1 = nn.Conv2d(64, 64, 3, padding=1)
        self.post_upsample_conv_layer_2 = nn.Conv2d(64, 64, 3, padding=1)
        self.final_conv_layer1 = DeformableConv2d(64, 64)
        self.final_conv_layer2 = DeformableConv2d(64, 1)

    def forward(self, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
        y = self.input_block(x, w1, w2, w3)
        y = functional.leaky_relu(self.pre_residual_conv_layer(y), 0.2)
        y = y + self.post_residual_conv_layer(self.residual_network(y))
        y = functional.interpolate(y, scale_factor=2, mode="nearest")
        y = functional.leaky_relu(self.post_upsample_conv_layer_1(y), 0.2)
        y = functional.interpolate(y, scale_factor=2, mode="nearest")
        y = functional.leaky_relu(self.post_upsample_conv_layer_2(y), 0.2)
        y = functional.leaky_relu(self.final_conv_layer1(y), 0.2)
        return self.final_conv_layer2(y)


class Discriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_layer0 = nn.Conv2d(1, 64, 3, padding=1)
        channels = (64, 64, 128, 128, 128, 256, 256, 512, 512, 512)
        for layer in range(1, 10):
            kernel, stride = (4, 2) if layer % 2 else (3, 1)
            conv = nn.Conv2d(
                channels[layer - 1], channels[layer], kernel, stride, padding=1, bias=False
            )
            self.add_module(f"conv_layer{layer}", conv)
            self.add_module(f"batch_norm{layer}", nn.BatchNorm2d(channels[layer]))
        self.linear_1 = nn.Linear(512, 100)
        self.linear_2 = nn.Linear(100, 1)

    def forward(self, y: Tensor) -> Tensor:
        y = functional.leaky_relu(self.conv_layer0(y), 0.2)
        for layer in range(1, 10):
            conv, norm = getattr(self, f"conv_layer{layer}"), getattr(self, f"batch_norm{layer}")
            y = functional.leaky_relu(norm(conv(y)), 0.2)
        y = functional.leaky_relu(self.linear_1(y.mean(dim=(2, 3))), 0.2)
        return self.linear_2(y)


def relativistic_loss(high: Tensor, low: Tensor) -> Tensor:
    ones, zeros = torch.ones_like(high), torch.zeros_like(low)
    return functional.binary_cross_entropy_with_logits(
        high - low.mean(), ones
    ) + functional.binary_cross_entropy_with_logits(low - high.mean(), zeros)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    def mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, 9, stride=1)

    c1, c2 = 0.01**2, 0.03**2
    a_level, b_level = a.detach().mean((2, 3), keepdim=True), b.mean((2, 3), keepdim=True)
    a, b = a - a_level, b - b_level
    a_mean, b_mean = mean(a), mean(b)
    a_variance, b_variance = mean(a * a) - a_mean**2, mean(b * b) - b_mean**2
    covariance = mean(a * b) - a_mean * b_mean
    a_mean, b_mean = a_mean + a_level, b_mean + b_level
    luminance = (2 * a_mean * b_mean + c1) / (a_mean**2 + b_mean**2 + c1)
    return (luminance * (2 * covariance + c2) / (a_variance + b_variance + c2)).mean()


class Training:
    """Both networks and their optimisers; a step takes a batch of x, w1, w2, w3 and y."""

    def __init__(self, num_residual_blocks: int = 12, device: str = "cpu") -> None:
        self.generator = Generator(num_residual_blocks).to(device)
        self.discriminator = Discriminator().to(device)
        for network in (self.generator, self.discriminator):
            for module in network.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    fan_in = module.weight[0].numel()
                    nn.init.normal_(module.weight, std=0.1 * (2 / fan_in) ** 0.5)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        self.generator_optimizer, self.discriminator_optimizer = (
            torch.optim.Adam(network.parameters(), lr=1.7e-4)
            for network in (self.generator, self.discriminator)
        )

    def step(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Train the discriminator, then the generator; gives both losses, before the updates."""
        x, y_true = batch["x"], batch["y"]
        y_pred = self.generator(x, batch["w1"], batch["w2"], batch["w3"])

        real, fake = self.discriminator(y_true), self.discriminator(y_pred.detach())
        discriminator_loss = relativistic_loss(real, fake)
        self.discriminator_optimizer.zero_grad()
        discriminator_loss.backward()
        self.discriminator_optimizer.step()

        with torch.no_grad():
            real = self.discriminator(y_true)
        fake = self.discriminator(y_pred)
        generator_loss = (
            1e-2 * functional.l1_loss(y_pred, y_true)
            + 2e-2 * relativistic_loss(fake, real)
            + 2e-3 * functional.l1_loss(functional.avg_pool2d(y_pred, 4), x[:, :, 1:-1, 1:-1])
            + 5.25 * (1 - ssim(y_pred, y_true))
        )
        self.generator_optimizer.zero_grad()
        generator_loss.backward(inputs=list(self.generator.parameters()))
        self.generator_optimizer.step()
        return discriminator_loss.detach(), generator_loss.detach()
