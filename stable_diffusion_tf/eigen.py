"""Convolutions by Eigen, TensorFlow's own arithmetic, where oneDNN does all else."""

from functools import cache


def convolve(x, kernel):  # (b, h, w, c), (k, k, c, c') → (b, h, w, c')
    """A convolution of stride 1 that keeps the size, k odd, by an operation of TensorFlow's that
    oneDNN does not take over."""
    give_gradient()
    return run(x, kernel)


def run(x, kernel):
    import tensorflow as tf

    even = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    return tf.raw_ops.Conv(input=x, filter=kernel, data_format="CHANNELS_LAST", **even)


@cache
def give_gradient() -> None:
    """TensorFlow has none for this operation. Those of `Conv2D` would be oneDNN's again."""
    import tensorflow as tf

    @tf.RegisterGradient("Conv")
    def gradients(op, upstream):  # upstream: (b, h, w, c')
        x, kernel = op.inputs
        turned = tf.transpose(tf.reverse(kernel, [0, 1]), (0, 1, 3, 2))
        return run(upstream, turned), kernel_gradient(x, upstream, kernel.shape[0])


def kernel_gradient(x, upstream, side: int):  # (b, h, w, c), (b, h, w, c') → (k, k, c, c')
    import tensorflow as tf

    _, h, w, _ = upstream.shape
    wide = tf.pad(x, [[0, 0], *[[side // 2] * 2] * 2, [0, 0]])
    seen = [[wide[:, i : i + h, j : j + w] for j in range(side)] for i in range(side)]
    return tf.stack([[tf.einsum("bhwi,bhwo->io", s, upstream) for s in row] for row in seen])
