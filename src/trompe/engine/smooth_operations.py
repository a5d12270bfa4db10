"""The operations of aten that have no kink: all others, met on the way of an image, may have one.

A list of what is smooth errs on the safe side: what PyTorch adds, and what others register, is
reported until it is entered here.
"""

from __future__ import annotations

_ELEMENTWISE = """
add addcdiv addcmul acos acosh asin asinh atan atan2 atanh cos cosh deg2rad digamma div divide
erf erfc erfinv exp exp2 expit expm1 gelu lgamma lerp log log10 log1p log2 log_sigmoid
log_sigmoid_forward logaddexp logaddexp2 logit mish mul multiply nan_to_num neg negative pow
positive rad2deg reciprocal rsqrt rsub sigmoid silu sin sinc sinh softplus special_erfcx
special_expit special_log_ndtr special_ndtr sqrt square sub subtract tan tanh true_divide
special_entr xlogy glu
"""

_SUMS = """
cumsum cumprod dist linalg_norm linalg_vector_norm logcumsumexp logsumexp mean nanmean nansum norm
prod std std_mean sum trace var var_mean
"""

_NORMALISATIONS = """
_log_softmax _safe_softmax _softmax _batch_norm_impl_index _batch_norm_no_update
_batch_norm_with_update _native_batch_norm_legit _native_batch_norm_legit_no_training
_fused_rms_norm batch_norm cudnn_batch_norm group_norm instance_norm layer_norm log_softmax
miopen_batch_norm native_batch_norm native_group_norm native_layer_norm rms_norm softmax
"""

_LINEAR = """
_conv_depthwise2d _convolution _efficient_attention_forward _flash_attention_forward
_scaled_dot_product_attention_math _scaled_dot_product_cudnn_attention
_scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention
_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_fused_attention_overrideable
_nested_tensor_from_mask _trilinear addbmm addmm addmv addr baddbmm bilinear bmm conv1d conv2d
conv3d conv_depthwise3d conv_transpose1d conv_transpose2d conv_transpose3d convolution
convolution_overrideable cudnn_convolution cudnn_convolution_transpose dot einsum
fft_fft fft_fft2 fft_fftn fft_ifft fft_ifft2 fft_ifftn fft_irfft fft_irfft2 fft_rfft fft_rfft2
_fft_c2c _fft_c2r _fft_r2c ger inner linear matmul miopen_convolution mkldnn_convolution
mkldnn_linear mm mv outer scaled_dot_product_attention slow_conv3d slow_conv_transpose2d
slow_conv_transpose3d slow_conv_dilated2d slow_conv_dilated3d thnn_conv2d _thnn_conv2d_forward
tensordot vdot _thnn_fused_lstm_cell _thnn_fused_gru_cell lstm lstm_cell gru gru_cell
mkldnn_rnn_layer rnn_tanh rnn_tanh_cell _cudnn_rnn sparse_mm _sparse_mm _sparse_addmm
sparse_sampled_addmm _sparse_sum
"""

_MOVING = """
_adaptive_avg_pool2d _adaptive_avg_pool3d _reshape_alias _shape_as_tensor _to_copy _unsafe_index
_unsafe_view adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d affine_grid_generator
alias as_strided as_strided_scatter avg_pool1d avg_pool2d avg_pool3d bernoulli cat channel_shuffle
chunk clone col2im complex concat conj _conj constant_pad_nd contiguous copy detach diag diag_embed
diagonal diagonal_copy diagonal_scatter dropout empty_like expand fill flatten flip fold gather
im2col index index_add index_copy index_put _index_put_impl index_select imag kron lift_fresh
masked_fill masked_scatter masked_select movedim narrow native_channel_shuffle native_dropout
new_empty new_empty_strided new_full new_ones new_zeros ones_like
permute pixel_shuffle pixel_unshuffle
rand_like randn_like real reflection_pad1d reflection_pad2d reflection_pad3d repeat
repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape resolve_conj
resolve_neg roll rot90 scatter scatter_add select select_scatter slice slice_scatter split
split_with_sizes split_copy split_with_sizes_copy squeeze stack swapaxes t take take_along_dim
tensor_split tile transpose tril triu unbind unflatten unfold unsafe_chunk unsafe_split
unsafe_split_with_sizes unsqueeze upsample_bicubic2d _upsample_bicubic2d_aa upsample_bilinear2d
_upsample_bilinear2d_aa upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
upsample_trilinear3d embedding
view view_as view_as_complex view_as_real view_copy where zero zeros_like
full_like
"""

SMOOTH: frozenset[str] = frozenset(
    f"aten::{name}"
    for names in (_ELEMENTWISE, _SUMS, _NORMALISATIONS, _LINEAR, _MOVING)
    for name in names.split()
)
"""Names of operations that are smooth in their floating-point inputs; linear ones are."""

READS: frozenset[str] = frozenset(
    {"aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal", "aten::allclose"}
)
"""Operations by which a program reads values, and may branch on them."""

EXPONENTS = frozenset({"aten::linalg_vector_norm", "aten::norm", "aten::linalg_norm", "aten::dist"})
"""Norms, which are smooth only for some exponents."""

_VALUELESS = """
zeros_like ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones
new_full new_empty new_empty_strided sym_size sym_stride sym_numel size
"""

VALUELESS: frozenset[str] = frozenset(f"aten::{name}" for name in _VALUELESS.split())
"""Operations that take the shape of a tensor, and none of its numbers."""

IN_FIRST = frozenset({"aten::grid_sampler", "aten::grid_sampler_2d", "aten::grid_sampler_3d"})
"""Operations that are smooth in their first input, and not in the others."""
