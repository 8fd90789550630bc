"""Answers over gRPC with a model file, on a CPU.

settings.py     every option, declared once
machine.py      how this process takes and gives back memory
sizing.py       the limits that follow from it
errors.py       what the core refuses
batcher.py      gathers what callers ask at the same time; knows a callable and a clock, nothing of models
folder.py       the versions of the model in a folder, and which of them are served
repository.py   those versions, open, and replaced while calls go on
core.py         the service: images in, answers out; knows nothing of gRPC
statistics.py   what each model has done, counted
digits.py       the RPCs of scanline.v1: messages to arrays and back
oip/            the Open Inference Protocol: the same core in its messages
intake.py       how calls come to the core that do not come whole: in two halves, as streams
parts.py        what a message may be made of, before it is parsed
calls.py        what happens around every call: request id, count, status of its error, log line
interceptor.py  puts that around the handlers
credentials.py  TLS and tokens, read again when their files change
threads.py      the plain transport: grpc.server
loop.py         the fast transport: the gRPC core's events
loop_call.py    a call as the fast transport sees it
tracing.py      OpenTelemetry, an extra
metrics.py      the port for operators: Prometheus, health
listening.py    how an address is taken, or why it can't be
pipes.py        how the processes of one server ask each other
worker.py       one of several processes on one port
supervisor.py   what keeps them, and counts and tells them as one
health.py       whether calls are worth sending, for grpc.health.v1
lifecycle.py    start, health, stop
logs.py         log lines for people or programs
command.py      `scanline serve`
"""
