"""The Open Inference Protocol over the same core and batcher: what clients of Triton and KServe speak.

models.py     the two models as the protocol sees them: what they take and give, are and have done, as messages
convert.py    requests to arrays, answers to tensors
servicer.py   the RPCs, thin
"""
