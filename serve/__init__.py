"""Answers over gRPC with a model file, on a CPU.

settings.py    every option, declared once
machine.py     how many cores this process may really use
batcher.py     gathers what callers ask at the same time; knows a callable and a clock, nothing of models
core.py        the service: images in, predictions out; knows nothing of gRPC
errors.py      what the core refuses
status.py      the one place where those errors become gRPC status codes
convert.py     messages to arrays and back
servicers.py   the RPCs, thin
interceptor.py what happens around every call: request id, log line, error to status
lifecycle.py   start, health, signals, stop
"""
