"""The Open Inference Protocol over the same core and batcher: what clients of Triton and KServe speak.

models.py     the two models as the protocol sees them, their metadata and configuration
convert.py    requests to arrays, answers to tensors
report.py     what the models have done, and which versions there are
servicer.py   the RPCs, thin
"""
