"""What to use instead of functions that cannot be evaluated."""

from ciphershift.models.compiler.step import UnsupportedStepError

NORM = "use nn.BatchNorm2d (nn.BatchNorm1d after flatten): its statistics are constants once it is trained"
PRODUCT = "of functions of two encrypted values there are sums and products, place by place"
INSTEAD = {
    "layer_norm native_layer_norm group_norm native_group_norm instance_norm rms_norm batch_norm _native_batch_norm_legit std var": NORM,
    "linalg_vector_norm norm": "write (x * x).sum(dim).sqrt(): a look-up, a sum and a look-up",
    "matmul bmm mm addmm einsum": f"{PRODUCT}; a product with constant weights is x @ W on the last axis, or nn.Linear",
    "scaled_dot_product_attention embedding prod": PRODUCT,
    "lstm gru rnn_tanh rnn_relu": "give it a tensor: pad sequences (ciphershift.protocol.sequences), do not pack them",
    "conv3d conv_transpose3d convolution": "use nn.Conv2d on the slices as channels",
    "upsample_bilinear2d upsample_bicubic2d upsample_linear1d grid_sampler": "use nearest upsampling, which only copies values",
    "topk sort argmax max min argsort": "use nn.MaxPool2d, or return the logits: the client takes the greatest",
    "rand rand_like randn randn_like bernoulli": "make the module compute the same every time",
}


def unsupported(name: str) -> UnsupportedStepError:
    """The error for a function of this name."""
    for names, instead in INSTEAD.items():
        if name in names.split():
            return UnsupportedStepError(f"{name.strip('_')} is not supported", instead)
    return UnsupportedStepError(f"{name} is not supported", "see docs/networks.md for the operations that are")
