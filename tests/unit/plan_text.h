/* plan_text.h - what cuDNN 9.19 wrote of a convolution, without its engine; and its spec */
#ifndef SPINENODE_TESTS_UNIT_PLAN_TEXT_H
#define SPINENODE_TESTS_UNIT_PLAN_TEXT_H

#include "cuda/convolution.h"

#define PLAN_REST                                                                                  \
    ",\"isByValue\":false,\"vectCount\":1,\"vectDim\":-1,\"ptrAlignment\":16,"                     \
    "\"reordering\":\"CUDNN_TENSOR_REORDERING_NONE\"}"

static const struct convolution_spec plan_spec = {.n = 1,
                                                  .c = 64,
                                                  .h = 32,
                                                  .w = 32,
                                                  .k = 64,
                                                  .oh = 32,
                                                  .ow = 32,
                                                  .kernel = {3, 3},
                                                  .stride = {1, 1},
                                                  .dilation = {1, 1},
                                                  .pad_begin = {1, 1},
                                                  .pad_end = {1, 1},
                                                  .half = true,
                                                  .bias = true,
                                                  .relu = true};

static const char plan_text[] =
    "{\"cudnnVersion\":91900,\"schemaVersion\":4,\"operationGraph\":{\"finalizeMode\":"
    "\"CONV_ADD_BIAS_ACT\",\"tensors\":["
    "{\"name\":\"1\",\"dataType\":\"CUDNN_DATA_HALF\",\"dim\":[1,64,32,32],"
    "\"stride\":[65536,1,2048,64],\"isVirtual\":false" PLAN_REST ","
    "{\"name\":\"2\",\"dataType\":\"CUDNN_DATA_HALF\",\"dim\":[64,64,3,3],"
    "\"stride\":[576,1,192,64],\"isVirtual\":false" PLAN_REST ","
    "{\"name\":\"3\",\"dataType\":\"CUDNN_DATA_HALF\",\"dim\":[1,64,1,1],"
    "\"stride\":[64,1,64,64],\"isVirtual\":false" PLAN_REST ","
    "{\"name\":\"4\",\"dataType\":\"CUDNN_DATA_HALF\",\"dim\":[1,64,32,32],"
    "\"stride\":[65536,1,2048,64],\"isVirtual\":false" PLAN_REST ","
    "{\"name\":\"6\",\"dataType\":\"CUDNN_DATA_FLOAT\",\"dim\":[1,64,32,32],"
    "\"stride\":[65536,1,2048,64],\"isVirtual\":true" PLAN_REST ","
    "{\"name\":\"7\",\"dataType\":\"CUDNN_DATA_FLOAT\",\"dim\":[1,64,32,32],"
    "\"stride\":[65536,1,2048,64],\"isVirtual\":true" PLAN_REST
    "],\"nodes\":[{\"operation\":\"CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR\","
    "\"mode\":\"CUDNN_CROSS_CORRELATION\",\"mathPrec\":\"CUDNN_DATA_FLOAT\",\"alpha\":1.0,"
    "\"beta\":0.0,\"pad\":[1,1],\"stride\":[1,1],\"dilation\":[1,1],\"X\":\"1\",\"W\":\"2\","
    "\"Y\":\"6\"},{\"operation\":\"CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR\","
    "\"pointwiseMode\":\"CUDNN_POINTWISE_ADD\",\"mathPrec\":\"CUDNN_DATA_FLOAT\",\"alpha1\":1.0,"
    "\"alpha2\":1.0,\"X\":\"6\",\"Y\":\"7\",\"B\":\"3\"},{\"operation\":"
    "\"CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR\",\"pointwiseMode\":"
    "\"CUDNN_POINTWISE_RELU_FWD\",\"mathPrec\":\"CUDNN_DATA_FLOAT\",\"upperClip\":"
    "1.7976931348623157e308,\"lowerClip\":0.0,\"lowerClipSlope\":0.0,\"alpha1\":1.0,"
    "\"alpha2\":1.0,\"X\":\"7\",\"Y\":\"4\"}]}}";

#endif
