"""Small latency tables in the formats of other projects."""

from __future__ import annotations

from hwnas.tables.importers import Stated

SAID = ("--device-name", "Pixel 1", "--runtime", "tflite", "--threads", 1, "--batch", 1)


STATED = Stated(device_name="Pixel 1", runtime="tflite", threads=1, batch=1)


PROXYLESS = """\
Conv-input:224x224x3-output:112x112x32: {count: 10, mean: 4.5, var: 0.1}
expanded_conv-input:7x7x192-output:7x7x320-expand:6-kernel:5-stride:1-idskip:0:
  count: 154
  mean: 5.264772727272727
  var: 0.19495998666150827
expanded_conv-input:56x56x24-output:28x28x32-expand:3-kernel:5-stride:2-idskip:0: {mean: 2}
expanded_conv-input:28x28x32-output:28x28x32-expand:3-kernel:7-stride:1-idskip:1: {mean: 1.5}
Conv_1-input:7x7x320-output:7x7x1280: {mean: 3.0}
Logits-input:7x7x1280-output:1000: {mean: 1.0}
"""


HW_NAS_BENCH = {
    "ConvNorm_H224_W224_Cin3_Cout16_kernel3_stride2_group1": 1.0,
    "ConvBlock_H56_W56_Cin24_Cout32_exp3_kernel5_stride2_group1": 2.0,
    "ConvBlock_H56_W56_Cin24_Cout24_exp1_kernel3_stride1_group2": 3.0,
    "Skip_H56_W56_Cin24_Cout24_stride1": 0.0,
    "Skip_H56_W56_Cin24_Cout32_stride2": 0.5,
    "AvgP_H7_W7_Cin1984_Cout1984_kernel7_stride1": 0.25,
    "FC_Cin1984_Cout1000": 0.125,
}


NNI = [
    {"op_name": "mb_k3_e2_res", "op_data_shape": (14, 28, 32, 32, 1), "op_dtype": "float", "op_latency": 120.0},
    {"op_name": "sep_k5", "op_data_shape": (14, 14, 32, 64, 2), "op_dtype": "float", "op_latency": 60.0},
    {"op_name": "mb_k5_res_se", "op_data_shape": (7, 7, 64, 64, 1), "op_dtype": "float", "op_latency": 60.0},
]
